"""How to cut a log: what to delete, and what of the row at the cut to write again."""

import msgspec

from perdure.client import Client
from perdure.errors import InvalidKey
from perdure.layout import LOG, LOG_STOP, WHOLE_LOG, successor
from perdure.position import START, Position, parse_position
from perdure.types import Condition, Item, KeyRange, Scan, SessionKey


class Cut(msgspec.Struct, frozen=True, gc=False):
    """The parts of a commit that shortens a log."""

    deletes: tuple[bytes | KeyRange, ...] = ()
    puts: tuple[tuple[bytes, bytes], ...] = ()
    conditions: tuple[Condition, ...] = ()
    """That the row at the cut is still as it was read, or still absent."""


async def cut_after(client: Client, key: SessionKey, position: Position) -> Cut:
    """Remove every entry behind ``position``, which itself stays."""
    if position == START:
        return Cut(deletes=(WHOLE_LOG,))
    row_key, index = parse_position(position)
    rows = await entry_rows(client, key, row_key)
    if not rows:
        rest = KeyRange(row_key, LOG_STOP)
        return Cut(deletes=(rest,), conditions=(Condition(row_key, 0),))
    first, count = _span(client, rows[0])
    rest = KeyRange(successor(rows[-1].key), LOG_STOP)
    keep = index + 1 - first
    if keep >= count:
        return Cut(deletes=(rest,), conditions=(Condition(row_key, rows[0].version),))
    return _trimmed(client, key, rows[0], KeyRange(successor(row_key), LOG_STOP), 0, keep)


async def cut_before(client: Client, key: SessionKey, position: Position) -> Cut:
    """Remove every entry before ``position``, which itself stays."""
    row_key, index = parse_position(position)
    rest = KeyRange(LOG, row_key)
    rows = await entry_rows(client, key, row_key)
    if not rows:
        return Cut(deletes=(rest,), conditions=(Condition(row_key, 0),))
    first, count = _span(client, rows[0])
    drop = index - first
    if drop <= 0:
        return Cut(deletes=(rest,))
    if drop >= count:
        gone = KeyRange(LOG, successor(rows[-1].key))
        return Cut(deletes=(gone,), conditions=(Condition(row_key, rows[0].version),))
    return _trimmed(client, key, rows[0], rest, drop, count)


def _span(client: Client, row: Item) -> tuple[int, int]:
    first, count = client.codec.row_span(row.value)
    if not count:  # inside a long entry: a position in another session's log, or in a former
        raise InvalidKey("there never was an entry at this position")
    return first, count


def _trimmed(
    client: Client, key: SessionKey, row: Item, rest: KeyRange, start: int, stop: int
) -> Cut:
    conditions = (Condition(row.key, row.version),)
    if start >= stop:
        return Cut(deletes=(rest, row.key), conditions=conditions)
    kept = client.codec.trim(key, row, start=start, stop=stop)
    return Cut(deletes=(rest, row.key), puts=((row.key, kept),), conditions=conditions)


async def entry_rows(client: Client, key: SessionKey, row_key: bytes) -> list[Item]:
    """The row with this key, if there is one, with the fragments that follow if it begins a
    long entry."""
    rows: list[Item] = []
    start, limit = row_key, 1
    while True:
        page = (await client.snapshot(key, Scan(start, LOG_STOP, limit=limit))).rows[0]
        if not rows and (not page.items or page.items[0].key != row_key):
            return []
        for item in page.items:
            rows.append(item)
            if not client.codec.more_fragments(item.value):
                return rows
        if not page.more:
            return rows
        start, limit = successor(rows[-1].key), 64
