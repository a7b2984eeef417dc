"""Handles: what they keep, and what they ask for again."""

import asyncio

import msgspec
import pytest

from perdure import Conflict, Session, SessionDeleted, Store
from perdure.backend import Backend
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from tests.core.wrappers import Recorder


@pytest.fixture
def recorder(backend: Backend) -> Recorder:
    return Recorder(backend)


async def filled(recorder: Recorder, turns: int = 40) -> Store:
    store = Store(recorder)
    for n in range(turns):
        await store.session("s").append({"n": n})
    recorder.reset()
    return store


async def test_a_warm_handle_asks_only_for_what_is_new(recorder: Recorder) -> None:
    store = await filled(recorder)
    session, other = store.session("s"), store.session("s")
    assert len(await session.entries()) == 40
    assert (recorder.reads, recorder.items_read) == (1, 40)
    recorder.reset()
    await other.append("x")
    assert len(await session.entries()) == 41
    assert await session.entries(last=2) == [{"n": 39}, "x"]
    assert (recorder.reads, recorder.items_read) == (2, 1)


async def test_own_appends_are_not_read_back(recorder: Recorder) -> None:
    store = await filled(recorder, turns=0)
    session = store.session("s")
    for n in range(10):
        await session.append(n)
        assert await session.entries() == list(range(n + 1))
    assert recorder.items_read == 0


async def test_the_tail_of_a_long_log_costs_what_it_returns(recorder: Recorder) -> None:
    store = await filled(recorder, turns=500)
    session = store.session("s")
    assert await session.entries(last=10) == [{"n": n} for n in range(490, 500)]
    assert (recorder.reads, recorder.items_read <= 12) == (1, True)
    await store.session("s").append("x")
    recorder.reset()
    assert len(await session.entries(last=5)) == 5
    assert (recorder.reads, recorder.items_read) == (1, 1)


async def test_rows_that_went_make_a_handle_read_anew(recorder: Recorder) -> None:
    store = await filled(recorder)
    session, other = store.session("s"), store.session("s")
    await session.entries()
    await other.pop()
    assert await session.entries() == [{"n": n} for n in range(39)]
    await other.clear()
    await other.append("x")
    assert await session.entries() == ["x"]


async def test_another_life_of_the_session_is_read_anew(recorder: Recorder) -> None:
    store = await filled(recorder)
    session = store.session("s")
    await session.entries()
    await store.delete("s")
    assert await session.entries() == []
    for n in range(50):
        await store.session("s").append(n)
    assert await session.entries() == list(range(50))


async def test_a_version_made_again_by_another_commit_is_noticed() -> None:
    """A failover that lost a commit: same version, other tip."""
    lost, kept = MemoryBackend(), MemoryBackend()
    recorder = Recorder(lost)
    store = Store(recorder)
    session = store.session("s")
    await session.append("a")
    incarnation = (await session.entries()).head
    assert incarnation is not None
    commit = recorder.commits[0]
    await kept.commit(SessionKey("default", "session", "s"), commit)
    await session.append("lost")
    assert await session.entries() == ["a", "lost"]
    recorder.backend = kept
    await store.session("s").append("instead")
    assert await session.entries() == ["a", "instead"]


class Failover(Recorder):
    """Two servers, of which one answers."""

    epoch = b"first"

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        return msgspec.structs.replace(await super().read(key, *reads), epoch=self.epoch)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return msgspec.structs.replace(await super().commit(key, commit), epoch=self.epoch)


async def after_a_failover(*, others: int) -> Session:
    """A handle that has seen a commit which a failover lost; ``others`` have followed."""
    lost, kept = MemoryBackend(), MemoryBackend()
    failover = Failover(lost)
    store = Store(failover)
    session = store.session("s")
    await session.append("a")
    await kept.commit(session.key, failover.commits[0])
    await session.append("lost")
    assert await session.entries() == ["a", "lost"]
    failover.backend, failover.epoch = kept, b"second"
    for n in range(others):
        await store.session("s").append(n)
    return session


