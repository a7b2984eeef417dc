"""Waiting for an exclusive turn: first come, first served; nobody waits for the dead."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from perdure import LeaseHeld, LeaseLost, Session, SessionDeleted, Store
from perdure.backend import Backend
from perdure.codec import Codec
from perdure.forwarding import Forwarding
from perdure.layout import LEASE_QUEUE
from perdure.lease_queue import Ticket
from perdure.testing import TestClock
from perdure.types import Commit, Committed, Get, SessionKey

from tests.core.wrappers import Recorder


async def queue(backend: Backend, key: SessionKey) -> list[Ticket]:
    """The tickets that are stored."""
    snapshot = await backend.read(key, Get(LEASE_QUEUE))
    found = snapshot.rows[0].items
    return Codec().open(key, found[0], list[Ticket]) if found else []


async def stand(session: Session, until: int) -> None:
    """Put in a ticket that nobody takes care of, as that of a process that was killed."""
    row = Codec().seal(session.key, [Ticket(b"dead".ljust(16), until)], path="queue")
    await session._handle.commit(puts=((LEASE_QUEUE, row),))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110  (of the stored state)
            await asyncio.sleep(0.002)


async def waiting(
    backend: Backend, session: Session, number: int, seconds: float = 20
) -> asyncio.Task[None]:
    """A task that appends its number in an exclusive turn for which it waits already."""

    async def work() -> None:
        async with session.turn(exclusive=True, wait=seconds) as turn:
            turn.append(number)

    async def stands() -> bool:
        return task.done() or len(await queue(backend, session.key)) > before

    before = len(await queue(backend, session.key))
    task = asyncio.create_task(work())
    await until(stands)
    return task


async def test_those_who_wait_get_it_in_the_order_in_which_they_came(
    store: Store, backend: Backend
) -> None:
    session = store.session("s")
    async with session.turn(exclusive=True):
        tasks = [await waiting(backend, store.session("s"), n) for n in range(5)]
    await asyncio.gather(*tasks)
    assert await session.entries() == [0, 1, 2, 3, 4]
    assert await queue(backend, session.key) == []


async def test_who_is_about_to_take_it_does_not_overtake_who_came_meanwhile(
    backend: Backend,
) -> None:
    class Overtaken(Forwarding):
        """A waiter comes between the first look and the commit that takes the lease."""

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if not await queue(backend, key):
                await stand(Store(backend).session("s"), 1 << 60)
            return await super().commit(key, commit)

    with pytest.raises(LeaseHeld) as held:
        await Store(Overtaken(backend)).session("s").turn(exclusive=True).__aenter__()
    assert held.value.waiting == 1
    assert len(await queue(backend, SessionKey("default", "session", "s"))) == 1


async def test_a_wait_ends_when_its_time_is_up_and_leaves_nothing_behind(
    store: Store, backend: Backend
) -> None:
    session = store.session("s")
    async with session.turn(exclusive=True):
        began = time.monotonic()
        with pytest.raises(LeaseHeld):
            await store.session("s").turn(exclusive=True, wait=0.1).__aenter__()
        assert 0.1 <= time.monotonic() - began < 1
        assert await queue(backend, session.key) == []


async def test_who_may_wait_for_ever_waits(store: Store, backend: Backend) -> None:
    session = store.session("s")
    async with session.turn(exclusive=True):
        task = await waiting(backend, store.session("s"), 1, float("inf"))
        await asyncio.sleep(0.05)
    await task
    assert await session.entries() == [1]


async def test_a_cancelled_waiter_gives_its_place_away(store: Store, backend: Backend) -> None:
    session = store.session("s")
    async with session.turn(exclusive=True):
        first = await waiting(backend, store.session("s"), 1)
        second = await waiting(backend, store.session("s"), 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert len(await queue(backend, session.key)) == 1
    await second
    assert await session.entries() == [2]


async def test_a_waiter_holds_up_those_behind_it_until_its_ticket_lapses(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    session = store.session("s")
    await stand(session, clock.now + 3000)
    with pytest.raises(LeaseHeld) as held:
        await session.turn(exclusive=True).__aenter__()
    assert (held.value.waiting, held.value.expires_at) == (1, None)
    clock.advance(2999)
    with pytest.raises(LeaseHeld):
        await session.turn(exclusive=True, wait=0.001).__aenter__()
    clock.advance(1)
    async with session.turn(exclusive=True):
        pass
    assert await queue(backend, session.key) == []


async def test_a_waiter_keeps_its_ticket_alive_and_its_place(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    """Time passes in steps of less than a ticket, in all far more than one."""
    session = store.session("s")
    async with session.turn(exclusive=True, lease=1000):

        async def work(number: int) -> None:
            handle = store.session("s")
            async with handle.turn(exclusive=True, wait=20, lease=0.06) as turn:
                turn.append(number)

        async def renewed() -> bool:
            tickets = await queue(backend, session.key)
            return len(tickets) == 2 and all(t.until > clock.now + 55 for t in tickets)

        tasks = [asyncio.create_task(work(1))]

        async def one_waits() -> bool:
            return len(await queue(backend, session.key)) == 1

        await until(one_waits)
        tasks.append(asyncio.create_task(work(2)))
        for _ in range(5):
            await until(renewed)
            clock.advance(30)
    await asyncio.gather(*tasks)
    assert await session.entries() == [1, 2]


async def test_who_waits_takes_over_from_a_holder_that_has_died(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    """It looks again when the lease lapses: nothing happens then that could wake it."""
    session = store.session("s")

    async def take() -> None:
        await store.session("s").turn(exclusive=True, lease=0.2).__aenter__()

    await asyncio.to_thread(asyncio.run, take())  # nothing of that loop lives on
    task = await waiting(backend, session, 1)
    clock.advance(199)
    await asyncio.sleep(0.3)
    assert not task.done()
    clock.advance(1)
    async with asyncio.timeout(2):
        await task
    assert await session.entries() == [1]


async def test_a_waiter_is_told_that_the_session_was_deleted(
    store: Store, backend: Backend
) -> None:
    """It does not bring it back, nor go on with a successor."""
    session = store.session("s")
    with pytest.raises(SessionDeleted):
        async with session.turn(exclusive=True):
            tasks = [await waiting(backend, store.session("s"), n) for n in range(2)]
            await store.session("s").delete()
            for task in tasks:
                with pytest.raises(SessionDeleted):
                    await task
    assert await session.head() is None


async def test_a_handle_that_finds_its_session_gone_goes_on_with_what_is_there(
    store: Store,
) -> None:
    """As every turn does: it begins by looking."""
    session = store.session("s")
    async with session.turn(exclusive=True) as turn:
        turn.append("old")
    await store.session("s").delete()
    async with session.turn(exclusive=True) as turn:
        assert await turn.entries() == []
        turn.append("new")
    assert await session.entries() == ["new"]


async def test_waiting_costs_little(backend: Backend) -> None:
    """One read to see, one commit for the ticket, then silence until something happens."""
    recorder = Recorder(backend)
    store = Store(recorder)
    session = store.session("s")
    async with session.turn(exclusive=True):
        recorder.reset()
        task = await waiting(backend, store.session("s"), 1)
        await asyncio.sleep(0.1)
        assert (recorder.reads, len(recorder.commits)) == (1, 1)
        recorder.reset()
    await task
    assert (recorder.reads, len(recorder.commits)) == (1, 3)  # freed, taken, done


async def test_where_clocks_may_be_wrong_a_takeover_waits_for_so_much_longer(
    backend: Backend, clock: TestClock
) -> None:
    inexact = Forwarding(backend)
    inexact.capabilities = msgspec.structs.replace(backend.capabilities, clock_error=500)
    store = Store(inexact)
    stale = store.session("s").turn(exclusive=True, lease=1)
    await stale.__aenter__()
    clock.advance(1499)
    with pytest.raises(LeaseHeld):
        await store.session("s").turn(exclusive=True).__aenter__()
    clock.advance(1)
    async with store.session("s").turn(exclusive=True):
        with pytest.raises(LeaseLost):
            await stale.__aexit__(None, None, None)
