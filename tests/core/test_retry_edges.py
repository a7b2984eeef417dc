"""Where it is hard to say what became of a write: said right, or said to be unknown."""

import asyncio
import random
import time

import msgspec
import pytest

from perdure import (
    Conflict,
    Outcome,
    OutcomeUnknown,
    PerdureError,
    SessionDeleted,
    Store,
    StoreClosed,
    TooLarge,
    Unavailable,
)
from perdure.backend import REMEMBERED_COMMITS, TOMBSTONE_MS, Backend
from perdure.testing import TestClock
from perdure.testing.faults import ALWAYS, DropRequests, Forwarding, LoseReplies
from perdure.types import At, Commit, Committed, Expect, Read, SessionKey, Snapshot

from tests.core.wrappers import Narrow, Recorder

MANY = 3 * REMEMBERED_COMMITS
"""So many commits that earlier ones are forgotten."""


def noise(count: int) -> list[str]:
    """Entries of which a few are too much for one commit of 70 000 bytes."""
    return [random.randbytes(30_000).hex() for _ in range(count)]


async def fill(backend: Backend, count: int = MANY) -> None:
    session = Store(backend).session("s")
    for n in range(count):
        await session.append(n)


class OthersFirst(Forwarding):
    """Loses the first reply, or with ``applied=False`` the request, and lets others commit
    so often that the backend has forgotten it; then ``then`` happens to reads."""

    def __init__(self, backend: Backend, *, applied: bool, then: str) -> None:
        super().__init__(backend)
        self.applied = applied
        self.then = then
        self.sent = 0

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.sent += 1
        if self.sent > 1:
            return await super().commit(key, commit)
        if self.applied:
            await super().commit(key, commit)
        await fill(self.backend)
        raise OutcomeUnknown("the reply was lost, on purpose", commit=commit)

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        if self.sent and self.then == "down":
            raise Unavailable("down, on purpose")
        if self.sent and self.then == "hangs":
            await asyncio.sleep(60)
        return await super().read(key, *reads)


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("then", ["down", "hangs"])
async def test_unknown_is_not_called_unapplied_because_a_read_failed(
    backend: Backend, applied: bool, then: str
) -> None:
    await fill(backend)
    session = Store(OthersFirst(backend, applied=applied, then=then), deadline=0.4).session("s")
    await session.head()
    begun = time.monotonic()
    with pytest.raises(OutcomeUnknown) as caught:
        await session.append("mine")
    assert time.monotonic() - begun < 5
    commit = caught.value.commit
    assert commit is not None
    await Store(backend).session("s").resend(commit)
    assert (await Store(backend).session("s").entries()).count("mine") == 1


async def test_a_creation_resent_after_deletion_and_a_successor_is_not_applied_again(
    backend: Backend, clock: TestClock
) -> None:
    """The writer knew no incarnation, so that the commit could create or join any life."""
    lossy = LoseReplies(backend, on=ALWAYS)
    with pytest.raises(OutcomeUnknown) as caught:
        await Store(lossy, deadline=0.1).session("s").append("once")
    assert caught.value.commit is not None
    assert await Store(backend).session("s").entries() == ["once"]
    await Store(backend).delete("s")
    await fill(backend)
    clock.advance(10_000)
    try:
        result = await Store(backend).session("s").resend(caught.value.commit)
    except OutcomeUnknown:
        pass
    else:
        assert (result.replayed, result.version) == (True, 1)
    assert "once" not in await Store(backend).session("s").entries()


@pytest.mark.parametrize("applied", [True, False])
async def test_a_late_resend_is_answered_from_the_tombstone_however_busy_the_successor(
    backend: Backend, clock: TestClock, applied: bool
) -> None:
    fault = LoseReplies(backend) if applied else DropRequests(backend, known=False)
    fault.on = ()
    session = Store(fault, deadline=0.1).session("s")
    await session.append("first")
    fault.on = ALWAYS
    with pytest.raises(OutcomeUnknown) as caught:
        await session.append("late")
    commit = caught.value.commit
    assert commit is not None
    await Store(backend).delete("s")
    await fill(backend)
    clock.advance(TOMBSTONE_MS - 1000)
    await Store(backend).sweep()
    if applied:
        result = await Store(backend).session("s").resend(commit)
        assert (result.replayed, result.version) == (True, 2)
        assert result.incarnation == commit.incarnation
    else:
        with pytest.raises(SessionDeleted):
            await Store(backend).session("s").resend(commit)
    assert await Store(backend).session("s").entries() == list(range(MANY))