@pytest.mark.parametrize("others", [0, 1, 2, 5])
async def test_a_read_after_a_failover_shows_nothing_that_was_lost(others: int) -> None:
    session = await after_a_failover(others=others)
    assert await session.entries() == ["a", *range(others)]
    assert await session.entries(last=2) == ["a", *range(others)][-2:]


@pytest.mark.parametrize("others", [0, 1, 2, 5])
async def test_an_append_after_a_failover_does_not_bring_back_what_was_lost(
    others: int,
) -> None:
    session = await after_a_failover(others=others)
    await session.append("new")
    assert await session.entries() == ["a", *range(others), "new"]


@pytest.mark.parametrize("others", [0, 1, 2, 5])
async def test_a_turn_begun_before_a_failover_that_lost_what_it_saw_conflicts(
    others: int,
) -> None:
    lost, kept = MemoryBackend(), MemoryBackend()
    failover = Failover(lost)
    store = Store(failover)
    session = store.session("s")
    await session.append("a")
    await kept.commit(session.key, failover.commits[0])
    await session.append("lost")
    with pytest.raises(Conflict):
        async with session.turn() as turn:
            assert await turn.entries() == ["a", "lost"]
            failover.backend, failover.epoch = kept, b"second"
            for n in range(others):
                await store.session("s").append(n)
            turn.append("built on what was lost")
    assert await session.entries() == ["a", *range(others)]


async def test_writes_build_on_the_session_seen(recorder: Recorder) -> None:
    store = await filled(recorder)
    session = store.session("s")
    await session.entries()
    await store.delete("s")
    for write in (
        session.append("late"),
        session.cells.put("x", 1),
        session.clear(),
        session.set(meta=b"x"),
    ):
        with pytest.raises(SessionDeleted):
            await write
    assert await session.delete() is False
    assert await store.session("s").head() is None


async def test_a_handle_deletes_the_session_it_has_seen_and_no_other(
    recorder: Recorder,
) -> None:
    store = await filled(recorder)
    session = store.session("s")
    await session.entries()
    await store.delete("s")
    await store.session("s").append("successor")
    assert await session.delete() is False
    assert await store.session("s").entries() == ["successor"]


async def test_a_read_shows_a_handle_what_is_there_now(recorder: Recorder) -> None:
    store = await filled(recorder)
    session = store.session("s")
    await session.entries()
    await store.delete("s")
    assert await session.entries() == []
    await session.append("begun anew")
    assert await store.session("s").entries() == ["begun anew"]


async def test_a_handle_that_deleted_its_session_can_begin_anew(recorder: Recorder) -> None:
    session = (await filled(recorder)).session("s")
    await session.entries()
    assert await session.delete() is True
    await session.append("again")
    assert await session.entries() == ["again"]


async def test_a_handle_long_unused_looks_before_it_writes(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled(recorder)
    session = store.session("s")
    await session.entries()
    recorder.reset()
    await session.append("soon")
    assert recorder.reads == 0
    monkeypatch.setattr("perdure.handle.VALID_SECONDS", -1)
    await session.append("an hour later")
    assert recorder.reads == 1
    await store.delete("s")
    await store.session("s").append("successor")
    with pytest.raises(SessionDeleted):
        await session.append("too late")
    assert await store.session("s").entries() == ["successor"]


async def test_tasks_that_share_a_handle_see_all_their_appends(backend: Backend) -> None:
    session = Store(backend).session("s")

    async def work(name: int) -> None:
        for n in range(20):
            await session.append([name, n])
            seen = await session.entries()
            assert [name, n] in seen
            mine = [entry for entry in seen if entry[0] == name]
            assert mine == [[name, i] for i in range(n + 1)]

    await asyncio.gather(*(work(name) for name in range(8)))
    assert len(await session.entries()) == 160
