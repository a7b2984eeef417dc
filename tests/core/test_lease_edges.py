"""Exclusive turns: what a handle remembers of its last one, and who leaves while taking one."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from perdure import LeaseHeld, OutcomeUnknown, Session, Store
from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.layout import LEASE
from perdure.testing import TestClock
from perdure.types import Commit, Committed, SessionKey

from tests.core.test_lease_queue import queue, until, waiting


async def test_who_gives_it_back_and_wants_it_again_stands_behind_those_who_wait(
    store: Store, backend: Backend
) -> None:
    session = store.session("s")

    async def twice() -> None:
        for number in (0, 2):
            async with session.turn(exclusive=True, wait=20) as turn:
                turn.append(number)

    async with store.session("s").turn(exclusive=True):
        first = asyncio.create_task(twice())
        await until(lambda: _waits(backend, session))
        second = await waiting(backend, store.session("s"), 1, 5)
    await asyncio.gather(first, second)
    assert await session.entries() == [0, 1, 2]


async def test_an_entry_that_others_append_while_the_lease_is_taken_shows(
    backend: Backend, clock: TestClock
) -> None:
    """And goes on to show: what the taking commit returned does not count as later than it is,
    though the session's life had to be extended after it."""

    class Between(Forwarding):
        """Something happens before the taking of a lease is acknowledged."""

        then: Callable[[], Awaitable[object]] | None = None

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            result = await super().commit(key, commit)
            if self.then is not None and any(put[0] == LEASE for put in commit.puts):
                then, self.then = self.then, None
                await then()
            return result

    line = Between(backend)
    session = Store(line, idle_expiry=100).session("s")
    await session.append("a")
    assert await session.entries() == ["a"]
    clock.advance(90_000)
    line.then = lambda: Store(backend).session("s").append("b")
    async with session.turn(exclusive=True) as turn:
        assert await turn.entries() == ["a", "b"]
    assert await session.entries() == ["a", "b"]


async def test_a_lease_is_kept_for_a_commit_that_may_be_resent(backend: Backend) -> None:
    class Losing(Forwarding):
        """Drops what appends, and does not say so."""

        losing = True

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if self.losing and commit.appends:
                raise OutcomeUnknown("dropped, on purpose", commit=commit)
            return await super().commit(key, commit)

    line = Losing(backend)
    session = Store(line, deadline=0.2).session("s")
    with pytest.raises(OutcomeUnknown) as unknown:
        async with session.turn(exclusive=True) as turn:
            turn.append("a")
    line.losing = False
    with pytest.raises(LeaseHeld):
        await session.turn(exclusive=True).__aenter__()
    assert unknown.value.commit is not None
    await session.resend(unknown.value.commit)
    async with session.turn(exclusive=True) as turn:
        turn.append("b")
    assert await session.entries() == ["a", "b"]


async def test_who_is_cancelled_twice_leaves_no_error_that_nobody_hears_of(
    store: Store, backend: Backend
) -> None:
    class Slow(Forwarding):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            began.set()
            try:
                await asyncio.sleep(0.02)
                return await super().commit(key, commit)
            finally:
                ended.set()

    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: unheard.append(what))
    began, ended = asyncio.Event(), asyncio.Event()
    session = Store(Slow(backend)).session("s")
    async with session.turn(exclusive=True):
        pass
    async with store.session("s").turn(exclusive=True):
        began.clear()
        ended.clear()
        entering = asyncio.create_task(session.turn(exclusive=True, wait=5).__aenter__())
        await began.wait()
        entering.cancel()
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait((entering,))
        await ended.wait()
    await until(_alone)
    assert entering.cancelled()
    del entering
    gc.collect()
    assert unheard == []


async def _waits(backend: Backend, session: Session) -> bool:
    return len(await queue(backend, session.key)) == 1


async def _alone() -> bool:
    """Whether no task is left but that of the test."""
    return len(asyncio.all_tasks()) == 1
