"""Rows of items, read as a state sees them: of rows with one key the latest counts."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from perdure.types import Item, Scan

from perdure_dynamodb import keys
from perdure_dynamodb.actions import SORT, Row, Value
from perdure_dynamodb.parts import Part, Taking
from perdure_dynamodb.rows import NEW, ItemRow, StageRecord, item_of, stage_of
from perdure_dynamodb.state import State
from perdure_dynamodb.table import Table

MANY_STAGES = 4096
"""Of so many stages it is remembered which commit named them."""

MISSING = StageRecord(opened_at=0)


class Holds(msgspec.Struct, frozen=True):
    """A condition on a row."""

    condition: str
    values: dict[str, Value] = {}


class Seen(msgspec.Struct, frozen=True):
    """An item as it was seen, and what it was seen by."""

    version: int
    """0: there is none."""
    slot: int
    unless: dict[bytes, Holds]
    """By the sort keys of the rows that would show a later change."""


class Items:
    """Reads rows of items."""

    def __init__(self, table: Table) -> None:
        self._table = table
        # Partition and sort key of the records of stages that a commit has named.
        self._adopted: OrderedDict[tuple[bytes, bytes], StageRecord] = OrderedDict()

    async def scan(self, partition: bytes, state: State, scan: Scan) -> Part:
        """What a scan finds. Rows that were written after ``state`` may be among it."""
        if scan.stop is not None and scan.stop <= scan.start:
            return Part([], more=False)
        low, high = keys.item_range(state.incarnation, scan.start, scan.stop)
        taking = Taking(scan)
        held: list[ItemRow] = []  # those of the last key, which the next page may go on with
        behind: bytes | None = None
        while True:
            page = await self._table.query(
                partition,
                low,
                high,
                reverse=scan.reverse,
                limit=None if scan.limit is None else scan.limit + 1,
                start_after=behind,
            )
            behind = page.last
            groups = grouped(held, page.rows)
            held = groups.pop() if behind is not None and groups else []
            await self._know_stages(partition, state, groups)
            for group in groups:
                item = self._latest(partition, state, group)
                if item is None or item[0].version <= scan.since:
                    continue
                if not taking.take(*item):
                    return Part(taking.items, more=True)
            if behind is None:
                return Part(taking.items, more=False)
            if taking.full:
                return Part(taking.items, more=True)

    async def look(self, partition: bytes, state: State, key: bytes) -> Seen:
        """One item, and the condition on which it still is what was seen."""
        rows: list[ItemRow] = []
        low, high = keys.item_rows(state.incarnation, key)
        behind: bytes | None = None
        while True:
            page = await self._table.query(partition, low, high, start_after=behind)
            rows += [item_of(row) for row in page.rows]
            behind = page.last
            if behind is None:
                break
        await self._know_stages(partition, state, [rows])
        latest = self._latest(partition, state, rows)
        unless: dict[bytes, Holds] = {keys.item(state.incarnation, key): Holds(NEW)}
        for row in rows:
            if row.stage == keys.UNSTAGED:
                sort = keys.item(state.incarnation, key)
                unless[sort] = Holds("c = :k", {"k": row.slot})
            elif row.value is not None:
                record = keys.stage(state.incarnation, row.stage)
                if (partition, record) not in self._adopted:
                    unless[record] = Holds("attribute_not_exists(n)")
        version, slot = (0, 0) if latest is None else (latest[0].version, latest[1])
        return Seen(version, slot, unless)

    async def adopted(self, partition: bytes, incarnation: bytes, stage: bytes) -> bool:
        """Whether it was known, when rows were last read, that a commit has named a stage."""
        place = partition, keys.stage(incarnation, stage)
        if place in self._adopted:
            return True
        row = await self._table.get(*place)
        if row is not None and (record := stage_of(row)).slot:
            self._adopted[place] = record
        return False

    async def any(self, partition: bytes, incarnation: bytes, prefix: bytes) -> bool:
        """Whether there is a row, visible or not, whose item's key might be that of a value
        appended under ``prefix``."""
        low, high = keys.item_range(incarnation, prefix, keys.values_stop(prefix))
        found = await self._table.query(partition, low, high, limit=1, only=(SORT,))
        return bool(found.rows)

    async def _know_stages(
        self, partition: bytes, state: State, groups: list[list[ItemRow]]
    ) -> None:
        unknown = {
            record
            for group in groups
            for row in group
            if row.stage != keys.UNSTAGED
            and row.value is not None
            and (record := (partition, keys.stage(state.incarnation, row.stage)))
            not in self._adopted
        }
        found = await asyncio.gather(*(self._table.get(*record) for record in unknown))
        for place, row in zip(unknown, found, strict=True):
            if row is not None and (record := stage_of(row)).slot:
                self._adopted[place] = record
        while len(self._adopted) > MANY_STAGES:
            self._adopted.popitem(last=False)

    def _latest(
        self, partition: bytes, state: State, group: list[ItemRow]
    ) -> tuple[Item, int] | None:
        """The item that the rows of one key are; ``None`` if it is not there."""
        latest: ItemRow | None = None
        version = slot = 0
        for row in group:
            if row.value is None:
                continue
            made = row
            if row.stage != keys.UNSTAGED:
                place = partition, keys.stage(state.incarnation, row.stage)
                made = self._adopted.get(place, MISSING)
            # Of the rows of one commit, what it put replaces a part that it adopted.
            later = made.slot > slot or (made.slot == slot and row.stage == keys.UNSTAGED)
            if later and made.slot and state.shows(row.key, made.slot):
                latest, version, slot = row, made.version, made.slot
        if latest is None or latest.value is None:
            return None
        return Item(latest.key, latest.value, version), slot


def grouped(held: list[ItemRow], rows: Iterable[Row]) -> list[list[ItemRow]]:
    """Rows in their order, those of one key together; the first may go on with ``held``."""
    groups = [held] if held else []
    for stored in rows:
        row = item_of(stored)
        if groups and groups[-1][0].key == row.key:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
