"""Appends to one session that are made at once share commits, and nothing else."""

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from perdure import (
    CommitIdReused,
    InvalidValue,
    KeyRing,
    Log,
    OutcomeUnknown,
    Position,
    SessionDeleted,
    Store,
    TooLarge,
    Unavailable,
)
from perdure.backend import Backend
from perdure.testing.faults import DropRequests, LoseReplies
from perdure.types import Commit, Committed, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.remote import Held, Remote, begun, outcomes, turns, written
from tests.core.virtual_time import VirtualTimeLoop
from tests.core.wrappers import Narrow, Recorder


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


async def test_encrypted_appends_at_once_do_not_contend(backend: Backend) -> None:
    recorder = Remote(backend)
    store = Store(recorder, keys=KeyRing.generate("k"))
    sessions = [store.session("s") for _ in range(7)]
    await sessions[0].append("first")
    recorder.reset()
    positions = await asyncio.gather(*(sessions[n % 7].append(n) for n in range(50)))
    assert len(recorder.commits) == 2
    assert recorder.reads == 0
    entries = await store.session("s").entries()
    assert (entries[1:], entries.positions[1:]) == (list(range(50)), positions)


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
def test_each_is_told_of_a_fault_by_an_error_of_its_own(fault: str) -> None:
    async def run() -> None:
        on, remote = range(1, 1000), Remote(MemoryBackend())
        faulty = DropRequests(remote, on) if fault == "refused" else LoseReplies(remote, on)
        store = Store(faulty)
        session = store.session("s")
        work = begun(*(store.session("s").append(n) for n in range(6)))
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
            assert await session.entries() == list(range(6))
        else:
            assert await session.entries() == [0]
        assert written(store)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


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
