"""Exclusive turns on every backend: by its clock, its conditions and its wake-ups."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from perdure import LeaseHeld, LeaseLost, Session, SessionDeleted, Store
from perdure.testing import Harness
from perdure.testing.faults import LoseReplies

LEASE = 0.2


@pytest.fixture
async def theirs(harness: Harness, any_store: Store) -> AsyncGenerator[Session, None]:
    """The session as another client has it."""
    if not harness.shared:
        pytest.skip("has one client only")
    backend = await harness.open()
    yield Store(backend, tenant=any_store.session("s").key.tenant).session("s")
    await backend.aclose()


async def count(session: Session, times: int) -> None:
    for _ in range(times):
        async with session.turn(exclusive=True, wait=30) as turn:
            n = await turn.cells.get("n", 0)
            turn.append(n)
            turn.cells["n"] = n + 1


async def test_clients_take_turns(any_store: Store, theirs: Session) -> None:
    await asyncio.gather(
        count(any_store.session("s"), 4), count(any_store.session("s"), 4), count(theirs, 4)
    )
    assert await theirs.entries() == list(range(12))


async def test_a_waiter_is_let_in_when_the_holder_is_done(
    any_store: Store, theirs: Session
) -> None:
    async with any_store.session("s").turn(exclusive=True) as turn:
        with pytest.raises(LeaseHeld):
            await theirs.turn(exclusive=True).__aenter__()
        waiting = asyncio.create_task(count(theirs, 1))
        await asyncio.sleep(0.3)
        turn.cells["n"] = 5
        assert not waiting.done()
    done = time.monotonic()
    await waiting
    assert time.monotonic() - done < 5
    assert await theirs.entries() == [5]


async def test_a_holder_that_has_died_is_taken_over_from_and_cannot_come_back(
    any_store: Store, theirs: Session, harness: Harness
) -> None:
    mine = any_store.session("s")
    await mine.append("begin")
    stale = mine.turn(exclusive=True, lease=LEASE)
    await asyncio.to_thread(_begin_and_die, harness, mine)
    capabilities = any_store._client.backend.capabilities
    await harness.advance(round(LEASE * 1000) + capabilities.clock_error)
    async with theirs.turn(exclusive=True, wait=10) as turn:
        turn.append("after")
    async with stale:
        stale.append("later")
    assert await mine.entries() == ["begin", "after", "later"]


def _begin_and_die(harness: Harness, session: Session) -> None:
    """Take a lease, in an event loop that ends before the turn does."""

    async def begin() -> None:
        backend = await harness.open()
        doomed = Store(backend, tenant=session.key.tenant).session("s")
        await doomed.turn(exclusive=True, lease=LEASE).__aenter__()
        await backend.aclose()

    asyncio.run(begin())


async def test_who_was_taken_over_can_neither_commit_nor_give_back(
    any_store: Store, theirs: Session, harness: Harness
) -> None:
    mine = any_store.session("s")
    margin = any_store._client.backend.capabilities.clock_error
    with pytest.raises(LeaseLost):
        async with mine.turn(exclusive=True, lease=60) as turn:
            turn.append("stale")
            if harness.patience < 60_000 + margin:
                pytest.skip("its clock cannot be moved so far")
            await harness.advance(60_000 + margin)
            async with theirs.turn(exclusive=True) as successor:
                successor.append("fresh")
    assert await mine.entries() == ["fresh"]


async def test_a_cell_is_protected_and_appends_of_others_are_not_in_the_way(
    any_store: Store, theirs: Session
) -> None:
    mine = any_store.session("s")
    async with mine.turn(exclusive=True) as turn:
        assert await turn.cells.get("n") is None
        await theirs.append("webhook")
        turn.append("reply")
        turn.cells["n"] = 1
    assert await mine.entries() == ["webhook", "reply"]
    assert await theirs.cells.get("n") == 1


async def test_a_lost_reply_is_made_good(harness: Harness) -> None:
    backend = await harness.open()
    try:
        for number in range(4):
            faulty = LoseReplies(backend, {number})
            session = Store(faulty, tenant=f"lost-{number}-{id(faulty)}").session("s")
            await count(session, 2)
            assert await session.entries() == [0, 1]
            assert faulty.faults == 1
    finally:
        await backend.aclose()


async def test_a_deleted_session_ends_the_turn(any_store: Store, theirs: Session) -> None:
    with pytest.raises(SessionDeleted):
        async with any_store.session("s").turn(exclusive=True) as turn:
            turn.append("late")
            assert await theirs.head() is not None
            await theirs.delete()
    assert await theirs.head() is None
