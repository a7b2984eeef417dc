"""Exclusive turns when replies are lost, requests dropped, and tasks cancelled anywhere."""

import asyncio
from itertools import count

import pytest

from perdure import Conflict, LeaseHeld, OutcomeUnknown, Session, Store, Unavailable
from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.testing import TestClock
from perdure.testing.faults import ALWAYS, Delay, DropRequests, Faulty, LoseReplies
from perdure.types import Commit, Committed, SessionKey

from tests.faults.cancelling import at_await


async def add(session: Session, *, wait: float = 0, lease: float = 30) -> None:
    """A turn that writes a cell and an entry."""
    async with session.turn(exclusive=True, wait=wait, lease=lease) as turn:
        n = await turn.cells.get("n", 0)
        turn.cells["n"] = n + 1
        turn.append(n)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("fault", [LoseReplies, DropRequests])
async def test_any_commit_of_a_turn_may_go_wrong_once(
    backend: Backend, fault: type[Faulty], number: int
) -> None:
    """0 and 2 acquire a lease, cold and warm; 1 and 3 write and give it back."""
    faulty = fault(backend, {number})
    session = Store(faulty).session("s")
    await add(session)
    await add(session)
    assert faulty.faults == 1
    assert await session.entries() == [0, 1]


@pytest.mark.parametrize("fault", [LoseReplies, DropRequests])
async def test_a_renewal_may_go_wrong(backend: Backend, fault: type[Faulty]) -> None:
    """With so little time to send it again that its outcome stays unknown."""
    faulty = fault(backend, {1, 2, 3, 4})
    session = Store(faulty, deadline=0.05).session("s")
    async with session.turn(exclusive=True, lease=0.15) as turn:
        async with asyncio.timeout(10):
            while faulty.calls < 6:  # noqa: ASYNC110  (renewed in the background)
                await asyncio.sleep(0.005)
        turn.append("done")
    assert await session.entries() == ["done"]


async def test_a_renewal_whose_reply_is_lost_does_not_stop_the_commit(
    backend: Backend,
) -> None:
    """The commit is refused, as the lease is another version, and sent again on that."""
    faulty = LoseReplies(backend, {1})
    session = Store(faulty, deadline=0.2).session("s")
    async with session.turn(exclusive=True, lease=0.03) as turn:
        async with asyncio.timeout(10):
            while not faulty.faults:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        turn.append("done")
    assert await session.entries() == ["done"]


async def test_a_lease_whose_reply_never_came_is_found_to_be_there(backend: Backend) -> None:
    faulty = LoseReplies(backend, {0, 1})
    session = Store(faulty, deadline=0.03).session("s")  # too short for a third time
    async with session.turn(exclusive=True) as turn:
        turn.append("done")
    assert await session.entries() == ["done"]


class LoseTurns(Forwarding):
    """Of commits that append nobody learns what became of them; ``arrive``: they were made."""

    def __init__(self, backend: Backend, *, arrive: bool) -> None:
        super().__init__(backend)
        self._arrive = arrive

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if not commit.appends:
            return await super().commit(key, commit)
        if self._arrive:
            await super().commit(key, commit)
        raise OutcomeUnknown("the reply was lost, on purpose", commit=commit)


@pytest.mark.parametrize("arrive", [True, False])
async def test_a_commit_of_unknown_outcome_can_be_settled_while_nobody_took_over(
    backend: Backend, arrive: bool
) -> None:
    with pytest.raises(OutcomeUnknown) as unknown:
        await add(Store(LoseTurns(backend, arrive=arrive), deadline=0.05).session("s"))
    assert unknown.value.commit is not None
    session = Store(backend).session("s")
    await session.resend(unknown.value.commit)
    await session.resend(unknown.value.commit)
    assert await session.entries() == [0]
    await add(session)
    assert await session.entries() == [0, 1]


async def test_a_commit_of_unknown_outcome_is_refused_once_another_took_over(
    backend: Backend, clock: TestClock
) -> None:
    with pytest.raises(OutcomeUnknown) as unknown:
        await add(Store(LoseTurns(backend, arrive=False), deadline=0.05).session("s"))
    clock.advance(60_000)
    session = Store(backend).session("s")
    await add(session)
    assert unknown.value.commit is not None
    with pytest.raises(Conflict):
        await session.resend(unknown.value.commit)
    assert await session.entries() == [0]


async def test_a_backend_that_is_away_is_said_to_be_and_not_the_lease_held(
    backend: Backend,
) -> None:
    session = Store(DropRequests(backend, ALWAYS), deadline=0.05).session("s")
    with pytest.raises(Unavailable):
        await add(session)
    assert await Store(backend).session("s").head() is None


async def test_a_turn_cancelled_anywhere_leaves_the_session_to_others(
    backend: Backend,
) -> None:
    """While it acquires, works, commits: whole or not at all, and the next one is let in."""
    store = Store(Delay(backend, before=0.001, after=0.001))
    applied = number = 0
    for number in count():
        if await at_await(add(store.session("s")), number):
            break
        async with asyncio.timeout(5):
            await add(store.session("s"), wait=5)
        entries = await store.session("s").entries()
        assert entries == list(range(len(entries)))
        assert len(entries) in (number + 1 + applied, number + 2 + applied)
        applied += len(entries) == number + 2 + applied
    assert number > 3
    assert len(asyncio.all_tasks()) == 1


async def test_a_waiter_cancelled_anywhere_leaves_no_ticket(backend: Backend) -> None:
    store = Store(Delay(backend, before=0.001, after=0.001))

    async def wait() -> None:
        with pytest.raises(LeaseHeld):
            await store.session("s").turn(exclusive=True, wait=0.05).__aenter__()

    number = 0
    for number in count():
        async with store.session("s").turn(exclusive=True):
            ended = await at_await(wait(), number)
        began = asyncio.get_running_loop().time()
        await add(store.session("s"), wait=5)
        assert asyncio.get_running_loop().time() - began < 1  # nobody stands before it
        if ended:
            break
    assert number >= 3
