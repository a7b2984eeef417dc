"""The faulty backends fail when they should, and as they say."""

import asyncio
import time

import pytest

from perdure.backend import Backend
from perdure.errors import Outcome, OutcomeUnknown, Unavailable
from perdure.testing.faults import Delay, DropRequests, Forwarding, LoseReplies
from perdure.testing.shorthand import new_commit, new_id, read_values, resent, write
from perdure.types import Expect, ListQuery, Scan, SessionKey

from perdure_memory.backend import MemoryBackend

KEY = SessionKey.of("tenant", "session", "s")


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


async def test_forwarding_does_what_the_backend_does(backend: Backend) -> None:
    forwarding = Forwarding(backend)
    assert forwarding.capabilities == backend.capabilities
    await forwarding.open()
    assert await forwarding.describe() == await backend.describe()
    made = await write(forwarding, KEY, puts=((b"a", b"1"),))
    stage = new_id()
    await forwarding.stage(KEY, made.incarnation, stage, ((b"b", b"2"),))
    await write(forwarding, KEY, stages=(stage,))
    assert (await forwarding.read(KEY, Scan())).rows == (await backend.read(KEY, Scan())).rows
    assert await read_values(backend, KEY) == {b"a": b"1", b"b": b"2"}
    assert (await forwarding.tenants()).items == ("tenant",)
    assert len((await forwarding.list("tenant", "session", ListQuery())).items) == 1
    assert await forwarding.wait(KEY, after=None, timeout=1) is not None
    assert await forwarding.sweep() == 0
    assert await forwarding.delete(KEY, id=new_id())
    assert (await backend.read(KEY)).head is None


async def test_a_lost_reply_is_of_a_commit_that_was_applied(backend: Backend) -> None:
    losing = LoseReplies(backend, on={1})
    assert (await write(losing, KEY)).version == 1
    commit = new_commit(puts=((b"a", b"1"),))
    with pytest.raises(OutcomeUnknown) as caught:
        await losing.commit(KEY, commit)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.commit is commit
    assert await read_values(backend, KEY) == {b"a": b"1"}
    assert (await losing.commit(KEY, resent(commit))).replayed
    assert (losing.calls, losing.faults) == (3, 1)


async def test_the_reply_of_a_refusal_is_lost_too(backend: Backend) -> None:
    await write(backend, KEY)
    losing = LoseReplies(backend)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await write(losing, KEY, expect=Expect.ABSENT, puts=((b"a", b"1"),))
    assert await read_values(backend, KEY) == {}
    assert losing.faults == 2


async def test_a_lost_reply_is_of_a_deletion_that_was_done(backend: Backend) -> None:
    await write(backend, KEY)
    losing = LoseReplies(backend, on=range(1))
    id = new_id()
    with pytest.raises(OutcomeUnknown) as caught:
        await losing.delete(KEY, id=id)
    assert caught.value.commit is None
    assert (await backend.read(KEY)).head is None
    assert await losing.delete(KEY, id=id)


async def test_a_dropped_request_was_not_applied(backend: Backend) -> None:
    commit = new_commit()
    for known, error in ((True, Unavailable), (False, OutcomeUnknown)):
        dropping = DropRequests(backend, on={0, 1}, known=known)
        with pytest.raises(error):
            await dropping.commit(KEY, commit)
        assert (await backend.read(KEY)).head is None
        with pytest.raises(error):
            await dropping.delete(KEY, id=new_id())
        assert not await dropping.delete(KEY, id=new_id())
        assert (dropping.calls, dropping.faults) == (3, 2)


async def test_a_delay_comes_before_or_after_the_write(backend: Backend) -> None:
    before = asyncio.create_task(write(Delay(backend, before=60.0), KEY))
    await asyncio.sleep(0.01)
    assert (await backend.read(KEY)).head is None
    after = asyncio.create_task(write(Delay(backend, after=60.0), KEY))
    await asyncio.sleep(0.01)
    assert (await backend.read(KEY)).head is not None
    for task in (before, after):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    began = time.monotonic()
    assert await Delay(backend, before=0.02, after=0.02).delete(KEY, id=new_id())
    assert time.monotonic() - began >= 0.04