async def test_a_retried_delete_spares_a_successor_that_has_committed_often(
    backend: Backend,
) -> None:
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
                await fill(self.backend)
                raise

    await Store(backend).session("s").append("former")
    assert await Store(Successor(backend, on={0})).delete("s") is True
    assert await Store(backend).session("s").entries() == list(range(MANY))


class ClosesAfter(LoseReplies):
    """Loses a reply, and is closed before anybody can ask again."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.refuse_if_closed()
        return await super().commit(key, commit)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        self.refuse_if_closed()
        return await super().delete(key, id=id, expect=expect, incarnation=incarnation)

    def refuse_if_closed(self) -> None:
        if self.faults:
            raise StoreClosed("closed, on purpose")


async def test_closing_does_not_turn_unknown_into_not_applied(backend: Backend) -> None:
    with pytest.raises(PerdureError) as caught:
        await Store(ClosesAfter(backend)).session("s").append("a")
    assert caught.value.outcome is Outcome.UNKNOWN
    assert await Store(backend).session("s").entries() == ["a"]
    with pytest.raises(PerdureError) as caught:
        await Store(ClosesAfter(backend)).delete("s")
    assert caught.value.outcome is Outcome.UNKNOWN
    assert await Store(backend).session("s").head() is None


async def test_a_closed_backend_that_was_asked_for_nothing_yet_is_closed(
    backend: Backend,
) -> None:
    for write in ("append", "delete"):
        closed = ClosesAfter(backend)
        closed.faults = 1
        session = Store(closed).session("s")
        with pytest.raises(StoreClosed):
            await (session.append("a") if write == "append" else session.delete())


class UnknownThenDown(Forwarding):
    """Loses the first reply; afterwards nothing can be reached."""

    calls = 0

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.fail_if_called_before()
        await super().commit(key, commit)
        raise OutcomeUnknown("the reply was lost, on purpose", commit=commit)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        self.fail_if_called_before()
        await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        raise OutcomeUnknown("the reply was lost, on purpose")

    def fail_if_called_before(self) -> None:
        self.calls += 1
        if self.calls > 1:
            raise Unavailable("down, on purpose")


async def test_unavailable_after_a_lost_reply_is_unknown(backend: Backend) -> None:
    with pytest.raises(OutcomeUnknown) as caught:
        await Store(UnknownThenDown(backend), deadline=0.1).session("s").append("a")
    assert caught.value.commit is not None
    assert caught.value.commit.resend
    assert await Store(backend).session("s").entries() == ["a"]
    with pytest.raises(OutcomeUnknown) as caught:
        await Store(UnknownThenDown(backend), deadline=0.1).delete("s")
    assert caught.value.commit is None
    assert await Store(backend).session("s").head() is None


async def test_a_delete_that_never_arrived_is_unavailable(backend: Backend) -> None:
    await Store(backend).session("s").append("a")
    with pytest.raises(Unavailable) as caught:
        await Store(DropRequests(backend), deadline=0.1).delete("s")
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert await Store(backend).session("s").entries() == ["a"]


@pytest.mark.parametrize("applied", [True, False])
async def test_a_save_to_a_long_session_survives_one_fault(
    backend: Backend, clock: TestClock, applied: bool
) -> None:
    await fill(backend)
    clock.advance(10_000)
    faulty = (
        LoseReplies(backend, on={0}) if applied else DropRequests(backend, on={0}, known=False)
    )
    store = Store(faulty, deadline=5)
    await store.save("s", {"x": 1})
    assert await store.load("s") == {"x": 1}
    assert await Store(backend).session("s").entries() == list(range(MANY))


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("applied", [True, False])
async def test_a_large_append_to_a_long_session_survives_one_fault(
    backend: Backend, clock: TestClock, applied: bool, warm: bool
) -> None:
    await fill(backend)
    clock.advance(10_000)
    narrow = Narrow(backend, read_bytes=1 << 20, commit_bytes=70_000)
    faulty = (
        LoseReplies(narrow, on={0}) if applied else DropRequests(narrow, on={0}, known=False)
    )
    session = Store(faulty, deadline=5).session("s")
    if warm:
        await session.head()
    entries = noise(4)
    await session.append(*entries)
    assert await session.entries(last=5) == [MANY - 1, *entries]
    assert len(await Store(backend).session("s").entries()) == MANY + 4


async def test_settling_does_not_read_a_log_that_nobody_has_written_to_since(
    backend: Backend, clock: TestClock
) -> None:
    await fill(backend, 500)
    clock.advance(10_000)
    recorder = Recorder(DropRequests(backend, on={0}, known=False))
    await Store(recorder).session("s").append("x")
    assert recorder.items_read == 0
    assert await Store(backend).session("s").entries(last=1) == ["x"]


async def test_a_backend_that_always_forgets_is_not_asked_without_end(backend: Backend) -> None:
    class Forgetful(Forwarding):
        sent = 0

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            self.sent += 1
            raise OutcomeUnknown("who knows", commit=commit, forgotten=commit.resend)

    await Store(backend).session("s").append("a")
    forgetful = Forgetful(backend)
    session = Store(forgetful, deadline=0.4).session("s")
    await session.head()
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(session.append("b"), 5)
    assert forgetful.sent < 50


async def test_a_condition_that_fails_is_told_before_a_large_document_is_sent_again(
    backend: Backend,
) -> None:
    narrow = Narrow(backend, read_bytes=1 << 20, commit_bytes=300_000)
    store = Store(narrow, deadline=5)
    await store.save("s", 1)
    big = random.randbytes(1_000_000)
    with pytest.raises(Conflict):
        await store.save("s", big, expect=99)
    assert narrow.stagings <= 5
    assert await store.load("s") == 1
    await store.save("s", big, expect=1)
    assert await store.load("s") == big


async def test_an_item_over_the_limit_is_refused_though_the_commit_is_within_its(
    backend: Backend,
) -> None:
    recorder = Recorder(backend)
    recorder.capabilities = msgspec.structs.replace(
        backend.capabilities, max_item_bytes=1000, max_commit_bytes=100_000
    )
    with pytest.raises(TooLarge):
        await Store(recorder).session("s").cells.put("x", random.randbytes(5000))
    assert recorder.commits == []


async def test_a_part_of_a_large_commit_whose_reply_is_lost_is_sent_again(
    backend: Backend,
) -> None:
    class LosesOne(Narrow):
        async def stage(
            self,
            key: SessionKey,
            incarnation: bytes,
            stage: bytes,
            puts: tuple[tuple[bytes, bytes], ...],
        ) -> None:
            await super().stage(key, incarnation, stage, puts)
            if self.stagings == 1:
                raise OutcomeUnknown("the reply was lost, on purpose")

    narrow = LosesOne(backend, read_bytes=1 << 20, commit_bytes=70_000)
    entries = noise(4)
    await Store(narrow).session("s").append(*entries)
    assert await Store(backend).session("s").entries() == entries


async def test_a_large_commit_ends_at_the_deadline_however_many_its_parts(
    backend: Backend,
) -> None:
    class Slow(Narrow):
        async def stage(
            self,
            key: SessionKey,
            incarnation: bytes,
            stage: bytes,
            puts: tuple[tuple[bytes, bytes], ...],
        ) -> None:
            await asyncio.sleep(0.2)
            await super().stage(key, incarnation, stage, puts)

    narrow = Slow(backend, read_bytes=1 << 20, commit_bytes=70_000)
    session = Store(narrow, deadline=0.3).session("s")
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        await session.append(*noise(60))
    assert time.monotonic() - begun < 3
    assert await Store(backend).session("s").head() is None


@pytest.mark.parametrize("fresh", [True, False])
async def test_a_writer_that_is_far_behind_after_a_resend_of_others_writes_once(
    backend: Backend, fresh: bool
) -> None:
    """The backend cannot tell its first sending from one that its resend has overtaken."""
    session = Store(backend).session("s")
    if not fresh:
        await session.append("first")
        await session.cells.put("a", 1)
    await Store(LoseReplies(backend, on={0})).session("s").append("resent")
    await fill(backend)
    before = await Store(backend).session("s").entries()
    if fresh:
        session = Store(backend).session("s")
    await session.append("mine")
    await session.cells.put("a", 2)
    assert await Store(backend).session("s").entries() == [*before, "mine"]
    assert await Store(backend).session("s").cells.get("a") == 2


async def test_a_first_sending_that_arrives_after_its_resend_and_many_others_is_not_applied(
    backend: Backend,
) -> None:
    recorder = Recorder(backend)
    await Store(recorder).session("s").append("first")
    await Store(DropRequests(recorder, on={0}, known=False)).session("s").append("once")
    late = next(commit for commit in recorder.commits if commit.resend)
    await fill(backend)
    with pytest.raises(OutcomeUnknown):
        await backend.commit(
            SessionKey("default", "session", "s"),
            msgspec.structs.replace(late, resend=False),
        )
    assert (await Store(backend).session("s").entries()).count("once") == 1
