"""Watching over a bad line, over much, and over what is removed meanwhile."""

import asyncio
from typing import Any

import pytest

from perdure import START, Conflict, SessionDeleted, Store, Unavailable
from perdure.backend import Backend
from perdure.testing.faults import Forwarding
from perdure.types import Head, Read, Scan, SessionKey, Snapshot

from tests.core.wrappers import Narrow, Recorder


async def take(store: Store, n: int) -> list[Any]:
    values: list[Any] = []
    stream = store.session("s").watch(after=START)
    async for entry in stream:
        values.append(entry.value)
        if len(values) == n:
            break
    await stream.aclose()
    return values


async def test_a_watch_goes_on_where_it_was_after_the_line_was_down(backend: Backend) -> None:
    class Unreliable(Forwarding):
        calls = 0

        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            self.calls += 1
            if self.calls % 3 == 0:
                raise Unavailable("down, on purpose")
            return await super().read(key, *reads)

        async def wait(
            self, key: SessionKey, *, after: Head | None, timeout: float
        ) -> Head | None:
            self.calls += 1
            if self.calls % 2:
                raise Unavailable("down, on purpose")
            return await super().wait(key, after=after, timeout=timeout)

    watching = asyncio.create_task(take(Store(Unreliable(backend)), 40))
    session = Store(backend).session("s")
    for n in range(40):
        await session.append(n)
        await asyncio.sleep(0.001 * (n % 3))
    assert await asyncio.wait_for(watching, 20) == list(range(40))


async def test_a_long_log_is_watched_page_by_page(backend: Backend) -> None:
    """What is read ahead of the consumer is bounded, however long the log."""

    class Largest(Recorder):
        largest = 0

        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            assert all(isinstance(read, Scan) and read.limit for read in reads)
            snapshot = await super().read(key, *reads)
            self.largest = max(self.largest, *(len(rows.items) for rows in snapshot.rows))
            return snapshot

    session = Store(backend).session("s")
    for start in range(0, 3000, 2):
        await session.append(start, start + 1)
    largest = Largest(backend)
    store = Store(largest)
    assert await take(store, 1) == [0]
    assert largest.items_read <= 1100
    assert await take(store, 3000) == list(range(3000))
    assert largest.largest <= 1100


async def test_a_watch_over_narrow_reads_misses_nothing(backend: Backend) -> None:
    store = Store(backend)
    session = store.session("s")
    entries = [[n, "x" * 300] for n in range(30)]
    narrow = Narrow(backend)

    async def append_more() -> None:
        entries.append([len(entries), "y" * 300])
        await session.append(entries[-1])

    narrow.between = [append_more] * 5
    for entry in list(entries):
        await session.append(entry)
    assert await asyncio.wait_for(take(Store(narrow), 35), 20) == entries
    assert narrow.between == []


async def test_entries_removed_before_they_were_seen_are_not_yielded(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c")
    stream = session.watch(after=START)
    assert (await anext(stream)).value == "a"
    # "b" and "c" were read with "a", and may be yielded; what comes now is not there yet.
    await store.session("s").append("popped")
    await store.session("s").pop()
    await store.session("s").append("d")
    assert [(await anext(stream)).value for _ in range(3)] == ["b", "c", "d"]
    following = asyncio.ensure_future(anext(stream))
    await store.session("s").clear()
    await store.session("s").append("e")
    assert (await asyncio.wait_for(following, 20)).value == "e"
    await stream.aclose()


async def test_two_watches_of_one_handle_do_not_disturb_it_or_each_other(
    store: Store,
) -> None:
    session = store.session("s")
    await session.append(0)
    watching = [asyncio.create_task(take(store, 30)) for _ in range(2)]
    for n in range(1, 30):
        await session.append(n)
        assert await session.entries(last=1) == [n]
        await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.gather(*watching), 20) == [list(range(30))] * 2


async def test_a_watch_ends_when_its_session_is_gone_and_was_not_replaced(
    store: Store,
) -> None:
    session = store.session("s")
    await session.append("a")
    stream = session.watch()
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    await store.delete("s")
    with pytest.raises(SessionDeleted) as caught:
        await asyncio.wait_for(following, 20)
    assert caught.value.head is None
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_watch_can_be_cancelled_and_leaves_the_store_usable(store: Store) -> None:
    session = store.session("s")
    await session.append("a")
    watching = asyncio.create_task(take(store, 2))
    await asyncio.sleep(0.05)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await session.append("b")
    assert await take(store, 2) == ["a", "b"]
    with pytest.raises(Conflict):
        await session.fork("s")
