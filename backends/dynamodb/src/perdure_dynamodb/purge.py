"""Physical removal of what nobody can see any more: lives that are over, and given-up stages.

All of it may be cut short anywhere and done again, by several at once: the due row that tells
of it goes last. Nothing is removed but on the condition that it is what was meant.

Slots of a life that is over are not removed but overwritten with stubs: they must stay taken
while a late writer may be on its way to one, and their ids are to be remembered. ``x``, by
which rows go later, is written on the last slot of a life when nothing else is left of it, nor
of any life before: until then that slot says that they are over. So the slots of a key have all
gone, and are counted from 1 again, only when its lives have left nothing.
"""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from perdure.types import SessionKey

from perdure_dynamodb import keys, rows
from perdure_dynamodb.actions import (
    EXPIRY,
    PARTITION,
    SORT,
    ConditionFailed,
    Delete,
    Put,
    Row,
)
from perdure_dynamodb.chain import SETTLING_MS
from perdure_dynamodb.due import HOUR_MS, Due, What
from perdure_dynamodb.state import Kind, State, encode
from perdure_dynamodb.table import Table
from perdure_dynamodb.walking import attempt, each, pages, sort_of

StateOf = Callable[[SessionKey], Awaitable[State | None]]
"""Reads the newest slot of a session."""

LAPSE_MS = rows.LINGER_MS + HOUR_MS
"""After so long stubs have lapsed by anybody's clock."""

BEHIND = b"\xff" * 600
"""Behind an incarnation: above all its items and stages."""


async def life(table: Table, task: Due) -> None:
    """Remove what a life that is over leaves but stubs; they lapse in their time.

    ``task`` is what :func:`perdure_dynamodb.due.life` says, after its transaction.
    """
    await life_if_shown(table, task)


async def life_if_shown(table: Table, task: Due) -> bool:
    """:func:`life`, for those who know of it by its due row alone.

    False: the last slot does not show yet, although the due row does; nothing was done.
    """
    overs = await _unpurged(table, task)
    if overs is None:
        return False
    for over in reversed(overs):
        await _remove_items(table, over)
        await _write_stubs(table, over)
    lapse = replace(task, what=What.LAPSE, at=table.now() + LAPSE_MS)
    await table.put(lapse.filed())
    await table.delete(task.done())
    return True


async def stages(table: Table, partition: bytes, incarnation: bytes) -> None:
    """Remove the rows of stages that were swept, or have no record any more."""
    await _remove_items(table, _Over(partition, incarnation, first=0, last=0, at=-1))


