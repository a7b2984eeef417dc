"""Doing physically what commits to a living session have deleted, after it is hidden.

So go the rows, too, in whose place a commit has put others where stages are among them.

Rows of items go on the condition that they are older than the deletion. Values that ride in a
slot are taken out of it: ``None`` stands in place of each, for their keys come of their order,
and ``z`` tells whoever reads at an older state that something is missing.

Cut short anywhere and done again, by several at once, it comes to the same.
"""

from collections.abc import Sequence

from perdure.types import SessionKey, append_key

from perdure_dynamodb import due, keys, rows
from perdure_dynamodb.actions import EXPIRY, SORT, ConditionFailed, Delete, Row, Update
from perdure_dynamodb.state import State, Tomb, encode_values
from perdure_dynamodb.table import Table
from perdure_dynamodb.walking import attempt, each, pages, sort_of

Window = tuple[int, int]
"""Slots from the first to the second, both included."""


async def purge(table: Table, key: SessionKey, state: State) -> None:
    """Remove all that the deletions hide which ``state`` carries.

    A state after it need not carry them any more, if all rows showed what was committed before
    (:meth:`perdure_dynamodb.chain.Chain.settled`). The due row of the commit that made it, if
    that deleted something, goes last.
    """
    partition = keys.session(key)
    for tomb in state.tombs:
        await _remove_rows(table, partition, state.incarnation, tomb)
    for window in _windows(state):
        await _empty_slots(table, partition, state, window)
    if any(tomb.slot == state.slot for tomb in state.tombs):
        await table.delete(due.tombs(key, state).done())


async def purge_replaced(
    table: Table, key: SessionKey, incarnation: bytes, commits: Sequence[Tomb]
) -> None:
    """Remove the rows in whose place these commits have put others, in these ranges.

    Their slots must show: then whoever has read rows at an earlier state reads again. Others
    that a commit has not replaced stay, and so does all that is in stages not adopted.
    """
    for commit in commits:
        await _remove_rows(table, keys.session(key), incarnation, commit, replaced=True)


async def _remove_rows(
    table: Table, partition: bytes, incarnation: bytes, tomb: Tomb, *, replaced: bool = False
) -> None:
    """Remove the rows that a tomb hides; ``replaced``: where there is one of its slot."""
    slots: dict[bytes, int] = {}
    """Of the commits that named stages; 0: none has."""
    condition, values = "c < :c", {"c": tomb.slot}

    async def slot_of(stage: bytes) -> int:
        row = await table.get(partition, keys.stage(incarnation, stage))
        return rows.stage_of(row).slot if row is not None else 0

    def made(row: Row) -> int:
        stage = sort_of(row)[-keys.ID_BYTES :]
        slot = row.get(rows.COMMITTED_IN) if stage == keys.UNSTAGED else slots[stage]
        return slot if type(slot) is int else 0

    async def remove(row: Row) -> None:
        sort = sort_of(row)
        if sort.endswith(keys.UNSTAGED):
            await attempt(table.delete(Delete(partition, sort, condition, values)))
        else:
            await table.put(rows.put_spent(partition, sort, table.now()))

    async def remove_older(there: list[Row]) -> None:
        stages = {sort_of(row)[-keys.ID_BYTES :] for row in there}
        for stage in stages - slots.keys() - {keys.UNSTAGED}:
            slots[stage] = await slot_of(stage)
        anew = {_item(row) for row in there if made(row) == tomb.slot}
        older = [row for row in there if 0 < made(row) < tomb.slot]
        await each(remove, [row for row in older if not replaced or _item(row) in anew])

    low, high = keys.item_range(incarnation, tomb.start, tomb.stop)
    only = (SORT, rows.COMMITTED_IN, EXPIRY)
    held: list[Row] = []  # those of the last key, which the next page may go on with
    async for page in pages(table, partition, low, high, only):
        there = held + [row for row in page if EXPIRY not in row]
        held = [row for row in there if _item(row) == _item(there[-1])]
        await remove_older(there[: len(there) - len(held)])
    await remove_older(held)


def _item(row: Row) -> bytes:
    """What the sort keys of all rows of one item begin with."""
    return sort_of(row)[: -keys.ID_BYTES]


async def _empty_slots(table: Table, partition: bytes, state: State, window: Window) -> None:
    async def empty(row: Row | None) -> None:
        while row is not None and rows.VALUE in row:
            emptied = _emptied(partition, state, row)
            if emptied is None:
                return
            try:
                await table.update(emptied)
            except ConditionFailed as failed:
                row = failed.row  # another purge was here, of fewer deletions perhaps
            else:
                return

    low, high = keys.slot(window[0]), keys.slot(window[1])
    only = (SORT, rows.HEAD, rows.VALUE, rows.STRIPPED)
    async for page in pages(table, partition, low, high, only):
        await each(empty, page)


def _emptied(partition: bytes, state: State, row: Row) -> Update | None:
    """What takes the deleted values out of a slot; ``None`` if there are none in it."""
    if state.log is None:
        return None
    read = rows.slot_of(row)
    slot, version = read.state.slot, read.state.version
    values = list(read.values)
    deleted = read.stripped
    for ordinal, value in enumerate(read.values):
        item_key = append_key(state.log, version, ordinal)
        by = [tomb.slot for tomb in state.tombs if tomb.covers(item_key, slot)]
        if value is not None and by:
            values[ordinal] = None
            deleted = max(deleted, *by)
    if values == list(read.values):
        return None
    known = "z = :o" if read.stripped else "attribute_not_exists(z)"
    expression, given = "SET z = :z REMOVE v", {"z": deleted}
    if any(value is not None for value in values):
        expression, given = "SET z = :z, v = :v", {"z": deleted, "v": encode_values(values)}
    if read.stripped:
        given["o"] = read.stripped
    return Update(
        partition,
        sort_of(row),
        expression,
        condition=f"attribute_exists(v) AND {known}",
        values=given,
    )


def _windows(state: State) -> list[Window]:
    """The slots in which values may ride that were deleted; those apart are kept apart."""
    found: list[Window] = []
    for low, high in sorted(filter(None, (_window(state, tomb) for tomb in state.tombs))):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return found


def _window(state: State, tomb: Tomb) -> Window | None:
    log = state.log
    if log is None:
        return None
    low, high = max(state.first, state.emptied), min(state.slot, tomb.slot - 1)
    if tomb.start > log:
        if not tomb.start.startswith(log):
            return None  # above all that starts with the prefix
        low = max(low, _slot(state, _version(log, tomb.start)) or low)
    if tomb.stop is not None:
        if tomb.stop <= log:
            return None
        if tomb.stop.startswith(log):
            stop = _slot(state, _version(log, tomb.stop))
            high = min(high, state.segment - 1 if stop is None else stop)
    return (low, high) if low <= high else None


def _version(log: bytes, bound: bytes) -> int:
    """That in the keys appended which are nearest to a bound that starts with the prefix."""
    return int.from_bytes(bound[len(log) : len(log) + 8].ljust(8, b"\0"), "big")


def _slot(state: State, version: int) -> int | None:
    """The slot of a version. ``None``: it is of before the slots whose versions are known."""
    slot = version + state.offset
    return slot if slot >= state.segment else None
