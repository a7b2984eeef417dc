"""Parts written ahead of the commit that names them: rows that nobody sees until it has.

Rows of a stage that was adopted stay as they are, under the stage's id. If the id is used
again, its parts are written under one derived from it.
"""

import asyncio
from collections import OrderedDict
from hashlib import blake2b

from perdure.backend import STAGE_MS
from perdure.errors import OutcomeUnknown, Unavailable
from perdure.types import KeyRange, SessionKey

from perdure_dynamodb import due, keys, rows
from perdure_dynamodb.actions import ConditionFailed, TransactionRefused
from perdure_dynamodb.chain import Chain
from perdure_dynamodb.rows import StageRecord

AT_ONCE = 16
"""Parts of one call that are written at once."""

MANY_STAGES = 1024

TRUSTED_MS = STAGE_MS // 2
"""For so long after it was opened, a stage that waits for its commit is not swept."""

Name = tuple[SessionKey, bytes, bytes]
"""Session, incarnation, and the stage's id as callers know it."""


class Stages:
    """Writes the parts of stages."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._table = chain.table
        # Those opened by this process, under which id, and when.
        self._opened: OrderedDict[Name, tuple[bytes, int]] = OrderedDict()
        # The lowest and the highest key of the parts that this process wrote for one of them.
        self._spans: dict[Name, tuple[bytes, bytes]] = {}

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        """:meth:`perdure.backend.Backend.stage`.

        The parts are written side by side. A call that fails may have written some, and is
        ``OutcomeUnknown`` then: a commit had better not name the stage before it is repeated.
        """
        name = key, incarnation, stage
        id = await self._open(name)
        named = [item for item, _ in puts]
        if named:
            low, high = self._spans.get(name, (named[0], named[0]))
            self._spans[name] = min(low, *named), max(high, *named)
        partition = keys.session(key)
        room = asyncio.Semaphore(AT_ONCE)

        async def write(item: tuple[bytes, bytes]) -> None:
            async with room:
                try:
                    await self._table.put(
                        rows.put_staged(partition, incarnation, item[0], id, item[1])
                    )
                except ConditionFailed:
                    return  # the first value stays

        done = await asyncio.gather(*map(write, puts), return_exceptions=True)
        errors = [error for error in done if error is not None]
        for error in errors:
            if not isinstance(error, Unavailable) or error.lasting:
                raise error
        if errors and len(errors) < len(puts):
            raise OutcomeUnknown(f"some parts were staged, some not: {errors[0]}")
        for error in errors:
            raise error

    def id_of(self, key: SessionKey, incarnation: bytes, stage: bytes) -> bytes:
        """Under which id a stage has its parts, as far as this process knows."""
        opened = self._opened.get((key, incarnation, stage))
        return stage if opened is None else opened[0]

    def span(self, key: SessionKey, incarnation: bytes, stage: bytes) -> KeyRange:
        """Where the parts of a stage are, as far as this process knows."""
        span = self._spans.get((key, incarnation, stage))
        return rows.ANYWHERE if span is None else KeyRange(span[0], span[1] + b"\0")

    async def find(self, key: SessionKey, incarnation: bytes, stage: bytes) -> bool:
        """Whether a stage waits for its commit; :meth:`id_of` knows it then."""
        name = key, incarnation, stage
        times = 0
        while True:
            id = _id(stage, times)
            record = await self._record(key, incarnation, id)
            if record is None:
                self.forget(*name)
                return False
            if _waits(record):
                self._note(name, id, record.opened_at)
                return True
            times += 1

    def forget(self, key: SessionKey, incarnation: bytes, stage: bytes) -> None:
        """It does not wait any more."""
        self._opened.pop((key, incarnation, stage), None)
        self._spans.pop((key, incarnation, stage), None)

    async def _open(self, name: Name) -> bytes:
        """See that there is a record of the stage that waits; the id under which it does."""
        key, incarnation, stage = name
        opened = self._opened.get(name)
        if opened is not None and 0 <= self._table.now() - opened[1] < TRUSTED_MS:
            return opened[0]
        newest = await self._chain.fetch(key)
        slot = 0 if newest is None else newest.state.slot
        now = self._table.now()
        times = 0
        while True:
            id = _id(stage, times)
            actions = (
                rows.open_stage(keys.session(key), incarnation, id, now, slot),
                due.stage(key, incarnation, id, now),
            )
            try:
                await self._table.transact(actions)
            except TransactionRefused:
                record = await self._record(key, incarnation, id)
                if record is None:
                    continue
                if not _waits(record):
                    times += 1
                    continue
                now = record.opened_at
            self._note(name, id, now)
            return id

    async def _record(
        self, key: SessionKey, incarnation: bytes, id: bytes
    ) -> StageRecord | None:
        row = await self._table.get(keys.session(key), keys.stage(incarnation, id))
        return None if row is None else rows.stage_of(row)

    def _note(self, name: Name, id: bytes, opened_at: int) -> None:
        self._opened[name] = id, opened_at
        self._opened.move_to_end(name)
        if len(self._opened) > MANY_STAGES:
            gone, _ = self._opened.popitem(last=False)
            self._spans.pop(gone, None)


def _waits(record: StageRecord) -> bool:
    return not record.slot and not record.swept


def _id(stage: bytes, times: int) -> bytes:
    """The id under which a stage's parts are that was adopted so many times before."""
    if not times:
        return stage
    return blake2b(stage, key=times.to_bytes(4, "big"), digest_size=keys.ID_BYTES).digest()
