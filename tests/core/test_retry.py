"""Lost replies, lost requests, deadlines: exactly one application, or a clear word."""

import asyncio
import time

import pytest

from perdure import (
    Conflict,
    Outcome,
    OutcomeUnknown,
    SessionDeleted,
    Store,
    Unavailable,
)
from perdure.backend import REMEMBERED_COMMITS, Backend
from perdure.testing import TestClock
from perdure.testing.faults import ALWAYS, Delay, DropRequests, Forwarding, LoseReplies
from perdure.types import At, Commit, Committed, Expect, Read, SessionKey, Snapshot


class OthersAfter(Forwarding):
    """Loses the first reply, and lets others commit before the resend."""

    def __init__(self, backend: Backend, others: int, *, applied: bool = True) -> None:
        super().__init__(backend)
        self.others = others
        self.applied = applied
        self.sent = 0

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.sent += 1
        if self.sent > 1:
            return await super().commit(key, commit)
        if self.applied:
            await super().commit(key, commit)
        session = Store(self.backend).session(key.id)
        for n in range(self.others):
            await session.append({"other": n})
        raise OutcomeUnknown("the reply was lost, on purpose", commit=commit)


async def test_every_reply_lost_once_still_appends_once(backend: Backend) -> None:
    lossy = LoseReplies(backend, on=range(0, 1000, 2))
    session = Store(lossy).session("s")
    for n in range(30):
        await session.append(n)
    assert lossy.faults == 30
    assert await session.entries() == list(range(30))
    assert await Store(backend).session("s").entries() == list(range(30))


async def test_requests_that_never_arrive_are_sent_again(backend: Backend) -> None:
    for known in (True, False):
        lossy = DropRequests(backend, on=range(0, 1000, 2), known=known)
        session = Store(lossy).session(f"s{known}")
        for n in range(10):
            await session.append(n)
        assert await Store(backend).session(f"s{known}").entries() == list(range(10))


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("others", [0, 60, 3 * REMEMBERED_COMMITS])
async def test_a_lost_reply_is_settled_whatever_others_did_meanwhile(
    backend: Backend, clock: TestClock, others: int, applied: bool, warm: bool
) -> None:
    before = 3 * REMEMBERED_COMMITS if warm else 5
    filler = Store(backend).session("s")
    for n in range(before):
        await filler.append({"before": n})
    store = Store(OthersAfter(backend, others, applied=applied), deadline=5)
    session = store.session("s")
    if warm:
        await session.entries(last=1)
    else:
        clock.advance(10_000)  # the log speaks for a session older than the sending
    await session.append("mine")
    entries = await Store(backend).session("s").entries()
    assert entries.count("mine") == 1
    assert len(entries) == before + others + 1


async def test_what_the_log_cannot_tell_is_said(backend: Backend) -> None:
    """Forgotten, and of cells alone: there is no row to find the commit in."""
    store = Store(OthersAfter(backend, 3 * REMEMBERED_COMMITS), deadline=5)
    session = store.session("s")
    with pytest.raises(OutcomeUnknown) as caught:
        await session.cells.put("x", 1)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.forgotten


async def test_a_retry_after_a_delete_brings_nothing_back(backend: Backend) -> None:
    class DeletedMeanwhile(OthersAfter):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            try:
                return await super().commit(key, commit)
            except OutcomeUnknown:
                await Store(self.backend).delete(key.id)
                raise

    store = Store(DeletedMeanwhile(backend, 0))
    await store.session("s").append("a")  # applied, then deleted: the append did happen
    assert await Store(backend).session("s").head() is None

    store = Store(DeletedMeanwhile(backend, 0, applied=False))
    session = store.session("t")
    await Store(backend).session("t").append("first")
    await session.entries()
    with pytest.raises(SessionDeleted):
        await session.append("late")
    assert await Store(backend).session("t").head() is None


async def test_a_delete_whose_reply_is_lost_spares_the_successor(backend: Backend) -> None:
    class Successor(LoseReplies):
        async def delete(
            self,
            key: SessionKey,
            *,
            id: bytes,
            expect: Expect | At = Expect.PRESENT,
            incarnation: bytes | None = None,
        ) -> bool:
            try:
                return await super().delete(key, id=id, expect=expect, incarnation=incarnation)
            except OutcomeUnknown:
                await Store(self.backend).session(key.id).append("successor")
                raise

    await Store(backend).session("s").append("a")
    store = Store(Successor(backend, on={0}))
    assert await store.delete("s") is True
    assert await Store(backend).session("s").entries() == ["successor"]


