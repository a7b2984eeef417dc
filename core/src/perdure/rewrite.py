"""How to cut a stream: what to delete, and what of the row at the cut to write again."""

from collections.abc import Sequence

import msgspec

from perdure.client import Client
from perdure.errors import InvalidKey
from perdure.layout import all_of, commit_stop, rows_stop, successor
from perdure.position import START, Position, parse_position
from perdure.request import Request, View
from perdure.types import Condition, Head, Item, KeyRange, Read, Scan, SessionKey


class Cut(msgspec.Struct, frozen=True, gc=False):
    """The parts of a commit that shortens a stream."""

    deletes: tuple[bytes | KeyRange, ...] = ()
    puts: tuple[tuple[bytes, bytes], ...] = ()
    conditions: tuple[Condition, ...] = ()
    """That the row at the cut is still as it was read, or still absent."""
    head: Head | None = None
    """What the row was read with: the conditions mean nothing in another incarnation."""


class EntryRows(Request[Sequence[Item]]):
    """The row with this key, if there is one, with the fragments that follow if it begins a
    long entry."""

    def __init__(self, row_key: bytes) -> None:
        self._row_key = row_key

    def compile(self) -> Read:
        return Scan(self._row_key, commit_stop(self._row_key), max_bytes=1)

    def enough(self, items: Sequence[Item], view: View) -> bool:
        return items[0].key != self._row_key or any(
            not view.codec.more_fragments(item.value) for item in items
        )

    def answer(self, items: Sequence[Item], view: View) -> Sequence[Item]:
        if not items or items[0].key != self._row_key:
            return ()
        for number, item in enumerate(items, 1):
            if not view.codec.more_fragments(item.value):
                return items[:number]
        return items


async def cut_after(
    client: Client, key: SessionKey, prefix: bytes, position: Position
) -> Cut | None:
    """Remove every entry behind ``position``, which itself stays; ``None``: no session."""
    if position == START:
        return Cut(deletes=(all_of(prefix),))
    row, index = parse_position(position)
    row_key = prefix + row
    head, rows = await _entry_rows(client, key, row_key)
    if head is None:
        return None
    if not rows:
        rest = KeyRange(row_key, rows_stop(prefix))
        return Cut(deletes=(rest,), conditions=(Condition(row_key, 0),), head=head)
    first, count = _span(client, rows[0])
    rest = KeyRange(successor(rows[-1].key), rows_stop(prefix))
    keep = index + 1 - first
    if keep >= count:
        conditions = (Condition(row_key, rows[0].version),)
        return Cut(deletes=(rest,), conditions=conditions, head=head)
    rest = KeyRange(successor(row_key), rows_stop(prefix))
    return _trimmed(client, key, head, rows[0], rest, 0, keep)


async def cut_before(
    client: Client, key: SessionKey, prefix: bytes, position: Position
) -> Cut | None:
    """Remove every entry before ``position``, which itself stays; ``None``: no session."""
    row, index = parse_position(position)
    row_key = prefix + row
    rest = KeyRange(prefix, row_key)
    head, rows = await _entry_rows(client, key, row_key)
    if head is None:
        return None
    if not rows:
        return Cut(deletes=(rest,), conditions=(Condition(row_key, 0),), head=head)
    first, count = _span(client, rows[0])
    drop = index - first
    if drop <= 0:
        return Cut(deletes=(rest,), head=head)
    if drop >= count:
        gone = KeyRange(prefix, successor(rows[-1].key))
        conditions = (Condition(row_key, rows[0].version),)
        return Cut(deletes=(gone,), conditions=conditions, head=head)
    return _trimmed(client, key, head, rows[0], rest, drop, count)


async def _entry_rows(
    client: Client, key: SessionKey, row_key: bytes
) -> tuple[Head | None, Sequence[Item]]:
    request = EntryRows(row_key)
    view, (items,) = await client.read(key, [request])
    return view.head, request.answer(items, view)


def _span(client: Client, row: Item) -> tuple[int, int]:
    first, count = client.codec.row_span(row.value)
    if not count:  # inside a long entry: a position in another session's log, or in a former
        raise InvalidKey("there never was an entry at this position")
    return first, count


def _trimmed(
    client: Client,
    key: SessionKey,
    head: Head,
    row: Item,
    rest: KeyRange,
    start: int,
    stop: int,
) -> Cut:
    conditions = (Condition(row.key, row.version),)
    deletes = (rest, row.key)
    if start >= stop:
        return Cut(deletes=deletes, conditions=conditions, head=head)
    kept = client.codec.trim(key, row, start=start, stop=stop)
    return Cut(deletes=deletes, puts=((row.key, kept),), conditions=conditions, head=head)
