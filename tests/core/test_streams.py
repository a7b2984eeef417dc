"""Streams beside the log: each with rows, cuts and a cache of its own."""

import asyncio
import random
from typing import Any

import pytest

from perdure import START, Conflict, InvalidKey, Log, Store
from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.types import Read, Scan, SessionKey, Snapshot


class Counting(Forwarding):
    """Counts round trips, and the rows they bring."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.reads: list[int] = []

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await super().read(key, *reads)
        self.reads.append(sum(len(rows.items) for rows in snapshot.rows))
        return snapshot


async def test_a_warm_read_of_a_stream_brings_only_what_is_new(backend: Backend) -> None:
    counting = Counting(backend)
    store = Store(counting, deadline=5)
    session = store.session("s")
    for n in range(5):
        await store.session("s").stream("a").append(n)
        await store.session("s").append(-n)
    assert await session.stream("a").entries() == [0, 1, 2, 3, 4]
    assert await session.entries() == [0, -1, -2, -3, -4]
    await store.session("s").stream("a").append(5)
    counting.reads.clear()
    assert await session.stream("a").entries(last=3) == [3, 4, 5]
    log, tail = await session.read(Log(), Log(stream="a"))
    assert (len(log), len(tail)) == (5, 6)
    assert counting.reads == [1, 0]


async def test_own_appends_to_a_stream_are_not_read_back(backend: Backend) -> None:
    counting = Counting(backend)
    session = Store(counting, deadline=5).session("s")
    await session.append("m")
    assert await session.stream("a").entries() == []
    await session.stream("a").append(1)
    await session.append("n")
    await session.stream("a").append(2)
    counting.reads.clear()
    assert await session.stream("a").entries() == [1, 2]
    assert counting.reads == [0]


async def test_a_cut_of_one_stream_leaves_the_others(store: Store) -> None:
    session = store.session("s")
    stream = session.stream("a")
    first = await stream.append(1, 2, 3)
    await session.append("m1", "m2")
    last = await stream.append(4)
    assert await stream.pop() == 4
    await stream.truncate(after=first)
    await stream.truncate(before=(await stream.entries()).positions[1])
    assert await stream.entries() == [2, 3]
    assert await store.session("s").stream("a").entries() == [2, 3]
    assert await store.session("s").entries() == ["m1", "m2"]
    assert last > first


async def test_a_turn_writes_to_several_streams_at_once(store: Store) -> None:
    session = store.session("s")
    await session.stream("draft").append("old", "older")
    await session.append("m")
    async with session.turn() as turn:
        assert await turn.entries(stream="draft") == ["old", "older"]
        turn.clear(stream="draft")
        turn.append("new", stream="draft")
        turn.append("n")
    assert turn.committed is not None
    assert turn.committed.version == 3
    fresh = store.session("s")
    assert await fresh.stream("draft").entries() == ["new"]
    assert await fresh.entries() == ["m", "n"]
    positions = (await fresh.stream("draft").entries()).positions
    async with fresh.turn() as turn:
        turn.append("x", "y", stream="draft")
    async with fresh.turn() as turn:
        await turn.truncate(after=positions[0], stream="draft")
    assert await fresh.stream("draft").entries() == ["new"]


async def test_a_turn_conflicts_with_a_change_of_any_stream(store: Store) -> None:
    session = store.session("s")
    await session.append("m")
    with pytest.raises(Conflict):
        async with session.turn() as turn:
            await turn.entries()
            await store.session("s").stream("a").append(1)
            turn.append("n")
    assert await session.entries() == ["m"]


async def test_a_stream_is_watched_by_itself(store: Store) -> None:
    session = store.session("s")
    await session.stream("a").append(1)
    seen: list[Any] = []

    async def follow() -> None:
        async for entry in store.session("s").stream("a").watch(after=START):
            seen.append(entry.value)
            if len(seen) == 3:
                return

    task = asyncio.create_task(follow())
    await session.append("m")
    await session.stream("a").append(2)
    await session.stream("b").append(0)
    await session.stream("a").append(3)
    await asyncio.wait_for(task, 10)
    assert seen == [1, 2, 3]


HOSTILE = ("a", "a\x01", "a/b", "ä", "l", "\x01", "z" * 480, "\U0010ffff", "%00", "a{b}*'\"")


async def test_names_never_meet_whatever_they_hold(store: Store) -> None:
    session = store.session("s")
    for n, name in enumerate(HOSTILE):
        await session.stream(name).append(n)
    at = await session.append("m")
    await session.derive("d", 1, at=at)
    fresh = store.session("s")
    assert await fresh.streams() == sorted(HOSTILE, key=str.encode)
    for n, name in enumerate(HOSTILE):
        assert await fresh.stream(name).entries() == [n]
    await session.stream("a").delete()
    assert len(await fresh.streams()) == len(HOSTILE) - 1
    assert await fresh.entries() == ["m"]


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "z" * 481, None, 1])
def test_a_name_that_cannot_be_one_is_refused(store: Store, name: Any) -> None:
    with pytest.raises(InvalidKey):
        store.session("s").stream(name)


async def test_what_is_only_derived_does_not_make_a_stream(store: Store) -> None:
    session = store.session("s")
    at = await session.stream("a").append(1)
    await session.derive("d", 1, at=at, stream="a")
    await session.stream("a").pop()
    assert await session.streams() == []
    assert (await session.resume("d", stream="a")).value is None


async def test_several_values_are_derived_from_one_log(store: Store) -> None:
    session = store.session("s")
    one = await session.append(1)
    two = await session.append(2)
    await session.append(3)
    await session.derive("b", "B", at=two)
    await session.derive("a", "A", at=one)
    await session.derive("long", "L" * 200_000, at=one)
    fresh = store.session("s")
    assert [(await fresh.resume(name)).entries for name in ("a", "b", "long", "none")] == [
        [2, 3],
        [3],
        [2, 3],
        [1, 2, 3],
    ]
    assert (await fresh.resume("long")).value == "L" * 200_000
    assert await fresh.entries() == [1, 2, 3]
    assert await fresh.entries(last=1) == [3]


async def test_a_derived_value_reflects_a_position_inside_a_row(store: Store) -> None:
    session = store.session("s")
    await session.append(1, 2, 3, 4)
    positions = (await session.entries()).positions
    await session.derive("d", "1+2", at=positions[1])
    resumed = await store.session("s").resume("d")
    assert (resumed.value, resumed.entries) == ("1+2", [3, 4])
    await session.truncate(after=positions[2])
    assert (await session.resume("d")).entries == [3]
    await session.truncate(before=positions[1])
    assert (await store.session("s").resume("d")).value == "1+2"
    await session.truncate(after=positions[1])
    await session.pop()
    resumed = await store.session("s").resume("d")
    assert (resumed.value, resumed.entries) == (None, [])


async def test_a_value_derived_before_a_long_entry_is_found(store: Store) -> None:
    session = store.session("s")
    at = await session.append("x" * 300_000)
    await session.append("y" * 300_000)
    await session.derive("d", "first", at=at)
    resumed = await store.session("s").resume("d")
    assert (resumed.value, resumed.entries) == ("first", ["y" * 300_000])


async def test_all_of_a_long_stream_is_read_once_the_entry_of_a_derived_value_is_gone(
    store: Store,
) -> None:
    session = store.session("s")
    chance = random.Random(0)
    entries = [[n, chance.randbytes(5000)] for n in range(40)]
    for entry in entries:
        await session.append(entry)
    await session.derive("d", "of all", at=(await session.entries(last=1)).positions[0])
    await session.pop()
    await session.append("another")
    resumed = await store.session("s").resume("d")
    assert resumed.value is None
    assert resumed.entries == [*entries[:-1], "another"]


async def test_deriving_at_what_is_no_position_is_refused(store: Store) -> None:
    session = store.session("s")
    bad: Any = "seven"
    with pytest.raises(InvalidKey):
        await session.derive("d", 1, at=bad)
    with pytest.raises(InvalidKey):
        await session.derive("n" * 25, 1, at=await session.append(1))


async def test_a_stream_scan_stays_within_its_stream(backend: Backend) -> None:
    """The reads of one stream name its own keys only."""
    seen: list[Read] = []

    class Looking(Forwarding):
        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            seen.extend(reads)
            return await super().read(key, *reads)

    session = Store(Looking(backend), deadline=5).session("s")
    await session.stream("a").append(1)
    await session.stream("a").entries(last=5)
    await session.stream("a").entries()
    for scan in seen:
        assert isinstance(scan, Scan)
        assert scan.start.startswith(b"la\0")
        assert scan.stop is not None
        assert b"la\0" < scan.stop <= b"la\0\xff"
