"""Reading: exact keys, ranges, their order and bounds, and what absence looks like."""

import pytest

from perdure.backend import Backend
from perdure.testing.rooms.room import Room
from perdure.testing.shorthand import new_id, read_items, write
from perdure.types import Get, Item, Read, Scan, SessionKey

MIB = 1 << 20


async def scan(backend: Backend, key: SessionKey, read: Scan) -> list[bytes]:
    """The keys that a scan returns."""
    (rows,) = (await backend.read(key, read)).rows
    return [item.key for item in rows.items]


class Reads(Room):
    async def test_absent_session_has_no_head_and_empty_rows(
        self, backend: Backend, key: SessionKey
    ) -> None:
        snapshot = await backend.read(key, Get(b"a"), Scan(), Scan(reverse=True))
        assert snapshot.head is None
        assert len(snapshot.rows) == 3
        assert all(not rows.items and not rows.more for rows in snapshot.rows)

    async def test_reading_creates_nothing(self, backend: Backend, key: SessionKey) -> None:
        await backend.read(key, Get(b"a"), Scan())
        assert (await backend.read(key)).head is None

    async def test_read_without_reads_is_the_head_alone(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"a", b"1"),))
        snapshot = await backend.read(key)
        assert snapshot.head == made.head
        assert snapshot.rows == ()

    async def test_rows_answer_the_reads_in_their_order(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"), (b"b", b"2"), (b"c", b"3")))
        reads: tuple[Read, ...] = (
            Get(b"c"),
            Scan(start=b"b"),
            Get(b"missing"),
            Get(b"a"),
            Get(b"c"),
        )
        rows = (await backend.read(key, *reads)).rows
        assert [[item.value for item in row.items] for row in rows] == [
            [b"3"],
            [b"2", b"3"],
            [],
            [b"1"],
            [b"3"],
        ]

    async def test_get_matches_the_whole_key_only(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"ab", b"1"), (b"abcd", b"2")))
        reads = [Get(k) for k in (b"a", b"ab", b"abc", b"abcd", b"abcde", b"ab\0", b"AB")]
        rows = (await backend.read(key, *reads)).rows
        assert [[item.value for item in row.items] for row in rows] == [
            [],
            [b"1"],
            [],
            [b"2"],
            [],
            [],
            [],
        ]

    async def test_values_come_back_byte_for_byte(
        self, backend: Backend, key: SessionKey
    ) -> None:
        values = [b"", b"\0", b"\xff", bytes(range(256)), b"'; --", "é\u202e".encode()]
        await write(
            backend, key, puts=tuple((b"%d" % n, value) for n, value in enumerate(values))
        )
        assert [item.value for item in await read_items(backend, key)] == values

    async def test_items_carry_the_version_that_wrote_them(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"), (b"b", b"1")))
        await write(backend, key, puts=((b"b", b"2"), (b"c", b"2")))
        assert await read_items(backend, key) == [
            Item(b"a", b"1", 1),
            Item(b"b", b"2", 2),
            Item(b"c", b"2", 2),
        ]

    async def test_keys_order_as_unsigned_bytes(
        self, backend: Backend, key: SessionKey
    ) -> None:
        keys = [b"\0", b"\0\0", b"\x7f", b"\x7f\xff", b"\x80", b"\xc3\xa9", b"\xfe", b"\xff"]
        keys += [b"a", b"a\0", b"a\0b", b"aa", b"a\xff", b"b", b"B", b"10", b"9"]
        await write(backend, key, puts=tuple((k, b"") for k in keys))
        assert await scan(backend, key, Scan()) == sorted(keys)
        assert await scan(backend, key, Scan(reverse=True)) == sorted(keys, reverse=True)

    async def test_item_keys_hold_any_byte_anywhere(
        self, backend: Backend, key: SessionKey
    ) -> None:
        keys = [bytes([n]) for n in range(256)]
        keys += [b"k" + bytes([n]) for n in range(256)]
        keys += [b"k" + bytes([n]) + b"k" for n in range(256)]
        for first in range(0, len(keys), 96):
            some = keys[first : first + 96]
            await write(backend, key, puts=tuple((k, k) for k in some))
        found = await read_items(backend, key)
        assert [item.key for item in found] == sorted(keys)
        assert all(item.key == item.value for item in found)

    async def test_item_keys_of_512_bytes(self, backend: Backend, key: SessionKey) -> None:
        keys = [b"\xff" * 512, b"k" * 512, b"k" * 511 + b"l"]
        await write(backend, key, puts=tuple((k, k[-1:]) for k in keys))
        assert await scan(backend, key, Scan()) == sorted(keys)
        (rows,) = (await backend.read(key, Get(keys[2]))).rows
        assert [item.value for item in rows.items] == [b"l"]

    async def test_now_does_not_run_backwards(self, backend: Backend, key: SessionKey) -> None:
        first = await backend.read(key)
        made = await write(backend, key)
        last = await backend.read(key)
        assert first.now <= made.now <= last.now
        assert first.now > 1_500_000_000_000, "milliseconds since the epoch"


class Scans(Room):
    KEYS = (b"a", b"aa", b"ab", b"b", b"ba", b"c")

    async def fill(self, backend: Backend, key: SessionKey) -> None:
        await write(backend, key, puts=tuple((k, b"value " + k) for k in self.KEYS))

    async def test_start_is_inclusive_and_stop_exclusive(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await self.fill(backend, key)
        assert await scan(backend, key, Scan(b"aa", b"b")) == [b"aa", b"ab"]
        assert await scan(backend, key, Scan(b"aa", b"b\0")) == [b"aa", b"ab", b"b"]
        assert await scan(backend, key, Scan(b"aa\0", b"b")) == [b"ab"]
        assert await scan(backend, key, Scan(b"b")) == [b"b", b"ba", b"c"]
        assert await scan(backend, key, Scan(b"", b"aa")) == [b"a"]

    async def test_reverse_is_the_same_range_backwards(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await self.fill(backend, key)
        for start in (b"", *self.KEYS, b"aaa", b"zz"):
            for stop in (None, *self.KEYS, b"aaa", b"zz"):
                forwards = await scan(backend, key, Scan(start, stop))
                backwards = await scan(backend, key, Scan(start, stop, reverse=True))
                assert backwards == forwards[::-1], (start, stop)

    async def test_empty_ranges_find_nothing(self, backend: Backend, key: SessionKey) -> None:
        await self.fill(backend, key)
        for reverse in (False, True):
            for start, stop in ((b"b", b"b"), (b"", b""), (b"ac", b"az"), (b"d", None)):
                (rows,) = (await backend.read(key, Scan(start, stop, reverse=reverse))).rows
                assert not rows.items, (start, stop, reverse)
                assert not rows.more, (start, stop, reverse)

    async def test_limit_takes_from_the_end_that_is_read_first(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await self.fill(backend, key)
        assert await scan(backend, key, Scan(b"aa", b"c", limit=2)) == [b"aa", b"ab"]
        backwards = Scan(b"aa", b"c", limit=2, reverse=True)
        assert await scan(backend, key, backwards) == [b"ba", b"b"]
        assert await scan(backend, key, Scan(limit=100)) == list(self.KEYS)

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_more_says_when_a_limit_cut_the_range(
        self, backend: Backend, key: SessionKey, reverse: bool
    ) -> None:
        await self.fill(backend, key)
        for limit in range(1, len(self.KEYS)):
            (rows,) = (await backend.read(key, Scan(limit=limit, reverse=reverse))).rows
            assert rows.more, limit
            assert len(rows.items) == limit
        (rows,) = (await backend.read(key, Scan(reverse=reverse))).rows
        assert not rows.more, "a range read whole has no more"

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_reading_on_from_the_last_key_misses_and_repeats_nothing(
        self, backend: Backend, key: SessionKey, reverse: bool
    ) -> None:
        await self.fill(backend, key)
        for limit in range(1, len(self.KEYS) + 1):
            start, stop = b"a\0", b"c"
            found: list[bytes] = []
            more = True
            while more:
                read = Scan(start, stop, limit=limit, reverse=reverse)
                (rows,) = (await backend.read(key, read)).rows
                assert rows.items or not rows.more, "more never comes with no items"
                found += [item.key for item in rows.items]
                if rows.items and reverse:
                    stop = found[-1]
                elif rows.items:
                    start = found[-1] + b"\0"
                more = rows.more
            assert found == sorted([b"aa", b"ab", b"b", b"ba"], reverse=reverse)

    async def test_since_leaves_out_that_version_and_those_before(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"), (b"b", b"1"), (b"c", b"1")))
        await write(backend, key, puts=((b"b", b"2"),))
        await write(backend, key, puts=((b"a", b"3"), (b"d", b"3")))
        reads = [Scan(since=since) for since in range(4)]
        rows = (await backend.read(key, *reads)).rows
        assert [[item.key for item in row.items] for row in rows] == [
            [b"a", b"b", b"c", b"d"],
            [b"a", b"b", b"d"],
            [b"a", b"d"],
            [],
        ]

    async def test_since_does_not_count_what_it_leaves_out(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=tuple((b"old%d" % n, b"x" * 100) for n in range(20)))
        await write(backend, key, puts=((b"new", b"1"), (b"old7", b"2"), (b"p", b"3")))
        limited = Scan(since=1, limit=2)
        heavy = Scan(since=1, max_bytes=50)
        backwards = Scan(since=1, limit=2, reverse=True)
        rows = (await backend.read(key, limited, heavy, backwards)).rows
        assert [[item.key for item in row.items] for row in rows] == [
            [b"new", b"old7"],
            [b"new", b"old7", b"p"],
            [b"p", b"old7"],
        ]

    async def test_max_bytes_stops_behind_the_item_that_reaches_it(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=tuple((b"%d" % n, b"x" * 10) for n in range(5)))
        for max_bytes, expected in ((1, 1), (10, 1), (11, 2), (20, 2), (49, 5), (50, 5)):
            for reverse in (False, True):
                read = Scan(max_bytes=max_bytes, reverse=reverse)
                (rows,) = (await backend.read(key, read)).rows
                assert len(rows.items) == expected, (max_bytes, reverse)
                assert rows.more or expected == 5
        (rows,) = (await backend.read(key, Scan(max_bytes=51))).rows
        assert len(rows.items) == 5
        assert not rows.more

    async def test_neighbouring_prefixes_stay_apart(
        self, backend: Backend, key: SessionKey
    ) -> None:
        prefixes = [b"log", b"log\0", b"log\xff", b"log\xff\xff", b"lo", b"logs", b"lof"]
        await write(backend, key, puts=tuple((p + b"/1", p) for p in prefixes))
        for prefix in prefixes:
            found = await scan(backend, key, Scan(prefix + b"/", prefix + b"0"))
            assert found == [prefix + b"/1"]

    async def test_a_scan_past_max_read_bytes_is_continued(
        self, backend: Backend, key: SessionKey
    ) -> None:
        capabilities = backend.capabilities
        size = min(capabilities.max_item_bytes, capabilities.max_commit_bytes // 4, MIB // 4)
        total = min(capabilities.max_read_bytes * 2, 4 * MIB)
        per_commit = max(1, min(capabilities.max_commit_bytes // (size + 512), 16))
        count = total // size + 1
        for first in range(0, count, per_commit):
            numbers = range(first, min(first + per_commit, count))
            puts = tuple((b"%06d" % n, bytes([n % 256]) * size) for n in numbers)
            await write(backend, key, puts=puts)
        found = await read_items(backend, key)
        assert [item.key for item in found] == [b"%06d" % n for n in range(count)]
        assert all(len(item.value) == size for item in found)

    async def test_an_item_as_long_as_the_backend_declares(
        self, backend: Backend, key: SessionKey
    ) -> None:
        capabilities = backend.capabilities
        size = min(capabilities.max_item_bytes, capabilities.max_commit_bytes - 600, 4 * MIB)
        value = new_id() * (size // 16) + b"x" * (size % 16)
        await write(backend, key, puts=((b"long", value),))
        (rows,) = (await backend.read(key, Get(b"long"))).rows
        assert [item.value == value for item in rows.items] == [True]

    async def test_a_commit_of_as_many_items_as_the_backend_declares(
        self, backend: Backend, key: SessionKey
    ) -> None:
        count = min(backend.capabilities.max_commit_items, 2_000)
        await write(backend, key, puts=tuple((b"%04d" % n, b"v") for n in range(count)))
        assert len(await read_items(backend, key)) == count