async def lapse(table: Table, state_of: StateOf, task: Due) -> None:
    """Remove the stubs of a life, which have lapsed. ``task`` is of the kind ``LAPSE``."""
    partition = keys.session(task.key)
    await _remove_late_items(table, state_of, task)
    condition, values = "x <= :x", {"x": table.now() // 1000}

    async def remove(row: Row) -> None:
        if EXPIRY in row:
            stub = Delete(partition, sort_of(row), condition, values)
            await attempt(table.delete(stub))

    low, high = keys.slot(task.first), keys.slot(task.last)
    async for page in pages(table, partition, low, high, (SORT, EXPIRY)):
        await each(remove, page)


async def _remove_late_items(table: Table, state_of: StateOf, task: Due) -> None:
    """Remove items that did not show yet when their life was purged."""
    partition = keys.session(task.key)

    async def remove(row: Row) -> None:
        values = {"c": row[rows.COMMITTED_IN]}
        await attempt(table.delete(Delete(partition, sort_of(row), "c = :c", values)))

    low = keys.ITEM + task.incarnation
    only = (SORT, rows.COMMITTED_IN)
    async for page in pages(table, partition, low, low + BEHIND, only):
        late = [row for row in page if _slot_of(row) <= task.last]
        if late:
            newest = await state_of(task.key)
            if newest is None or newest.kind is not Kind.COMMIT or newest.first > task.last:
                await each(remove, late)


def _slot_of(row: Row) -> int:
    """That of the commit that wrote an item's row; above all if it is staged."""
    slot = row.get(rows.COMMITTED_IN)
    return slot if type(slot) is int else 1 << 64


class _Over:
    """A life that is over, and which stages have gone with it."""

    def __init__(
        self, partition: bytes, incarnation: bytes, *, first: int, last: int, at: int
    ) -> None:
        self.partition = partition
        self.incarnation = incarnation
        self.first = first
        self.last = last
        self.at = at
        """Since when, in ms. A slot made later is of another life: a purge may sleep for days,
        and find that the slots of the key were counted from 1 again."""
        self.gone: dict[bytes, bool] = {}
        """Whether a stage is of this life and not of a later one."""


async def _unpurged(table: Table, task: Due) -> list[_Over] | None:
    """The life of ``task``, unless that was purged, and those before that were not.

    ``None``: its last slot does not show yet.
    """
    partition, last = keys.session(task.key), task.last
    found: list[_Over] = []
    while last:
        row = await table.get(partition, keys.slot(last), only=(rows.HEAD, EXPIRY))
        if row is None and not found and table.now() - task.at <= SETTLING_MS:
            return None
        if row is None or EXPIRY in row:
            break
        state = rows.slot_of(row).state
        if state.made_at > task.at:
            break  # this key was forgotten altogether, and its slots begin anew
        found.append(
            _Over(partition, state.incarnation, first=state.first, last=last, at=task.at)
        )
        last = state.first - 1
    return found


async def _remove_items(table: Table, over: _Over) -> None:
    """Remove the items of a life, the parts staged for it, and the records of its stages."""
    low = keys.STAGE + over.incarnation
    records = [
        row
        async for page in pages(table, over.partition, low, low + BEHIND, None)
        for row in page
    ]
    for row in records:
        over.gone[sort_of(row)] = await _is_gone(table, over, row)
    low = keys.ITEM + over.incarnation
    only = (SORT, rows.COMMITTED_IN)
    condition, values = "c <= :c", {"c": over.last}

    async def remove(row: Row) -> None:
        stage = sort_of(row)[-keys.ID_BYTES :]
        if stage != keys.UNSTAGED:
            record = keys.stage(over.incarnation, stage)
            if record not in over.gone:
                found = await table.get(over.partition, record)
                over.gone[record] = await _is_gone(table, over, found)
            if over.gone[record]:
                await table.delete(Delete(over.partition, sort_of(row)))
            return
        if _slot_of(row) <= over.last:
            await attempt(table.delete(Delete(over.partition, sort_of(row), condition, values)))

    async for page in pages(table, over.partition, low, low + BEHIND, only):
        await each(remove, page)

    async def remove_record(row: Row) -> None:
        which = f"attribute_exists({rows.SWEPT}) OR {condition}"
        await attempt(table.delete(Delete(over.partition, sort_of(row), which, values)))

    await each(remove_record, [row for row in records if over.gone[sort_of(row)]])


async def _is_gone(table: Table, over: _Over, row: Row | None) -> bool:
    """Whether a stage is of a life that is over; one that waits for that is given up."""
    while row is not None:
        record = rows.stage_of(row)
        if record.slot:
            return record.slot <= over.last
        if record.swept:
            return True
        if record.opened_in >= over.last:
            return False
        stage = sort_of(row)[-keys.ID_BYTES :]
        sweeping = rows.sweep_stage(over.partition, over.incarnation, stage, table.now())
        try:
            await table.update(sweeping)
        except ConditionFailed as failed:
            row = failed.row
        else:
            return True
    return True


async def _write_stubs(table: Table, over: _Over) -> None:
    """Overwrite a life's slots; the last one when all others are done."""

    async def overwrite(row: Row) -> None:
        state = rows.slot_of(row).state
        if EXPIRY in row or state.made_at > over.at:
            return
        if state.kind is not Kind.SEAL:
            state = _stub(state)
        stub: Row = {
            PARTITION: over.partition,
            SORT: sort_of(row),
            rows.HEAD: encode(state),
            EXPIRY: rows.lapse(table.now()),
        }
        was = row[rows.HEAD]
        await attempt(table.put(Put(stub, condition="h = :h", values={"h": was})))

    low, high = keys.slot(over.first), keys.slot(over.last)
    last: list[Row] = []
    async for page in pages(table, over.partition, low, high, (SORT, rows.HEAD, EXPIRY)):
        last = [row for row in page if row[SORT] == high]
        await each(overwrite, [row for row in page if row[SORT] != high])
    await each(overwrite, last)


def _stub(state: State) -> State:
    """What is kept of a commit of a life that is over."""
    return replace(state, kind=Kind.STUB, meta=b"", meta_slot=0, labels=(), log=None, tombs=())
