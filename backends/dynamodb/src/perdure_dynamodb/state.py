"""What a slot says of its session: everything but the items, of constant size, carried forward.

The newest slot of a key is the session's state. See docs/decisions/0010.
"""

from enum import IntEnum

import msgspec

from perdure.backend import REMEMBERED_COMMITS
from perdure.errors import Corrupt, FormatTooNew
from perdure.types import Head, KeyRange

FORMAT = 1
"""Of the stored rows. A slot of a later one raises ``FormatTooNew``."""

INLINE_META = 512
"""A longer ``Head.meta`` stays in the slot whose commit set it."""

MARK_BYTES = 2
"""So much of each id is in ``State.recent``."""

MARKS = REMEMBERED_COMMITS + 1
"""Of so many slots: a life's last commits, and the delete that ended it."""

MANY_TOMBS = 16
LONG_TOMBS = 1024
"""A state that has more deletions than this to carry, or as many bytes of them, must not be
carried on: they are first done physically, and then dropped."""

TOO_MANY_TOMBS = 64
TOO_LONG_TOMBS = 16 << 10
"""And with more than this it must wait until that can be done."""


class Kind(IntEnum):
    """What a slot is."""

    COMMIT = 0
    """A commit: if it is the newest, the session is present unless it has expired."""
    SEAL = 1
    """The end of a life, by a delete or by an expiry that was noticed. Keeps its id only."""
    STUB = 2
    """What is left of a commit of a life that is over: its id, version and time."""


