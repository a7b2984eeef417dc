"""Backends that read wrongly."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from perdure.backend import Capabilities
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Item,
    Read,
    Rows,
    Scan,
    SessionKey,
    Snapshot,
)

from tests.backends.memory.durable import Disk, DurableMemory
from tests.mutants.catalogue import caught_by


class Rereading(DurableMemory):
    """Base: changes the scans on their way in or the rows on their way out."""

    def scan(self, scan: Scan) -> Scan:
        return scan

    def rows(self, scan: Scan, rows: Rows) -> Rows:
        return rows

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        asked = [self.scan(read) if isinstance(read, Scan) else read for read in reads]
        snapshot = await super().read(key, *asked)
        rows = tuple(
            self.rows(read, rows) if isinstance(read, Scan) else rows
            for read, rows in zip(reads, snapshot.rows, strict=True)
        )
        return msgspec.structs.replace(snapshot, rows=rows)


def without(rows: Rows, unwanted: Callable[[Item], bool]) -> Rows:
    return Rows([item for item in rows.items if not unwanted(item)], rows.more)


def signed(item: Item) -> list[int]:
    return [byte - 256 if byte > 127 else byte for byte in item.key]


@caught_by("test_reverse_is_the_same_range_backwards")
class ReverseScanOffByOne(Rereading):
    """Takes the start of a reverse scan as exclusive."""

    def rows(self, scan: Scan, rows: Rows) -> Rows:
        return without(rows, lambda item: scan.reverse and item.key == scan.start)


@caught_by("test_start_is_inclusive_and_stop_exclusive")
class StopIsInclusive(Rereading):
    def scan(self, scan: Scan) -> Scan:
        if scan.stop is None:
            return scan
        return msgspec.structs.replace(scan, stop=scan.stop + b"\0")


@caught_by("test_since_leaves_out_that_version_and_those_before")
class SinceIsInclusive(Rereading):
    def scan(self, scan: Scan) -> Scan:
        return msgspec.structs.replace(scan, since=max(scan.since - 1, 0))


@caught_by("test_since_does_not_count_what_it_leaves_out")
class LimitCountsWhatSinceLeavesOut(Rereading):
    """Filters by version after it has cut the range."""

    def scan(self, scan: Scan) -> Scan:
        return msgspec.structs.replace(scan, since=0)

    def rows(self, scan: Scan, rows: Rows) -> Rows:
        return without(rows, lambda item: item.version <= scan.since)


@caught_by(
    "test_more_says_when_a_limit_cut_the_range",
    "test_reading_on_from_the_last_key_misses_and_repeats_nothing",
)
class LimitHidesMore(Rereading):
    """Says that a range is complete though its limit cut it."""

    def rows(self, scan: Scan, rows: Rows) -> Rows:
        return Rows(rows.items, False)


@caught_by("test_limit_takes_from_the_end_that_is_read_first")
class LimitOfReverseTakesTheFirst(Rereading):
    """Applies a limit in key order, and only then turns the rows around."""

    def scan(self, scan: Scan) -> Scan:
        return msgspec.structs.replace(scan, reverse=False)

    def rows(self, scan: Scan, rows: Rows) -> Rows:
        return Rows(list(reversed(rows.items)), rows.more) if scan.reverse else rows


@caught_by("test_max_bytes_stops_behind_the_item_that_reaches_it")
class IgnoresMaxBytes(Rereading):
    def scan(self, scan: Scan) -> Scan:
        return msgspec.structs.replace(scan, max_bytes=None)


@caught_by("test_keys_order_as_unsigned_bytes", "test_item_keys_hold_any_byte_anywhere")
class SignedBytes(Rereading):
    """Orders keys as signed bytes."""

    def rows(self, scan: Scan, rows: Rows) -> Rows:
        ordered: Sequence[Item] = sorted(rows.items, key=signed, reverse=scan.reverse)
        return Rows(ordered, rows.more)


@caught_by("test_a_snapshot_never_mixes_versions")
class MixesVersions(DurableMemory):
    """Reads the head, and then, when others had their turn, the rows."""

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        before = await super().read(key)
        await asyncio.sleep(0)
        after = await super().read(key, *reads)
        return Snapshot(before.head, after.now, after.rows)


@caught_by("test_a_snapshot_never_mixes_versions")
class ReadsRangesOneByOne(DurableMemory):
    """Each range is read by itself; only the head is checked to be the last one's."""

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        rows: list[Rows] = []
        for read in reads:
            rows += (await super().read(key, read)).rows
            await asyncio.sleep(0)
        last = await super().read(key)
        if last.head is None:
            return await super().read(key, *reads)
        return Snapshot(last.head, last.now, tuple(rows))


@caught_by("test_every_client_sees_what_any_was_told")
class ServesStaleHeads(DurableMemory):
    """Keeps what it has read until this very client writes."""

    def __init__(self, disk: Disk, *, clock: Callable[[], int]) -> None:
        super().__init__(disk, clock=clock)
        self.cache: dict[tuple[SessionKey, tuple[Read, ...]], Snapshot] = {}

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        if (key, reads) not in self.cache:
            self.cache[key, reads] = await super().read(key, *reads)
        return self.cache[key, reads]

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.cache.clear()
        return await super().commit(key, commit)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        self.cache.clear()
        return await super().delete(key, id=id, expect=expect, incarnation=incarnation)


@caught_by("test_a_scan_past_max_read_bytes_is_continued")
class CutsLongReadsSilently(DurableMemory):
    """Values beyond what one read may carry are left out, and nothing says so."""

    capabilities: Capabilities = msgspec.structs.replace(
        DurableMemory.capabilities, max_read_bytes=1 << 20
    )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await super().read(key, *reads)
        rows: list[Rows] = []
        for found in snapshot.rows:
            items: list[Item] = []
            for item in found.items:
                if sum(len(i.value) for i in items) < self.capabilities.max_read_bytes:
                    items.append(item)
            rows.append(Rows(items, found.more))
        return msgspec.structs.replace(snapshot, rows=tuple(rows))
