"""How a copy is known: by the id of the commit that made it."""

from enum import Enum
from hashlib import blake2b

from perdure.client import new_id
from perdure.types import Head

MARK_BYTES = ORIGIN_BYTES = 6


def copy_id(head: Head, version: int) -> bytes:
    """A new id for the commit that makes a copy, at ``version``, of what ``head`` speaks of.

    6 bytes that show a copy (:func:`is_copy`), 6 of its :func:`origin`, and 4 random ones: a
    copy that was deleted may be made again, when an id used before would not do.
    """
    return _mark(head.incarnation, version) + origin(head) + new_id()[:4]


def is_copy(head: Head) -> bool:
    """Whether a copy made this version, so that nobody has written to it since.

    True of another commit with a probability of 2 ** -48.
    """
    return head.tip.startswith(_mark(head.incarnation, head.version))


def origin(head: Head) -> bytes:
    """6 bytes that name the commit that wrote what is here, however often it was copied."""
    if is_copy(head):
        return head.tip[MARK_BYTES : MARK_BYTES + ORIGIN_BYTES]
    return blake2b(head.tip, digest_size=ORIGIN_BYTES).digest()


def _mark(incarnation: bytes, version: int) -> bytes:
    content = incarnation + version.to_bytes(8, "big")
    return blake2b(content, digest_size=MARK_BYTES, person=b"perdure copy").digest()


class Standing(Enum):
    """How what the target has under a key stands to the session that is to be copied there."""

    ABSENT = "nothing is there"
    """It is copied."""
    SAME = "exactly this is there"
    """Nothing is done."""
    OLDER = "a copy of an earlier version is there"
    """Nobody has written to it since: it is replaced."""
    NEWER = "a copy of a later version is there"
    CHANGED = "it is there, and not as an earlier copy left it"
    OTHER = "another session of this name is there"
    """These last three are refused, unless to be overwritten."""


def standing(here: Head, there: Head | None) -> Standing:
    """How the target's session stands to the source's."""
    if there is None:
        return Standing.ABSENT
    if there.incarnation != here.incarnation:
        return Standing.OTHER
    if origin(there) == origin(here):
        return Standing.SAME
    if not is_copy(there):
        return Standing.CHANGED
    return Standing.OLDER if there.version < here.version else Standing.NEWER
