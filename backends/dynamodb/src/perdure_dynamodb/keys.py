"""Where everything lies: the partition and sort keys of the one table. The stored format.

============================  =============================  =================================
partition ``p``               sort ``s``                     row
============================  =============================  =================================
``s`` session                 01 incarnation item-key stage  item
``s`` session                 02 slot                        slot
``s`` session                 03 incarnation stage           record of a stage
``i``, ``r``, ``l``, ``m`` …                                 :mod:`perdure_dynamodb.index`
``t``, ``k`` …                                               :mod:`perdure_dynamodb.registry`
``d`` …                                                      :mod:`perdure_dynamodb.due`
============================  =============================  =================================

A session is ``SessionKey.encode()``; slots are numbered from 1, 8 bytes, big-endian. An item's
key is written so that it keeps its order and no other key starts with it (:func:`sortable`).
Partition keys may have 2048 bytes, sort keys 1024 (AWS, "Constraints in Amazon DynamoDB").
"""

from hashlib import blake2b

from perdure.types import MAX_ITEM_KEY_BYTES, SessionKey

ITEM = b"\x01"
SLOT = b"\x02"
STAGE = b"\x03"

ID_BYTES = 16
"""Length of an incarnation, and of a stage's id."""

UNSTAGED = bytes(ID_BYTES)
"""In place of the stage's id in the key of a row that a commit wrote itself."""

SHARDS = 8
"""Over so many partitions the index of one tenant and kind is spread."""

DUE_SHARDS = 16
"""Over so many partitions what sweep has to do is spread."""

GROUP = 8

BEYOND = b"\xff" * (MAX_ITEM_KEY_BYTES + MAX_ITEM_KEY_BYTES // GROUP + GROUP + 2)
"""Above the sortable form of any item's key."""


def session(key: SessionKey) -> bytes:
    """The partition of everything of one session."""
    return b"s" + key.encode()


def slot(number: int) -> bytes:
    """The sort key of a slot; slots are numbered from 1."""
    return SLOT + number.to_bytes(8, "big")


NO_SLOT = slot(0)
"""Below all slots."""

LAST_SLOT = SLOT + b"\xff" * 8
"""Above all slots."""


def slot_number(sort: bytes) -> int:
    """The inverse of :func:`slot`."""
    return int.from_bytes(sort[1:], "big")


def item(incarnation: bytes, key: bytes, stage: bytes = UNSTAGED) -> bytes:
    """The sort key of an item's row."""
    return ITEM + incarnation + sortable(key) + stage


def item_range(incarnation: bytes, start: bytes, stop: bytes | None) -> tuple[bytes, bytes]:
    """Bounds for BETWEEN that hold the rows of all keys with ``start <= key < stop``.

    The upper one is no row's: an item's row has a stage behind its key.
    """
    life = ITEM + incarnation
    return life + sortable(start), life + (BEYOND if stop is None else sortable(stop))


def item_rows(incarnation: bytes, key: bytes) -> tuple[bytes, bytes]:
    """Bounds for BETWEEN that hold the rows of one key, staged or not."""
    only = ITEM + incarnation + sortable(key)
    return only, only + b"\xff" * ID_BYTES


def item_of(sort: bytes) -> tuple[bytes, bytes]:
    """(item key, stage) of an item's row."""
    return unsortable(sort[1 + ID_BYTES : -ID_BYTES]), sort[-ID_BYTES:]


def stage(incarnation: bytes, stage: bytes) -> bytes:
    """The sort key of a stage's record."""
    return STAGE + incarnation + stage


def shard(id: str) -> bytes:
    """The shard of a session in the index of its tenant and kind."""
    return bytes((_digest(id.encode()) % SHARDS,))


def values_stop(prefix: bytes) -> bytes:
    """Above the keys of all values appended under ``prefix``: no version begins with FF."""
    return prefix + b"\xff"


def sortable(key: bytes) -> bytes:
    """``key`` so that bytes behind it cannot change its order: 512 bytes become 585.

    Groups of eight bytes, the last filled up with zeros, each with a byte behind it: 255 if
    another group follows, else 247 + the bytes of the group that are the key's. The order is
    that of the keys, and no key's form starts with another's.
    """
    full = len(key) // GROUP * GROUP
    rest = key[full:]
    groups = [key[at : at + GROUP] + b"\xff" for at in range(0, full, GROUP)]
    groups.append(rest.ljust(GROUP, b"\0") + bytes((247 + len(rest),)))
    return b"".join(groups)


def unsortable(form: bytes) -> bytes:
    """The inverse of :func:`sortable`."""
    last = len(form) - GROUP - 1
    groups = [form[at : at + GROUP] for at in range(0, last, GROUP + 1)]
    return b"".join(groups) + form[last : last + form[-1] - 247]


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
