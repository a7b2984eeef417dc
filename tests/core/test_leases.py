"""Exclusive turns: one at a time on a session, and what others may do meanwhile."""

import asyncio

import pytest

from perdure import (
    Cells,
    Conflict,
    Corrupt,
    InvalidKey,
    LeaseHeld,
    LeaseLost,
    Session,
    SessionDeleted,
    Store,
    Unsupported,
)
from perdure.backend import Backend
from perdure.codec import Codec
from perdure.layout import LEASE, LEASE_QUEUE
from perdure.testing import TestClock
from perdure.types import Get

from tests.core.wrappers import Recorder

LONG = 60_000
"""Longer than any lease here lasts, in ms."""


@pytest.fixture
def session(store: Store) -> Session:
    return store.session("s")


@pytest.fixture
def other(store: Store) -> Session:
    """Another handle, as another process has one."""
    return store.session("s")


async def test_only_one_exclusive_turn_works_at_a_time(
    session: Session, other: Session
) -> None:
    async with session.turn(exclusive=True) as turn:
        turn.append("a")
        with pytest.raises(LeaseHeld) as held:
            await other.turn(exclusive=True).__aenter__()
        assert turn.lease is not None
        assert held.value.expires_at == turn.lease.expires_at
        assert "nothing was written" in str(held.value)
    async with other.turn(exclusive=True, wait=0) as turn:
        assert await turn.entries() == ["a"]
        turn.append("b")
    assert await session.entries() == ["a", "b"]


async def test_a_first_exclusive_turn_is_a_read_and_two_commits(backend: Backend) -> None:
    recorder = Recorder(backend)
    await Store(recorder).session("s").append(0)
    recorder.reset()
    async with Store(recorder).session("s").turn(exclusive=True) as turn:
        turn.append(1)
    assert (recorder.reads, len(recorder.commits)) == (1, 2)


async def test_a_warm_exclusive_turn_is_two_commits_with_all_it_reads(
    backend: Backend,
) -> None:
    recorder = Recorder(backend)
    store = Store(recorder)
    session = store.session("s")
    for n in range(20):
        await session.append(n)
    async with session.turn(exclusive=True) as turn:
        turn.append(20)
    await store.session("s").append(21)
    recorder.reset()
    async with session.turn(exclusive=True) as turn:
        assert await turn.entries(last=2) == [20, 21]
        turn.append(22)
    assert (recorder.reads, len(recorder.commits)) == (0, 2)
    assert recorder.commits[1].deletes == ()
    head = await session.head()
    assert head is not None
    assert head.last_delete == 0


async def test_who_takes_no_lease_pays_nothing_for_it(backend: Backend) -> None:
    recorder = Recorder(backend)
    session = Store(recorder).session("s")
    await session.append(0)
    async with session.turn() as turn:
        assert turn.lease is None
        turn.append(1)
    assert (recorder.reads, len(recorder.commits)) == (1, 2)
    snapshot = await backend.read(session.key, Get(LEASE), Get(LEASE_QUEUE))
    assert not any(rows.items for rows in snapshot.rows)


async def test_what_others_append_meanwhile_neither_stops_the_turn_nor_is_lost(
    session: Session, other: Session
) -> None:
    await session.append("begin")
    async with session.turn(exclusive=True) as turn:
        assert await turn.entries() == ["begin"]
        turn.append("reply")
        await other.append("webhook")
        assert await turn.entries() == ["begin", "webhook"]  # a later read shows it
    assert await other.entries() == ["begin", "webhook", "reply"]


async def test_a_cell_that_is_read_and_written_must_not_have_changed(
    session: Session, other: Session
) -> None:
    await other.cells.put("n", 1)
    with pytest.raises(Conflict) as conflict:
        async with session.turn(exclusive=True) as turn:
            turn.cells["n"] = await turn.cells.get("n") + 1
            await other.cells.put("n", 10)
            assert await turn.read(Cells()) != ({},)  # seen too late: the sum is made
            turn.append("lost")
    assert not isinstance(conflict.value, LeaseLost)
    assert await other.entries() == []
    assert await other.cells.get("n") == 10
    async with other.turn(exclusive=True) as turn:  # the lease was given back at once
        turn.cells["n"] = await turn.cells.get("n") + 1
    assert await other.cells.get("n") == 11


