"""Appends that share a commit, and callers, deadlines, loops and stores that end before it."""

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest

from perdure import (
    OutcomeUnknown,
    PerdureError,
    Position,
    Store,
    StoreClosed,
    Unavailable,
)
from perdure.handle import Handle
from perdure.merging import PATIENCE, Lane, Trip, Waiter
from perdure.types import Commit, Committed, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.remote import Held, Remote, begun, outcomes, turns, written
from tests.core.virtual_time import VirtualTimeLoop
from tests.core.wrappers import Recorder


async def test_who_leaves_before_it_is_sent_is_taken_out() -> None:
    held = Held(MemoryBackend())
    store = Store(held)
    session = store.session("s")
    work = begun(*(session.append(n) for n in range(5)))
    await turns()
    work[2].cancel()
    work[4].cancel()
    await turns()
    assert work[2].cancelled()
    held.gate.set()
    await outcomes(work)
    assert await session.entries() == [0, 1, 3]
    assert written(store)


async def test_who_leaves_at_the_last_moment_is_taken_out_too() -> None:
    held = Held(MemoryBackend())
    store = Store(held)
    session = store.session("s")
    work = begun(*(session.append(n) for n in range(4)))
    await turns()

    async def cancel_when_the_first_has_returned() -> None:
        await held.gate.wait()
        work[2].cancel()

    cancelling = asyncio.create_task(cancel_when_the_first_has_returned())
    await turns()
    held.gate.set()
    await outcomes([*work, cancelling])
    assert work[2].cancelled()
    assert await session.entries() == [0, 1, 3]
    assert written(store)


async def test_all_who_wait_may_leave() -> None:
    held = Held(MemoryBackend())
    store = Store(held)
    session = store.session("s")
    first, *rest = begun(*(session.append(n) for n in range(5)))
    await turns()
    for each in rest:
        each.cancel()
    await outcomes(rest)
    held.gate.set()
    await first
    assert held.held == 1
    assert written(store)
    assert await session.entries() == [0]


async def test_who_leaves_on_the_way_takes_no_other_along() -> None:
    held = Held(MemoryBackend())
    store = Store(held)
    session = store.session("s")
    first, *rest = begun(*(session.append(n) for n in range(5)))
    await turns()
    first.cancel()  # whole or not at all, and the others go
    await turns()
    assert first.cancelled()
    assert (held.held, held.cancelled) == (2, 1)
    rest[0].cancel()
    rest[2].cancel()
    await turns()
    assert rest[0].cancelled()
    assert held.cancelled == 1
    held.gate.set()
    positions = [await rest[1], await rest[3]]
    entries = await store.session("s").entries()
    assert entries == [1, 2, 3, 4]
    assert positions == [entries.positions[1], entries.positions[3]]
    assert written(store)


async def test_the_last_to_leave_takes_the_commit_along() -> None:
    held = Held(MemoryBackend())
    store = Store(held)
    session = store.session("s")
    before = asyncio.all_tasks()
    first, *rest = begun(*(session.append(n) for n in range(4)))
    await turns()
    first.cancel()
    await turns()
    assert held.held == 2
    for each in rest:
        each.cancel()
    await outcomes(rest)
    assert held.cancelled == 2
    await turns()
    assert asyncio.all_tasks() == before
    assert written(store)
    held.gate.set()
    await session.append("on")
    assert await session.entries() == ["on"]


