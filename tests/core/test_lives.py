"""What was meant for one life of a session never reaches the next, whatever is retried."""

import msgspec
import pytest

from perdure import OutcomeUnknown, SessionDeleted, Store
from perdure.backend import REMEMBERED_COMMITS, Backend
from perdure.testing import TestClock
from perdure.testing.faults import DropRequests, Forwarding
from perdure.types import Commit, Committed, SessionKey

from tests.core.wrappers import Recorder


async def test_a_lost_request_for_a_forgotten_life_is_not_sent_to_the_next(
    backend: Backend, clock: TestClock
) -> None:
    class ReplacedMeanwhile(Forwarding):
        sent = 0

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            self.sent += 1
            if self.sent > 1:
                return await super().commit(key, commit)
            session = Store(self.backend).session(key.id)
            for n in range(3 * REMEMBERED_COMMITS):
                await session.append(n)
            await session.delete()
            await Store(self.backend).session(key.id).append("successor")
            clock.advance(100_000)
            raise OutcomeUnknown("the request was lost, on purpose", commit=commit)

    await Store(backend).session("s").append("a")
    session = Store(ReplacedMeanwhile(backend), deadline=2).session("s")
    await session.entries()
    with pytest.raises((SessionDeleted, OutcomeUnknown)):
        await session.append("for the former one only")
    assert await Store(backend).session("s").entries() == ["successor"]


async def test_a_clock_set_back_makes_no_commit_count_twice(
    backend: Backend, clock: TestClock
) -> None:
    """A sender that was told a later time than the backend's own now proves nothing."""
    recorder = Recorder(backend)
    store = Store(recorder)
    await store.session("s").append("a")
    clock.now -= 3_600_000
    await store.session("s").cells.put("x", 1)
    commit = msgspec.structs.replace(
        recorder.commits[-1], seen=clock.now + 3_600_000, base=0, incarnation=None
    )
    for n in range(3 * REMEMBERED_COMMITS):
        await store.session("s").append(n)
    with pytest.raises(OutcomeUnknown):
        await backend.commit(
            SessionKey("default", "session", "s"), msgspec.structs.replace(commit, resend=True)
        )


async def test_a_log_shorter_than_asked_for_is_served_from_the_cache(backend: Backend) -> None:
    recorder = Recorder(backend)
    await Store(backend).session("s").append(1, 2, 3)
    session = Store(recorder).session("s")
    for _ in range(3):
        assert await session.entries(last=20) == [1, 2, 3]
    assert recorder.items_read == 1


async def test_the_earlier_of_two_cuts_in_a_turn_counts(store: Store) -> None:
    session = store.session("s")
    await session.append(*range(6))
    positions = (await session.entries()).positions
    async with session.turn() as turn:
        await turn.truncate(after=positions[1])
        await turn.truncate(after=positions[4])
        turn.append("new")
    assert await session.entries() == [0, 1, "new"]


async def test_a_fork_onto_a_name_with_a_long_past_survives_a_lost_request(
    backend: Backend, clock: TestClock
) -> None:
    former = Store(backend).session("copy")
    for n in range(3 * REMEMBERED_COMMITS):
        await former.append(n)
    clock.advance(10_000)
    await former.delete()
    clock.advance(10_000)
    await Store(backend).session("s").append("a")
    store = Store(DropRequests(backend, on={0}, known=False), deadline=3)
    copy = await store.session("s").fork("copy")
    assert await copy.entries() == ["a"]