async def test_a_cell_that_was_not_there_must_not_have_come(
    session: Session, other: Session
) -> None:
    for find in (Cells("task/"), Cells()):
        name = f"task/{id(find)}"
        with pytest.raises(Conflict):
            async with session.turn(exclusive=True) as turn:
                (tasks,) = await turn.read(find)
                assert name not in tasks
                turn.cells[name] = "mine"
                await other.cells.put(name, "theirs")
        assert await other.cells.get(name) == "theirs"
    with pytest.raises(Conflict):
        async with session.turn(exclusive=True) as turn:
            assert await turn.cells.get("absent") is None
            turn.cells["absent"] = "mine"
            await other.cells.put("absent", "theirs")


async def test_cells_that_are_only_read_or_only_written_may_change(
    session: Session, other: Session
) -> None:
    async with session.turn(exclusive=True) as turn:
        assert await turn.cells.get("config") is None
        turn.cells["status"] = "mine"
        await other.cells.update({"config": 1, "status": "theirs"})
    assert await other.cells.scan() == {"config": 1, "status": "mine"}


async def test_a_cell_that_has_expired_counts_as_it_is_stored(
    session: Session, clock: TestClock
) -> None:
    await session.cells.put("n", 1, expires_in=1)
    clock.advance(1000)
    async with session.turn(exclusive=True) as turn:
        assert await turn.cells.get("n") is None
        turn.cells["n"] = 2
    assert await session.cells.get("n") == 2


async def test_a_cut_takes_what_others_append_behind_it(
    session: Session, other: Session
) -> None:
    first = await session.append("a")
    await session.append("b")
    async with session.turn(exclusive=True) as turn:
        await turn.truncate(after=first)
        await other.append("c")
        turn.append("d")
    assert await other.entries() == ["a", "d"]


async def test_a_block_that_raises_writes_nothing_and_gives_the_lease_back(
    session: Session, other: Session
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with session.turn(exclusive=True) as turn:
            turn.append("lost")
            raise ZeroDivisionError
    async with other.turn(exclusive=True) as turn:
        assert await turn.entries() == []


async def test_a_turn_that_writes_nothing_gives_the_lease_back_and_leaves_an_empty_session(
    session: Session, other: Session
) -> None:
    async with session.turn(exclusive=True) as turn:
        assert turn.head is not None
        assert turn.head.version == 1
    assert turn.committed is None
    async with other.turn(exclusive=True) as turn:
        assert await turn.entries() == []


async def test_fences_grow_from_lease_to_lease(session: Session, other: Session) -> None:
    fences: list[int] = []
    for handle in (session, session, other, session):
        async with handle.turn(exclusive=True) as turn:
            assert turn.lease is not None
            fences.append(turn.lease.fence)
    assert fences == sorted(set(fences))


async def test_who_was_taken_over_can_neither_read_write_nor_give_back(
    session: Session, other: Session, clock: TestClock
) -> None:
    turn = session.turn(exclusive=True)
    await turn.__aenter__()
    turn.append("stale")
    clock.advance(LONG)
    async with other.turn(exclusive=True, lease=100) as successor:
        with pytest.raises(LeaseLost, match="nothing was written"):
            await turn.__aexit__(None, None, None)
        with pytest.raises(LeaseHeld):  # still the successor's
            await session.turn(exclusive=True).__aenter__()
        successor.append("fresh")
    assert await session.entries() == ["fresh"]


async def test_who_was_taken_over_learns_it_when_it_renews(
    session: Session, other: Session, clock: TestClock
) -> None:
    with pytest.raises(LeaseLost):
        async with session.turn(exclusive=True, lease=0.06) as turn:
            assert turn.lease is not None
            clock.advance(LONG)
            async with other.turn(exclusive=True) as successor, asyncio.timeout(10):
                while not turn.lease.lost:  # noqa: ASYNC110  (the renewal runs by itself)
                    await asyncio.sleep(0.005)
                successor.append("fresh")
            await turn.entries()
    assert await session.entries() == ["fresh"]


async def test_who_was_taken_over_and_is_done_with_nothing_to_write_is_told(
    session: Session, other: Session, clock: TestClock
) -> None:
    with pytest.raises(LeaseLost):
        async with session.turn(exclusive=True):
            clock.advance(LONG)
            async with other.turn(exclusive=True):
                pass


async def test_a_lease_that_has_lapsed_and_that_nobody_took_is_still_good(
    session: Session, clock: TestClock
) -> None:
    async with session.turn(exclusive=True) as turn:
        clock.advance(LONG)
        turn.append("late")
    assert await session.entries() == ["late"]


async def test_a_lease_is_renewed_for_as_long_as_its_turn_lasts(backend: Backend) -> None:
    recorder = Recorder(backend)
    session = Store(recorder).session("s")
    async with session.turn(exclusive=True, lease=0.06) as turn:
        assert turn.lease is not None
        fence, first = turn.lease.fence, turn.lease.expires_at
        async with asyncio.timeout(10):
            while len(recorder.commits) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        turn.append("done")
        assert turn.lease.fence == fence
        assert turn.lease.expires_at > first
    assert await session.entries() == ["done"]
    commits = len(recorder.commits)
    await asyncio.sleep(0.1)
    assert len(recorder.commits) == commits  # and no longer


async def test_no_task_outlives_its_turn(session: Session) -> None:
    before = asyncio.all_tasks()
    for error in (None, ZeroDivisionError, asyncio.CancelledError):
        try:
            async with session.turn(exclusive=True, lease=0.01):
                await asyncio.sleep(0.02)
                if error is not None:
                    raise error
        except (ZeroDivisionError, asyncio.CancelledError):
            pass
        assert asyncio.all_tasks() == before


async def test_an_exclusive_turn_within_another_is_refused(session: Session) -> None:
    async with session.turn(exclusive=True) as turn:
        with pytest.raises(Unsupported, match="already"):
            await session.turn(exclusive=True, wait=10).__aenter__()
        turn.append("outer")
    async with session.turn(exclusive=True) as turn:
        turn.append("next")
    assert await session.entries() == ["outer", "next"]


@pytest.mark.parametrize("key", [LEASE, LEASE_QUEUE])
async def test_what_is_no_lease_is_not_taken_for_one(session: Session, key: bytes) -> None:
    row = Codec().seal(session.key, {"of": "something else"})
    await session._handle.commit(puts=((key, row),))
    with pytest.raises(Corrupt):
        await session.turn(exclusive=True).__aenter__()


async def test_tasks_take_turns_with_one_handle_or_several(
    session: Session, other: Session
) -> None:
    """On a session that is not there when they begin."""

    async def work(handle: Session) -> None:
        for _ in range(5):
            async with handle.turn(exclusive=True, wait=10) as turn:
                entries = await turn.entries()
                await asyncio.sleep(0)
                turn.append(len(entries))

    await asyncio.gather(*(work(handle) for handle in (session, session, other, other)))
    assert await session.entries() == list(range(20))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 100_000, "30", None])