class Tomb(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A deletion not yet done physically: hides what was written before it."""

    start: bytes
    stop: bytes | None
    slot: int
    """That of the commit that deletes."""

    def covers(self, key: bytes, slot: int) -> bool:
        """Whether it hides the item with this key that was written in that slot."""
        return slot < self.slot and self.start <= key and (self.stop is None or key < self.stop)


class State(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """One slot: the commit or delete that took it, and the session after it.

    A seal carries on what the next life needs (``resent_at``) and, for those who remove what
    the dead one left, all else as it was.
    """

    format: int = FORMAT
    kind: Kind = Kind.COMMIT
    slot: int
    version: int
    """Of the session. A seal has that of the life's last commit."""
    incarnation: bytes
    tip: bytes
    """Id of the commit or delete; empty if an expiry was noticed."""
    digest: bytes = b""
    made_at: int
    """When, by the clock of who made it; never earlier than the slot before."""
    first: int
    """The slot that began this life."""
    segment: int
    """The slot since which versions have grown by one: ``first``, or that of the last commit
    with ``restored``. From there on a version's slot is ``version + slot - self.version``."""
    created_at: int
    updated_at: int
    expires_at: int | None = None
    last_delete: int = 0
    meta_version: int = 0
    meta: bytes = b""
    meta_slot: int = 0
    """The slot that holds ``meta`` if it is too long to be carried forward; else 0."""
    labels: tuple[str, ...] = ()
    recent_at: int = 0
    """The time in the keys of this session's rows in the indexes by recency."""
    due_at: int = 0
    """The time in the key of the due row that looks at its expiry; 0: there is none."""
    recent: bytes = b""
    """Of the ids in the last :data:`MARKS` slots, of whatever life, the last two bytes each,
    that of this slot at the end: an id that does not show here is in none of them."""
    resent_at: int = 0
    """When a commit with ``resend`` was applied last, in any life."""
    ended_at: int = 0
    """When the life before this one ended; 0 if there was none, or nobody remembers it."""
    log: bytes | None = None
    """The prefix of the first append of this life. Values appended under it ride in slots."""
    log_rows: bool = False
    """Some item's row may have a key like those of the values appended under ``log``."""
    staged: bool = False
    """A stage was committed in this life: item rows may be staged ones."""
    tombs: tuple[Tomb, ...] = ()
    touched: int = 0
    """The slot whose commit last changed rows of items, or deleted anything; 0: none has. Two
    states of a life that agree in it have the same items, but for values that ride in slots."""
    touched_at: int = 0
    """When that slot was made."""
    low: int = 0
    """In the slots of this life before this one, all values that rode there are deleted."""
    emptied: int = 0
    """As ``low``; and they are removed physically."""

    @property
    def offset(self) -> int:
        """What to add to a version since ``segment`` to get its slot."""
        return self.slot - self.version

    def present(self, now: int) -> bool:
        """Whether the session is there, if this is its newest slot."""
        return self.kind is Kind.COMMIT and not self.expired(now)

    def expired(self, now: int) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def shows(self, key: bytes, slot: int) -> bool:
        """Whether what was written for this key in that slot is still there: in this life, as
        one may have the incarnation of another, and not deleted since."""
        return slot >= self.first and not any(tomb.covers(key, slot) for tomb in self.tombs)

    @property
    def marks(self) -> int:
        """Of how many slots, up to this one, ``recent`` speaks."""
        return len(self.recent) // MARK_BYTES

    def may_remember(self, id: bytes) -> bool:
        """Whether one of the last :attr:`marks` slots may have this id; if not, none has."""
        mark = id[-MARK_BYTES:]
        at = self.recent.find(mark)
        while at > 0 and at % MARK_BYTES:
            at = self.recent.find(mark, at + 1)
        return at >= 0

    def head(self, meta: bytes) -> Head:
        """The session's head. ``meta`` is this state's own, or from the slot that holds it."""
        return Head(
            version=self.version,
            incarnation=self.incarnation,
            tip=self.tip,
            last_delete=self.last_delete,
            created_at=self.created_at,
            updated_at=self.updated_at,
            expires_at=self.expires_at,
            meta=meta,
            meta_version=self.meta_version,
            labels=self.labels,
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)
_format_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_values_decoder = msgspec.msgpack.Decoder(list[bytes | None])


def encode(state: State) -> bytes:
    """As it is stored."""
    return _encoder.encode(state)


def decode(stored: bytes) -> State:
    """The inverse of :func:`encode`. Raises ``FormatTooNew``, ``Corrupt``."""
    try:
        state = _decoder.decode(stored)
    except msgspec.DecodeError as error:
        if _format_of(stored) > FORMAT:
            raise _too_new(_format_of(stored)) from None
        raise Corrupt(f"a slot does not hold what perdure wrote: {error}") from error
    if state.format > FORMAT:
        raise _too_new(state.format)
    return state


def encode_values(values: list[bytes | None]) -> bytes:
    """The values that ride in a slot, in order; ``None`` in place of one that was deleted."""
    return _encoder.encode(values)


def decode_values(stored: bytes) -> list[bytes | None]:
    """The inverse of :func:`encode_values`. Raises ``Corrupt``."""
    try:
        return _values_decoder.decode(stored)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a slot does not hold the values perdure wrote: {error}") from error


def marked(recent: bytes, id: bytes) -> bytes:
    """``State.recent`` after one more slot. ``id`` is empty if that notices an expiry."""
    mark = id[-MARK_BYTES:] or bytes(MARK_BYTES)
    return (recent + mark)[-MARK_BYTES * MARKS :]


def tomb_of(target: bytes | KeyRange, slot: int) -> Tomb:
    """The deletion of one key or a range by the commit in that slot."""
    if isinstance(target, bytes):
        return Tomb(target, target + b"\0", slot)
    return Tomb(target.start, target.stop, slot)


def _format_of(stored: bytes) -> int:
    try:
        return msgspec.msgpack.decode(_format_decoder.decode(stored)[0], type=int)
    except (msgspec.DecodeError, IndexError):
        return 0


def _too_new(format: int) -> FormatTooNew:
    return FormatTooNew(
        f"this table was written in format {format} by a newer perdure; this one knows {FORMAT}"
    )