def test_an_append_that_is_stuck_holds_the_others_up_for_a_while_only() -> None:
    times: list[float] = []

    class Stuck(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            times.append(asyncio.get_running_loop().time())
            if len(times) == 1:
                await asyncio.sleep(3600)
            return await super().commit(key, commit)

    async def run() -> None:
        store = Store(Stuck(MemoryBackend()), deadline=3 * PATIENCE)
        session = store.session("s")
        stuck, *rest = begun(*(session.append(n) for n in range(4)))
        positions = await asyncio.gather(*rest)
        assert [round(when - times[0], 2) for when in times] == [0, PATIENCE]
        assert not stuck.done()
        assert isinstance((await outcomes([stuck]))[0], OutcomeUnknown)
        entries = await session.entries()
        assert (entries, entries.positions) == ([1, 2, 3], positions)
        assert written(store)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


def test_every_caller_has_a_deadline_of_its_own() -> None:
    class Slow(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            await asyncio.sleep(0.75 if len(self.commits) == 0 else 3600)
            return await super().commit(key, commit)

    async def run() -> None:
        slow = Slow(MemoryBackend())
        store = Store(slow, deadline=2)
        session = store.session("s")
        loop = asyncio.get_running_loop()

        async def timed(n: int, start: float) -> tuple[float, Any]:
            await asyncio.sleep(start)
            began = loop.time()
            try:
                result: Any = await session.append(n)
            except PerdureError as error:
                result = error
            return round(loop.time() - began, 1), result

        # 0 goes alone, 1 and 2 with one another at 0.75, 3 beside them after a while.
        ends = await asyncio.gather(timed(0, 0), timed(1, 0.1), timed(2, 0.6), timed(3, 1))
        assert [took for took, _ in ends] == [0.8, 2.1, 2, 2]
        assert [type(result) for _, result in ends[1:]] == [OutcomeUnknown] * 3
        same = [result.commit for _, result in ends[1:]]
        assert same[0].id == same[1].id != same[2].id
        assert all(commit.resend for commit in same)
        assert written(store)
        await asyncio.sleep(3600)  # nothing goes on, and nothing is said of it

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


def test_what_was_not_sent_in_time_is_not_applied() -> None:
    class Dead(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            await asyncio.sleep(3600)
            return await super().commit(key, commit)

    async def run() -> None:
        dead = Dead(MemoryBackend())
        store = Store(dead, deadline=PATIENCE / 2)
        session = store.session("s")
        errors = await outcomes(begun(*(session.append(n) for n in range(3))))
        assert [type(error) for error in errors] == [OutcomeUnknown, Unavailable, Unavailable]
        assert written(store)
        await asyncio.sleep(7200)
        assert dead.commits == []

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


async def test_a_store_that_is_closed_tells_those_that_wait() -> None:
    held = Held(MemoryBackend())
    store = Store(held)
    session = store.session("s")
    work = begun(*(session.append(n) for n in range(3)))
    await turns()
    await store.aclose()
    held.gate.set()
    errors = await outcomes(work)
    assert [type(error) for error in errors] == [StoreClosed] * 3
    assert written(store)


def test_loops_and_threads_do_not_wait_for_one_another() -> None:
    store = Store(Remote(MemoryBackend()))
    told: list[tuple[Position, list[int]]] = []

    async def run(thread: int) -> None:
        async def append(n: int) -> None:
            entry = [thread, n]
            told.append((await store.session("s").append(entry), entry))

        for n in range(0, 200, 20):
            await asyncio.gather(*map(append, range(n, n + 20)))

    threads = [threading.Thread(target=asyncio.run, args=(run(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = asyncio.run(_entries(store))
    assert sorted(zip(entries.positions, entries, strict=True)) == sorted(told)
    assert len(told) == 800
    for thread in range(4):
        assert [n for place, n in entries if place == thread] == list(range(200))
    assert written(store)


async def _entries(store: Store) -> Any:
    return await store.session("s").entries()


@pytest.mark.parametrize("step", range(8))
def test_a_loop_that_ends_leaves_nothing_behind(
    step: int, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Remote(MemoryBackend())
    store = Store(backend)

    async def run() -> None:
        held = Held(backend)
        if step % 2:
            held.gate.set()
        other = Store(held)
        kept.append(other)
        sessions = [store.session("s"), other.session("s")]
        kept.append(begun(*(session.append(n) for n in range(9) for session in sessions)))
        await turns(step)

    kept: list[Any] = []
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        asyncio.run(run())
        other = kept[0]
        assert written(store)
        assert written(other)
        del kept[:]
        gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert asyncio.run(_entries(store)) is not None


async def test_nothing_is_kept_of_the_sessions_that_were_written() -> None:
    store = Store(Remote(MemoryBackend()))
    before = _objects()
    for n in range(20):
        session = store.session(f"{n}")
        await asyncio.gather(*(session.append(entry) for entry in range(5)))
        del session
    await turns()
    assert written(store)
    assert _objects() == before


def _objects() -> int:
    """How many objects there are of those that merging makes."""
    gc.collect()
    return sum(isinstance(each, Handle | Lane | Trip | Waiter) for each in gc.get_objects())
