"""The rows of a session's partition: slots, items, records of stages; made and understood.

=============  ==============================================================================
slot           ``h`` the state (:mod:`perdure_dynamodb.state`); ``v`` the values appended that
               ride in it; ``m`` the meta, if it is a long one; ``k`` which rows of items and
               of stages its commit changed; ``z`` the slot of the newest deletion by which
               values were taken out of it; ``x`` when a dead one may go
item           ``v`` the value; ``n`` the version and ``c`` the slot of the commit that wrote
               it. A staged one has ``v`` alone: its stage's record has version and slot.
               One without ``v`` is deleted, and stays as long as a delayed request might
               bring it back; ``x`` when it may go
stage record   ``t`` when it was opened, in ms, and ``o`` in which newest slot; ``n`` and ``c``
               version and slot of the commit that named it, and ``a`` and ``b`` between
               which keys its parts are if that was known; ``w`` that it was swept; ``x`` when
               it may go
=============  ==============================================================================

Versions begin anew in each life, and one life may have the incarnation of another (a copy put
back): rows and deletions are therefore ordered by slots, which only ever grow.
"""

from typing import TypeVar

import msgspec

from perdure.errors import Corrupt
from perdure.types import KeyRange

from perdure_dynamodb import keys
from perdure_dynamodb.actions import EXPIRY, PARTITION, SORT, Put, Row, Update, Value
from perdure_dynamodb.state import State, decode, decode_values, encode, encode_values

HEAD = "h"
VALUE = "v"
META = "m"
TOUCHES = "k"
STRIPPED = "z"
VERSION = "n"
COMMITTED_IN = "c"
OPENED = "t"
OPENED_IN = "o"
SWEPT = "w"
START = "a"
STOP = "b"

ANYWHERE = KeyRange(b"")

NEW = "attribute_not_exists(p)"
"""The condition that there is no such row yet."""

LINGER_MS = 25 * 3600 * 1000
"""How long what is left of a dead life, a deleted staged row or a swept stage stays: longer
than a tombstone must, and than any request can be on its way (signatures last 15 minutes)."""

T = TypeVar("T", bytes, int)


