"""The sweep: does what is due. Safe anywhere, any time, by several at once.

It takes due rows, oldest first in each of their shards. One goes when all that it tells of is
done; whatever happens before that, another sweep meets it again. One that cannot be understood
does not keep it from the others.
"""

import random

from msgspec.structs import replace

from perdure.errors import Corrupt, FormatTooNew, OutcomeUnknown, PerdureError, Unavailable

from perdure_dynamodb import due, keys, purge, registry, removal, rows, tombs
from perdure_dynamodb.actions import Row
from perdure_dynamodb.chain import SETTLING_MS
from perdure_dynamodb.due import Due, What
from perdure_dynamodb.purge import StateOf
from perdure_dynamodb.rows import StageRecord
from perdure_dynamodb.state import Kind, tomb_of
from perdure_dynamodb.table import Table
from perdure_dynamodb.walking import attempt, each

STEP = 100
"""Due rows that are read at once."""

TASKS = 4
"""Those that are dealt with at once, each by a number of requests."""


async def sweep(table: Table, state_of: StateOf, limit: int) -> int:
    """:meth:`perdure.backend.Backend.sweep`. What it counts are due rows that went.

    Raises ``Unavailable``; ``FormatTooNew`` or ``Corrupt`` if nothing is left but what it
    cannot do.
    """
    sweeper = _Sweeper(table, state_of)
    shards = list(range(keys.DUE_SHARDS))
    random.shuffle(shards)  # so that those who sweep at once are at different ones
    removed = 0
    try:
        for shard in shards:
            removed += await sweeper.shard(shard, limit - removed)
            if removed >= limit:
                break
    except OutcomeUnknown as error:  # nobody sees what it has applied, and it is due still
        raise Unavailable(str(error)) from error
    if sweeper.stumbled is not None and not removed:
        raise sweeper.stumbled
    return removed


class _Sweeper:
    def __init__(self, table: Table, state_of: StateOf) -> None:
        self._table = table
        self._state_of = state_of
        self.stumbled: PerdureError | None = None
        """Over what it cannot understand."""

    async def shard(self, shard: int, limit: int) -> int:
        """Do what is due in a shard, about ``limit`` of it at most; how much was done."""
        removed = 0
        behind: bytes | None = None
        low, high = due.by(self._table.now())
        while removed < limit:
            found = await self._table.query(
                due.partition(shard),
                low,
                high,
                limit=min(STEP, limit - removed),
                start_after=behind,
            )
            removed += sum(await each(self._try, found.rows, TASKS))
            behind = found.last
            if behind is None:
                break
        return removed

    async def _try(self, row: Row) -> bool:
        """Do what a row tells of. Whether it is done."""
        try:
            return await self._do(due.of(row))
        except (FormatTooNew, Corrupt) as error:
            self.stumbled = error
            return False

    async def _do(self, task: Due) -> bool:
        match task.what:
            case What.EXPIRE:
                return await self._expire(task)
            case What.LIFE:
                return await purge.life_if_shown(self._table, task)
            case What.TOMBS:
                await self._purge_tombs(task)
            case What.STAGE:
                await self._give_up_stage(task)
            case What.LAPSE:
                await self._lapse(task)
            case _:
                raise FormatTooNew("a newer perdure has something to sweep; upgrade this one")
        await self._table.delete(task.done())
        return True

    async def _expire(self, task: Due) -> bool:
        key = task.key
        state = await self._state_of(key)
        now = self._table.now()
        if (
            state is not None
            and state.kind is Kind.COMMIT
            and state.first == task.first
            and state.expires_at is not None
        ):
            if state.expired(now):
                over = await removal.expire(self._table, key, state)
                if over is None:
                    return False  # a commit was first; the row waits for the next sweep
                await purge.life(self._table, over)
            elif state.due_at <= now:  # else another row will be met in time
                await self._table.put(replace(task, at=state.expires_at).filed())
        elif now - task.at <= SETTLING_MS:
            return False  # the commit that filed it may not show in the newest slot yet
        await self._table.delete(task.done())
        return True

    async def _purge_tombs(self, task: Due) -> None:
        state = await self._state_of(task.key)
        if state is not None and state.kind is Kind.COMMIT and state.slot >= task.last:
            await tombs.purge(self._table, task.key, state)

    async def _give_up_stage(self, task: Due) -> None:
        partition, now = keys.session(task.key), self._table.now()
        row = await self._table.get(partition, keys.stage(task.incarnation, task.stage))
        if row is not None:
            record = rows.stage_of(row)
            if record.slot:
                await self._purge_replaced(task, record)
                return
            if now < record.opened_at + due.WAIT_MS:
                return
            if not record.swept:
                sweeping = rows.sweep_stage(partition, task.incarnation, task.stage, now)
                await attempt(self._table.update(sweeping))
        await purge.stages(self._table, partition, task.incarnation)
        if row is not None:  # look once more for parts that were on their way
            again = replace(task, at=now + rows.LINGER_MS)
            await self._table.put(again.filed())

    async def _purge_replaced(self, task: Due, record: StageRecord) -> None:
        """Do what the commit may have left undone that named a stage."""
        state = await self._state_of(task.key)
        if (
            state is not None
            and state.kind is Kind.COMMIT
            and state.incarnation == task.incarnation
            and state.first <= record.slot <= state.slot
        ):
            replaced = [tomb_of(record.span, record.slot)]
            await tombs.purge_replaced(self._table, task.key, task.incarnation, replaced)

    async def _lapse(self, task: Due) -> None:
        await purge.lapse(self._table, self._state_of, task)
        await registry.forget(self._table, task.key.tenant, task.key.kind)