async def test_unavailable_is_not_applied_and_ends_at_the_deadline(backend: Backend) -> None:
    session = Store(DropRequests(backend, on=ALWAYS), deadline=0.2).session("s")
    begun = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await session.append("a")
    assert time.monotonic() - begun < 2
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert await Store(backend).session("s").head() is None


class RefusesThenHangs(Forwarding):
    """Says once why it does not answer, and then nothing more."""

    asked = 0

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self.asked += 1
        if self.asked > 1:
            await asyncio.Event().wait()
        raise Unavailable("no plum here")


async def test_a_hang_at_the_deadline_does_not_hide_what_was_said_before(
    backend: Backend,
) -> None:
    session = Store(RefusesThenHangs(backend), deadline=0.2).session("s")
    with pytest.raises(Unavailable, match="no plum here"):
        await session.head()


async def test_an_unsettled_commit_can_be_resent(backend: Backend) -> None:
    lossy = LoseReplies(backend, on=ALWAYS)
    session = Store(lossy, deadline=0.2).session("s")
    with pytest.raises(OutcomeUnknown) as caught:
        await session.append("a")
    commit = caught.value.commit
    assert commit is not None
    lossy.on = ()
    result = await session.resend(commit)
    assert (result.version, result.replayed) == (1, True)
    assert await session.entries() == ["a"]


async def test_a_backend_that_hangs_is_given_up_in_time(backend: Backend) -> None:
    slow = Delay(backend, on={0, 1}, before=30)
    session = Store(slow, deadline=0.2).session("s")
    begun = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        await session.append("a")
    with pytest.raises(OutcomeUnknown):
        await session.delete()
    assert time.monotonic() - begun < 5
    await session.append("b")
    assert await session.entries() == ["b"]


async def test_a_refusal_whose_reply_was_lost_is_a_refusal(backend: Backend) -> None:
    store = Store(LoseReplies(backend, on={1}))
    await store.session("s").cells.put("x", 1)
    with pytest.raises(Conflict):
        await store.session("s").cells.put("x", 2, expect=0)
    assert await Store(backend).session("s").cells.get("x") == 1


async def test_cancelling_at_any_time_leaves_whole_entries_and_a_usable_store(
    backend: Backend,
) -> None:
    store = Store(backend)
    session = store.session("s")
    acknowledged: list[list[int]] = []

    async def write(n: int) -> None:
        await session.append([n, 0], [n, 1])
        acknowledged.append([n, 0])

    for n in range(60):
        task = asyncio.ensure_future(write(n))
        for _ in range(n % 7):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await session.append("end")
    entries = await Store(backend).session("s").entries()
    assert entries.pop() == "end"
    assert entries[1::2] == [[n, 1] for n, _ in entries[::2]]
    assert all(entries.count(entry) == 1 for entry in acknowledged)
    assert entries == await session.entries(before=(await session.entries()).positions[-1])


class Overloaded(Forwarding):
    """Refuses the first call of each kind, and asks for a while of quiet."""

    QUIET = 0.2

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.refused: dict[str, float] = {}
        self.quiet: dict[str, float] = {}
        """By kind: seconds from the refusal to the next call."""

    def enter(self, kind: str) -> None:
        now = time.monotonic()
        if kind in self.refused:
            self.quiet.setdefault(kind, now - self.refused[kind])
            return
        self.refused[kind] = now
        raise Unavailable("overloaded, on purpose", retry_after=self.QUIET)

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self.enter("read")
        return await super().read(key, *reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.enter("commit")
        return await super().commit(key, commit)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        self.enter("delete")
        return await super().delete(key, id=id, expect=expect, incarnation=incarnation)


async def test_a_backend_that_asks_for_quiet_gets_it(backend: Backend) -> None:
    overloaded = Overloaded(backend)
    session = Store(overloaded).session("s")
    await session.append("one")
    assert await session.entries() == ["one"]
    await session.delete()
    assert overloaded.quiet.keys() == {"read", "commit", "delete"}
    assert all(quiet >= Overloaded.QUIET for quiet in overloaded.quiet.values())


async def test_a_longer_quiet_than_the_deadline_is_not_sat_out(backend: Backend) -> None:
    overloaded = Overloaded(backend)
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await Store(overloaded, deadline=Overloaded.QUIET / 2).session("s").entries()
    assert caught.value.retry_after == Overloaded.QUIET
    assert time.monotonic() - began < Overloaded.QUIET
