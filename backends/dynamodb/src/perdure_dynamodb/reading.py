"""Reads: consistent at one version, in as few requests as that takes.

Values that ride in slots do not change: whoever reads the slots up to the newest has the log
and its head at once. Rows of items do change: they are read first, and hold if no commit has
touched any between a state known before and the newest slot afterwards.
"""

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from perdure.errors import Unavailable
from perdure.types import Get, Read, Rows, Scan, SessionKey, Snapshot

from perdure_dynamodb import keys, log
from perdure_dynamodb.chain import Chain, Known
from perdure_dynamodb.items import Items, Seen
from perdure_dynamodb.log import Lead, Moved, span_of, within
from perdure_dynamodb.parts import Part, merged
from perdure_dynamodb.settling import Settling
from perdure_dynamodb.state import State

PATIENCE = 10.0
"""Seconds after which a reader gives up whom writers have always overtaken."""

EASY_TRIES = 2
"""After so many a reader is not content to hope that others pause."""

SETTLING_PAUSE = 0.005

EMPTY = Rows()


class Reader:
    """Reads sessions. What ``chain`` remembers only saves requests."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._table = chain.table
        self.items = Items(chain.table)
        self._settling = Settling(chain, self.items)

    async def read(self, key: SessionKey, reads: Sequence[Read]) -> Snapshot:
        """:meth:`perdure.backend.Backend.read`."""
        scans = [_scan(read) for read in reads]
        deadline = asyncio.get_running_loop().time() + PATIENCE
        base, fresh = self._chain.cached(key), False
        tries = 0
        if base is None and len(scans) == 1:
            found = await self._read_log(key, scans[0])
            if isinstance(found, Snapshot):
                return found
            base, fresh = found, found is not None
        while True:
            if not fresh and (base is None or not base.state.present(self._table.now())):
                base, fresh = await self._chain.fetch(key), True
            now = self._table.now()
            if base is None or not base.state.present(now):
                return Snapshot(None, now, (EMPTY,) * len(scans))
            tries += 1
            found = await self._try(key, scans, base, fresh=fresh, hard=tries > EASY_TRIES)
            if isinstance(found, Snapshot):
                return found
            # At once, for the less time passes after what is known, the better it will fit.
            base, fresh = found, True
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("others write to this session all the time; try again")

    async def look(self, key: SessionKey, state: State, wanted: Sequence[bytes]) -> list[Seen]:
        """Items of a session that is present, as ``state`` sees them; it was the newest some
        time ago. Raises ``Moved``."""
        return await asyncio.gather(*(self._look(key, state, item) for item in wanted))

    async def _look(self, key: SessionKey, state: State, item: bytes) -> Seen:
        partition = keys.session(key)
        scan = Scan(item, item + b"\0")
        span = span_of(state.log, scan)
        ridden = await log.values(self._table, partition, state, scan, span, None)
        seen = Seen(0, 0, {})
        if state.log is None or state.log_rows or not within(state.log, scan):
            seen = await self.items.look(partition, state, item)
        for found, slot in ridden.items:
            if slot > seen.slot:
                return Seen(found.version, slot, seen.unless)
        return seen

    async def _read_log(self, key: SessionKey, scan: Scan) -> Snapshot | Known | None:
        """Read a session of which nothing is known: perhaps its log, and that as usual.

        The snapshot if so; else the newest slot if it was read, and something else was wanted.
        """
        prefix = self._chain.log
        if prefix is None or not within(prefix, scan):
            prefix = scan.start  # that of who reads the whole log
            if not within(prefix, scan):
                return None
        span = span_of(prefix, scan)
        if not log.leads(scan, span):
            return None
        lead = await log.lead(self._table, keys.session(key), None, scan, span)
        if lead.newest is None:
            return None
        newest = self._chain.met(key, lead.newest)
        state = newest.state
        if not state.present(self._table.now()) or state.log != prefix or state.log_rows:
            return newest
        if lead.pages > 1 and state.last_delete:
            return newest
        return await self._answer(key, [scan], [None], newest, state, {0: lead})

    async def _try(
        self, key: SessionKey, scans: list[Scan], base: Known, *, fresh: bool, hard: bool
    ) -> Snapshot | Known | None:
        """The snapshot, or the newest slot if it does not fit what was read before it.

        ``fresh``: ``base`` was the newest slot when this read had begun. ``hard``: others have
        been writing all the time, and the rows they change are to be caught up with.
        """
        state = base.state
        partition = keys.session(key)
        rows = await self._scan_rows(partition, state, scans)
        touching = any(part is not None for part in rows)
        leads: dict[int, Lead] = {}
        if fresh and not touching:
            newest: Known | None = base
        else:
            newest = await self._newest(key, scans, state, leads)
        if newest is None or newest.state.first != state.first:
            return newest
        if touching and newest.state.touched != state.touched:
            if not hard:
                return newest
            caught = await self._settling.caught_up(key, state, newest.state, scans, rows)
            if caught is None:
                return await self._chain.fetch(key)
            newest, rows = self._chain.met(key, caught[0]), caught[1]
            leads.clear()
            if any(part is not None and part.more and not part.items for part in rows):
                return newest
        now = newest.state
        if (now.log, now.log_rows) != (state.log, state.log_rows):
            return newest
        if touching and not await self._settling.shown(key, now, scans, rows):
            await asyncio.sleep(SETTLING_PAUSE)
            return await self._chain.fetch(key)
        if any(lead.pages > 1 for lead in leads.values()) and (
            now.last_delete != state.last_delete
        ):
            return newest
        return await self._answer(key, scans, rows, newest, state, leads)

    async def _newest(
        self, key: SessionKey, scans: list[Scan], base: State, leads: dict[int, Lead]
    ) -> Known | None:
        """The newest slot, read with the slots that a scan wants if one comes by it."""
        for place, scan in enumerate(scans):
            span = span_of(base.log, scan)
            if log.leads(scan, span):
                lead = await log.lead(self._table, keys.session(key), base, scan, span)
                leads[place] = lead
                if lead.newest is not None:
                    return self._chain.met(key, lead.newest)
                break
        return await self._chain.fetch(key)

    async def _answer(
        self,
        key: SessionKey,
        scans: list[Scan],
        rows: Sequence[Part | None],
        newest: Known,
        base: State,
        leads: dict[int, Lead],
    ) -> Snapshot | Known | None:
        """What was found, at the version of ``newest``."""
        state = newest.state
        if base.tombs != state.tombs:
            # Some was read before ``newest``: what it need not hide any more was still there.
            state = replace(state, tombs=tuple({*base.tombs, *state.tombs}))
        try:
            ridden = await self._scan_log(keys.session(key), state, scans, leads)
        except Moved:
            return await self._chain.fetch(key)
        meta = await self._chain.meta(key, newest)
        if meta is None:
            return await self._chain.fetch(key)
        now = self._table.now()
        if not state.present(now):
            return newest
        answers = tuple(map(_merged, scans, rows, ridden))
        return Snapshot(newest.state.head(meta), now, answers)

    async def _scan_rows(
        self, partition: bytes, state: State, scans: list[Scan]
    ) -> list[Part | None]:
        """What the scans find in rows of items; ``None`` where none can be."""
        asked = [
            place
            for place, scan in enumerate(scans)
            if state.log is None or state.log_rows or not within(state.log, scan)
        ]
        parts: list[Part | None] = [None] * len(scans)
        found = await asyncio.gather(
            *(self.items.scan(partition, state, scans[place]) for place in asked)
        )
        for place, part in zip(asked, found, strict=True):
            parts[place] = part
        return parts

    async def _scan_log(
        self,
        partition: bytes,
        state: State,
        scans: list[Scan],
        leads: dict[int, Lead] | None = None,
    ) -> list[Part]:
        """What the scans find in slots. Raises ``Moved``."""
        return await asyncio.gather(
            *(
                log.values(
                    self._table,
                    partition,
                    state,
                    scan,
                    span_of(state.log, scan),
                    leads.get(place) if leads else None,
                )
                for place, scan in enumerate(scans)
            )
        )


def _scan(read: Read) -> Scan:
    return Scan(read.key, read.key + b"\0") if isinstance(read, Get) else read


def _merged(scan: Scan, rows: Part | None, ridden: Part) -> Rows:
    return merged(scan, [ridden] if rows is None else [rows, ridden])
