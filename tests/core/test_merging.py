"""Appends to one session that are made at once share commits, and nothing else."""

import asyncio
import contextvars
import gc
import logging
import random
import threading
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from perdure import (
    CommitIdReused,
    InvalidValue,
    Log,
    OutcomeUnknown,
    PerdureError,
    Position,
    SessionDeleted,
    Store,
    StoreClosed,
    TooLarge,
    Unavailable,
)
from perdure.backend import Backend
from perdure.handle import Handle
from perdure.merging import PATIENCE, Lane, Trip, Waiter
from perdure.testing.faults import DropRequests, LoseReplies
from perdure.types import Commit, Committed, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.virtual_time import VirtualTimeLoop
from tests.core.wrappers import Narrow, Recorder


class Remote(Recorder):
    """Answers no commit at once, not even if it is only a dict."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        await asyncio.sleep(0)
        return await super().commit(key, commit)


class Held(Recorder):
    """Commits wait, before they are made, until they are let go."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.gate = asyncio.Event()
        self.held = 0
        self.cancelled = 0

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.held += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().commit(key, commit)


def begun(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that have been started, in this order."""
    return [asyncio.create_task(each) for each in work]


async def turns(count: int = 10) -> None:
    """Let the other tasks run until they wait for something."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcomes(work: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


def written(store: Store) -> bool:
    """Whether nothing is kept about appends any more."""
    return not store._client.lanes


@pytest.mark.parametrize("handles", [1, 7, 50])
async def test_fifty_at_once_are_two_commits_in_the_order_of_the_calls(
    backend: Backend, handles: int
) -> None:
    recorder = Remote(backend)
    store = Store(recorder)
    sessions = [store.session("s") for _ in range(handles)]
    positions = await asyncio.gather(
        *(sessions[n % handles].append([n, 0], [n, 1]) for n in range(50))
    )
    assert len(recorder.commits) == 2
    entries = await store.session("s").entries()
    assert entries == [[n, half] for n in range(50) for half in range(2)]
    assert positions == entries.positions[1::2]
    assert written(store)


async def test_appends_to_several_streams_share_commits_too(backend: Backend) -> None:
    recorder = Remote(backend)
    store = Store(recorder)
    names = ["", "a", "b"]
    session = store.session("s")

    def append(n: int) -> Coroutine[Any, Any, Position]:
        name = names[n % 3]
        return session.stream(name).append(n) if name else session.append(n)

    positions = await asyncio.gather(*map(append, range(30)))
    assert len(recorder.commits) == 2
    for place, name in enumerate(names):
        (entries,) = await store.session("s").read(Log(stream=name))
        assert entries == list(range(place, 30, 3))
        assert entries.positions == positions[place::3]


async def test_long_entries_do_not_shift_the_positions_of_others(backend: Backend) -> None:
    store = Store(Remote(backend))
    values = [[n, "." * size] for n, size in enumerate([0, 70_000, 5, 40_000, 40_000, 150_000])]
    session = store.session("s")
    await session.append("first")
    held = asyncio.create_task(session.append("ahead"))
    positions = await asyncio.gather(*(session.append(value) for value in values))
    entries = await store.session("s").entries(after=await held)
    assert entries == values
    assert positions == entries.positions


async def test_an_append_alone_is_sent_by_its_caller(backend: Backend) -> None:
    marks: list[int] = []

    class Watched(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            marks.append(len(asyncio.all_tasks()))
            return await super().commit(key, commit)

    before = len(asyncio.all_tasks())
    store = Store(Watched(backend))
    for n in range(3):
        await store.session("s").append(n)
        assert written(store)
    assert marks == [before] * 3


async def test_what_is_wrong_with_one_touches_no_other() -> None:
    held = Held(MemoryBackend())
    held.capabilities = msgspec.structs.replace(held.capabilities, max_item_bytes=50_000)
    store = Store(held)
    session = store.session("s")
    first, bad, good, large, last = work = begun(
        session.append(1),
        session.append([2, {"x": object()}]),
        session.append(3),
        session.append([4, random.randbytes(60_000)]),
        session.append(5),
    )
    await turns()
    assert bad.done()
    held.gate.set()
    await outcomes(work)
    assert isinstance(bad.exception(), InvalidValue)
    assert isinstance(large.exception(), TooLarge)
    entries = await session.entries()
    assert entries == [1, 3, 5]
    assert entries.positions == [first.result(), good.result(), last.result()]
    assert written(store)


async def test_commits_stay_within_what_the_backend_takes(backend: Backend) -> None:
    narrow = Narrow(backend, commit_bytes=2000)
    recorder = Remote(narrow)
    store = Store(recorder)
    session = store.session("s")
    values = [[n, "." * (n % 5 * 150)] for n in range(40)]
    positions = await asyncio.gather(*(session.append(value) for value in values))
    assert narrow.stagings == 0
    assert 5 < len(recorder.commits) < 20
    entries = await store.session("s").entries()
    assert (entries, entries.positions) == (values, positions)


async def test_streams_count_against_the_items_of_a_commit(backend: Backend) -> None:
    recorder = Remote(backend)
    recorder.capabilities = msgspec.structs.replace(backend.capabilities, max_commit_items=4)
    store = Store(recorder)
    session = store.session("s")
    await asyncio.gather(*(session.stream(f"{n % 9}").append(n) for n in range(36)))
    assert max(len(commit.appends) for commit in recorder.commits) == 4
    for place in range(9):
        assert await session.stream(f"{place}").entries() == list(range(place, 36, 9))


@pytest.mark.parametrize("fault", ["refused", "lost"])
async def test_each_is_told_of_a_fault_by_an_error_of_its_own(
    backend: Backend, fault: str
) -> None:
    on = range(2, 1000)
    remote = Remote(backend)
    faulty = DropRequests(remote, on) if fault == "refused" else LoseReplies(remote, on)
    store = Store(faulty, deadline=0.3)
    session = store.session("s")
    await session.append(0)
    work = begun(*(store.session("s").append(n) for n in range(1, 7)))
    first, *errors = await outcomes(work)
    assert isinstance(first, str)
    kind = Unavailable if fault == "refused" else OutcomeUnknown
    assert [type(error) for error in errors] == [kind] * 5
    assert len({id(error) for error in errors}) == 5
    faulty.on = ()
    if fault == "lost":
        commits = [error.commit for error in errors]
        assert len({commit.id for commit in commits}) == 1
        made = {(await store.session("s").resend(commit)).version for commit in commits}
        assert len(made) == 1
        assert await session.entries() == list(range(7))
    else:
        assert await session.entries() == [0, 1]
    assert written(store)


async def test_a_merged_commit_whose_reply_is_lost_is_applied_once(backend: Backend) -> None:
    store = Store(LoseReplies(Remote(backend), {0, 1, 2, 5}), deadline=5)
    session = store.session("s")
    positions = await asyncio.gather(*(session.append(n) for n in range(20)))
    entries = await store.session("s").entries()
    assert (entries, entries.positions) == (list(range(20)), positions)


async def test_handles_of_a_deleted_session_fail_alone(backend: Backend) -> None:
    held = Held(backend)
    held.gate.set()
    store = Store(held)
    old = store.session("s")
    await old.append("old")
    await store.delete("s")
    young = store.session("s")
    await young.append("young")
    held.gate.clear()
    cold = [store.session("s") for _ in range(3)]
    first, *work = begun(
        young.append(0),
        cold[0].append(1),
        old.append(2),
        cold[1].append(3),
        young.append(4),
        old.append(5),
        cold[2].append(6),
    )
    await turns()
    assert held.held == 3
    held.gate.set()
    results = await outcomes(work)
    gone = [type(result) is SessionDeleted for result in results]
    assert gone == [False, True, False, False, True, False]
    assert results[1] is not results[4]
    entries = await store.session("s").entries()
    assert entries == ["young", 0, 1, 3, 4, 6]
    told = [result for result in results if isinstance(result, str)]
    assert entries.positions[1:] == [await first, *told]
    assert written(store)


async def test_handles_that_had_seen_nothing_make_the_session_anew() -> None:
    held = Held(MemoryBackend())
    held.gate.set()
    store = Store(held)
    old = store.session("s")
    await old.append("old")
    held.gate.clear()
    first, *work = begun(
        old.append(0), store.session("s").append(1), old.append(2), store.session("s").append(3)
    )
    await turns()
    await store.delete("s")
    held.gate.set()
    assert isinstance((await outcomes([first]))[0], SessionDeleted)
    results = await outcomes(work)
    assert [type(result) for result in results] == [str, SessionDeleted, str]
    entries = await store.session("s").entries()
    assert entries == [1, 3]
    assert entries.positions == [results[0], results[2]]


async def test_every_handle_knows_what_was_appended_for_it(backend: Backend) -> None:
    recorder = Remote(backend)
    store = Store(recorder)
    sessions = [store.session("s") for _ in range(5)]
    await sessions[0].append("a")
    for session in sessions:
        await session.entries()
    await asyncio.gather(*(session.append(n) for n, session in enumerate(sessions)))
    expected = ["a", *range(5)]
    for session in sessions:
        assert await session.entries() == expected
    recorder.reset()
    await asyncio.gather(*(sessions[0].append(n) for n in range(5, 20)))
    assert await sessions[0].entries() == ["a", *range(20)]
    assert (recorder.reads, recorder.items_read) == (1, 0)
    await asyncio.gather(*(session.append(n) for n, session in enumerate(sessions, 20)))
    for session in sessions:
        assert await session.entries() == ["a", *range(25)]


async def test_every_handle_has_seen_the_session_that_it_made_with_others(
    backend: Backend,
) -> None:
    store = Store(Remote(backend))
    sessions = [store.session("s") for _ in range(4)]
    await asyncio.gather(*(session.append(n) for n, session in enumerate(sessions)))
    await store.delete("s")
    for session in sessions:
        with pytest.raises(SessionDeleted):
            await session.append("late")
    assert await store.session("s").head() is None


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


async def test_appends_under_a_key_are_judged_by_themselves(backend: Backend) -> None:
    store = Store(Remote(backend))
    session = store.session("s")
    await session.append("x", key="k")
    results = await outcomes(
        begun(
            session.append("a"),
            session.append("b"),
            session.append("y", key="k"),
            session.append("c"),
        )
    )
    assert isinstance(results.pop(2), CommitIdReused)
    entries = await store.session("s").entries()
    assert entries == ["x", "a", "b", "c"]
    assert entries.positions[1:] == results


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


async def test_the_commit_runs_in_the_context_of_one_of_its_callers() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    saw: list[str] = []

    class Seen(Held):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            saw.append(who.get())
            return await super().commit(key, commit)

    seen = Seen(MemoryBackend())
    store = Store(seen)

    async def append(name: str) -> None:
        who.set(name)
        await store.session("s").append(name)

    work = begun(append("first"), append("second"), append("third"))
    await turns()
    seen.gate.set()
    await asyncio.gather(*work)
    assert saw == ["first", "second"]