def test_impossible_leases_are_refused(session: Session, seconds: float) -> None:
    with pytest.raises(InvalidKey, match="lease"):
        session.turn(exclusive=True, lease=seconds)


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), "1"])
def test_impossible_waits_are_refused(session: Session, seconds: float) -> None:
    with pytest.raises(InvalidKey, match="wait"):
        session.turn(exclusive=True, wait=seconds)


async def test_a_session_deleted_meanwhile_is_not_brought_back(
    session: Session, other: Session
) -> None:
    with pytest.raises(SessionDeleted):
        async with session.turn(exclusive=True) as turn:
            turn.append("late")
            await other.delete()
    assert await other.head() is None


async def test_what_was_left_behind_in_another_life_is_not_taken_for_this_ones(
    session: Session, store: Store
) -> None:
    """The item of the lease has the same version in both, and is free in the first only."""
    async with session.turn(exclusive=True):
        pass
    other = store.session("s")
    assert await other.head() is not None
    await other.delete()
    await other.append("a new one")
    async with other.turn(exclusive=True):
        assert await session.entries() == ["a new one"]
        with pytest.raises(LeaseHeld):
            await session.turn(exclusive=True).__aenter__()


async def test_a_successor_made_meanwhile_is_not_written_to(
    session: Session, store: Store
) -> None:
    """Its lease may have the same version by chance."""
    with pytest.raises(SessionDeleted):
        async with session.turn(exclusive=True) as turn:
            await store.session("s").delete()
            async with store.session("s").turn(exclusive=True) as successor:
                assert turn.lease is not None
                assert successor.lease is not None
                assert successor.lease.fence == turn.lease.fence
                await session.entries()  # shows this handle the successor
                with pytest.raises(SessionDeleted):
                    await turn.entries()
                successor.append("fresh")
            turn.append("late")
    assert await session.entries() == ["fresh"]