class Touches(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The rows that a commit changes besides its slot."""

    written: tuple[bytes, ...] = ()
    """Keys of items, in rows that are not staged."""
    removed: tuple[bytes, ...] = ()
    """Keys of items whose only row it removes."""
    stages: tuple[bytes, ...] = ()
    """Those that it adopts."""


NOTHING = Touches()


class Slot(msgspec.Struct, frozen=True, gc=False):
    """A slot as it was read."""

    state: State
    values: tuple[bytes | None, ...] = ()
    """Those that ride in it, by ordinal; ``None`` in place of a deleted one."""
    meta: bytes | None = None
    """The meta that this slot holds for itself and later ones."""
    stripped: int = 0
    """The slot of the newest deletion by which values were taken out."""
    touches: Touches = NOTHING
    lapses: int = 0
    """When what is left of a dead one goes, in seconds since the epoch. 0: it stays."""


_encode = msgspec.msgpack.Encoder().encode
_touches_decoder = msgspec.msgpack.Decoder(Touches)


class ItemRow(msgspec.Struct, frozen=True, gc=False):
    """An item's row as it was read."""

    key: bytes
    stage: bytes
    """``keys.UNSTAGED`` if a commit wrote the row itself."""
    value: bytes | None
    """``None``: it was a staged one and is deleted."""
    version: int = 0
    """0 for a staged one: its stage's record knows."""
    slot: int = 0


class StageRecord(msgspec.Struct, frozen=True, gc=False):
    """A stage's record as it was read."""

    opened_at: int
    opened_in: int = 0
    """The newest slot at that time; 0: there was none. A life that ends in a later one is that
    for which it waits."""
    version: int = 0
    """Of the commit that named it; 0: none has."""
    slot: int = 0
    swept: bool = False
    span: KeyRange = ANYWHERE
    """Where its parts are."""


# Slots


def put_slot(
    partition: bytes,
    state: State,
    values: tuple[bytes, ...] = (),
    meta: bytes | None = None,
    touches: Touches = NOTHING,
) -> Put:
    """Take the slot of ``state``, unless somebody has taken it."""
    row: Row = {PARTITION: partition, SORT: keys.slot(state.slot), HEAD: encode(state)}
    if values:
        row[VALUE] = encode_values(list(values))
    if meta is not None:
        row[META] = meta
    if touches != NOTHING:
        row[TOUCHES] = _encode(touches)
    return Put(row, condition=NEW)


def slot_of(row: Row) -> Slot:
    """A slot's row, whole or without ``v`` and ``m``. Raises ``FormatTooNew``, ``Corrupt``."""
    values = optional(row, VALUE, bytes)
    touches = optional(row, TOUCHES, bytes)
    return Slot(
        state=decode(required(row, HEAD, bytes)),
        values=() if values is None else tuple(decode_values(values)),
        meta=optional(row, META, bytes),
        stripped=optional(row, STRIPPED, int) or 0,
        touches=NOTHING if touches is None else _touches(touches),
        lapses=optional(row, EXPIRY, int) or 0,
    )


# Items


def put_item(
    partition: bytes, incarnation: bytes, key: bytes, value: bytes, version: int, slot: int
) -> Put:
    """An item as the commit in ``slot`` writes it, in the transaction with that slot."""
    row: Row = {
        PARTITION: partition,
        SORT: keys.item(incarnation, key),
        VALUE: value,
        VERSION: version,
        COMMITTED_IN: slot,
    }
    return Put(row)


def put_staged(
    partition: bytes, incarnation: bytes, key: bytes, stage: bytes, value: bytes
) -> Put:
    """A part of a stage; the first value that a key got there stays."""
    row: Row = {
        PARTITION: partition,
        SORT: keys.item(incarnation, key, stage),
        VALUE: value,
    }
    return Put(row, condition=NEW)


def put_spent(partition: bytes, sort: bytes, now: int) -> Put:
    """A staged row that is deleted: overwritten, so that its part cannot be put once more."""
    return Put({PARTITION: partition, SORT: sort, EXPIRY: lapse(now)})


def item_of(row: Row) -> ItemRow:
    """An item's row. Raises ``Corrupt``."""
    key, stage = keys.item_of(required(row, SORT, bytes))
    value = optional(row, VALUE, bytes)
    if stage != keys.UNSTAGED:
        return ItemRow(key, stage, value)
    return ItemRow(
        key, stage, value, required(row, VERSION, int), required(row, COMMITTED_IN, int)
    )


# Stages


def open_stage(partition: bytes, incarnation: bytes, stage: bytes, now: int, slot: int) -> Put:
    """The record of a new stage; ``slot`` is the newest."""
    row: Row = {
        PARTITION: partition,
        SORT: keys.stage(incarnation, stage),
        OPENED: now,
        OPENED_IN: slot,
    }
    return Put(row, condition=NEW)


def adopt_stage(
    partition: bytes, incarnation: bytes, stage: bytes, version: int, slot: int, span: KeyRange
) -> Update:
    """What a commit does to a stage that it names; the condition fails if it is missing."""
    expression, values = "SET n = :n, c = :c", dict[str, Value](n=version, c=slot)
    if span.stop is not None:
        expression += ", a = :a, b = :b"
        values |= {"a": span.start, "b": span.stop}
    return Update(
        partition,
        keys.stage(incarnation, stage),
        expression,
        condition="attribute_exists(t) AND attribute_not_exists(n) AND attribute_not_exists(w)",
        values=values,
    )


def sweep_stage(partition: bytes, incarnation: bytes, stage: bytes, now: int) -> Update:
    """Give up a stage that no commit has named; the condition fails if one has."""
    return Update(
        partition,
        keys.stage(incarnation, stage),
        "SET w = :w, x = :x",
        condition="attribute_exists(t) AND attribute_not_exists(n)",
        values={"w": 1, "x": lapse(now)},
    )


def stage_of(row: Row) -> StageRecord:
    """A stage's record. Raises ``Corrupt``."""
    return StageRecord(
        opened_at=required(row, OPENED, int),
        opened_in=required(row, OPENED_IN, int),
        version=optional(row, VERSION, int) or 0,
        slot=optional(row, COMMITTED_IN, int) or 0,
        swept=SWEPT in row,
        span=KeyRange(optional(row, START, bytes) or b"", optional(row, STOP, bytes)),
    )


def _touches(stored: bytes) -> Touches:
    try:
        return _touches_decoder.decode(stored)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a slot does not hold what perdure wrote: {error}") from error


def lapse(now: int) -> int:
    """The value of ``x`` for what lingers from ``now`` on: seconds since the epoch."""
    return (now + LINGER_MS) // 1000


def required(row: Row, name: str, kind: type[T]) -> T:
    """An attribute that a row must have. Raises ``Corrupt``."""
    if name not in row:
        raise Corrupt(f"a row lacks its attribute {name!r}")
    return _is(row[name], kind)


def optional(row: Row, name: str, kind: type[T]) -> T | None:
    """An attribute that a row may have. Raises ``Corrupt`` if it is of another type."""
    return _is(row[name], kind) if name in row else None


def _is(value: bytes | int | str, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise Corrupt("an attribute of a row is of another type than perdure writes")
    return value
