"""Exclusive turns when replies are lost, requests dropped, and tasks cancelled anywhere."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

import pytest

from perdure import Conflict, LeaseHeld, OutcomeUnknown, Session, Store, Unavailable
from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.testing import TestClock
from perdure.testing.faults import ALWAYS, Delay, DropRequests, Faulty, LoseReplies
from perdure.types import Commit, Committed, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.virtual_time import VirtualTimeLoop
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


def in_virtual_time(test: Callable[[Backend, TestClock], Coroutine[Any, Any, None]]) -> None:
    """Run a test that is about deadlines: nothing is late in it but what is to be."""
    clock = TestClock()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(test(MemoryBackend(clock=clock), clock))


@pytest.mark.parametrize("fault", [LoseReplies, DropRequests])
def test_renewals_may_go_wrong(fault: type[Faulty]) -> None:
    """Again and again, with so little time to repeat them that their outcome stays unknown."""

    async def test(backend: Backend, clock: TestClock) -> None:
        faulty = fault(backend, range(1, 7))
        session = Store(faulty, deadline=0.02).session("s")
        async with session.turn(exclusive=True, lease=0.3) as turn:
            while faulty.calls < 8:  # noqa: ASYNC110  (renewed in the background)
                await asyncio.sleep(0.1)
            turn.append("done")
        assert faulty.faults == 6
        assert await session.entries() == ["done"]

    in_virtual_time(test)


def test_a_renewal_whose_reply_is_still_out_does_not_stop_the_commit() -> None:
    """The commit is refused, as the lease is of another version, and sent again on that."""

    async def test(backend: Backend, clock: TestClock) -> None:
        slow = Delay(backend, {1}, after=1)
        session = Store(slow).session("s")
        async with session.turn(exclusive=True, lease=0.3) as turn:
            await asyncio.sleep(0.5)  # the renewal was sent, and is made
            turn.append("done")
        assert slow.faults == 1
        assert slow.calls == 4
        assert await session.entries() == ["done"]

    in_virtual_time(test)


def test_a_lease_whose_reply_never_came_is_found_to_be_there() -> None:
    async def test(backend: Backend, clock: TestClock) -> None:
        slow = Delay(backend, {0}, after=10)
        async with Store(slow, deadline=1).session("s").turn(exclusive=True) as turn:
            assert turn.lease is not None
            assert turn.lease.fence == 1
            turn.append("done")
        assert slow.calls == 2
        assert await Store(backend).session("s").entries() == ["done"]

    in_virtual_time(test)


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
def test_a_commit_of_unknown_outcome_can_be_settled_while_nobody_took_over(
    arrive: bool,
) -> None:
    async def test(backend: Backend, clock: TestClock) -> None:
        with pytest.raises(OutcomeUnknown) as unknown:
            await add(Store(LoseTurns(backend, arrive=arrive), deadline=1).session("s"))
        assert unknown.value.commit is not None
        session = Store(backend).session("s")
        await session.resend(unknown.value.commit)
        await session.resend(unknown.value.commit)
        assert await session.entries() == [0]
        await add(session)
        assert await session.entries() == [0, 1]

    in_virtual_time(test)


def test_a_commit_of_unknown_outcome_is_refused_once_another_took_over() -> None:
    async def test(backend: Backend, clock: TestClock) -> None:
        with pytest.raises(OutcomeUnknown) as unknown:
            await add(Store(LoseTurns(backend, arrive=False), deadline=1).session("s"))
        clock.advance(60_000)
        session = Store(backend).session("s")
        await add(session)
        assert unknown.value.commit is not None
        with pytest.raises(Conflict):
            await session.resend(unknown.value.commit)
        assert await session.entries() == [0]

    in_virtual_time(test)


def test_a_backend_that_is_away_is_said_to_be_and_not_the_lease_held() -> None:
    async def test(backend: Backend, clock: TestClock) -> None:
        with pytest.raises(Unavailable):
            await add(Store(DropRequests(backend, ALWAYS), deadline=1).session("s"))
        assert await Store(backend).session("s").head() is None

    in_virtual_time(test)


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
