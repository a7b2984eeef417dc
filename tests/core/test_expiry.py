"""Sliding expiry: never early, at most a sixteenth late, and never against what was set."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from perdure import Conflict, InvalidKey, SessionDeleted, Store, Unavailable
from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.testing import TestClock
from perdure.testing.faults import DropRequests, LoseReplies
from perdure.types import Commit, Committed, Head, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.virtual_time import VirtualTimeLoop
from tests.core.wrappers import Recorder

IDLE = 16_000
LIFE = IDLE + IDLE // 16


@pytest.fixture
def store(backend: Backend) -> Store:
    return Store(backend, deadline=5, idle_expiry=IDLE / 1000)


async def head_of(backend: Backend, id: str = "s") -> Head:
    head = await Store(backend).session(id).head()
    assert head is not None
    return head


async def expiry_of(backend: Backend, clock: TestClock, id: str = "s") -> int | None:
    """In how many ms the session expires."""
    expires_at = (await head_of(backend, id)).expires_at
    return None if expires_at is None else expires_at - clock()


async def write_entry(store: Store) -> None:
    await store.session("s").append("a")


async def write_cell(store: Store) -> None:
    await store.session("s").cells.put("c", 1)


async def write_document(store: Store) -> None:
    await store.save("s", {"a": 1})


async def write_turn(store: Store) -> None:
    async with store.session("s").turn() as turn:
        turn.append(len(await turn.entries()))


async def write_stream(store: Store) -> None:
    await store.session("s").stream("branch").append("a")


async def write_meta(store: Store) -> None:
    await store.session("s").set(meta=b"m")


WRITES = [write_entry, write_cell, write_document, write_turn, write_stream, write_meta]


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
async def test_a_session_expires_when_nobody_has_written_for_so_long_and_not_before(
    store: Store, backend: Backend, clock: TestClock, write: Any
) -> None:
    await write(store)
    assert await expiry_of(backend, clock) == LIFE
    for pause in (1, IDLE // 16, IDLE // 16 + 1, IDLE // 2, IDLE - 1, IDLE):
        clock.advance(pause)
        await write(store)
        left = await expiry_of(backend, clock)
        assert left is not None
        assert IDLE <= left <= LIFE, "never early, at most a sixteenth late"
    clock.advance(IDLE - 1)
    assert await store.session("s").head() is not None
    clock.advance(LIFE - IDLE + 1)
    assert await store.session("s").head() is None


async def test_a_session_is_not_there_a_moment_later_than_it_expires(
    store: Store, clock: TestClock
) -> None:
    session = store.session("s")
    await session.append("a")
    clock.advance(LIFE - 1)
    assert await session.entries() == ["a"]
    clock.advance(1)
    assert await session.entries() == []


async def test_reading_extends_nothing(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    await session.append("a")
    for _ in range(5):
        clock.advance(LIFE // 5)
        await session.entries()
        await session.cells.get("x")
    assert await session.head() is None


async def test_a_handle_that_saw_a_session_which_has_expired_does_not_bring_it_back(
    store: Store, clock: TestClock
) -> None:
    session = store.session("s")
    await session.append("a")
    clock.advance(LIFE)
    with pytest.raises(SessionDeleted):
        await session.append("b")
    async with store.session("s").turn() as turn:  # nobody's handle: a new session
        turn.append("c")
    with pytest.raises(SessionDeleted):
        await session.append("b")
    assert await session.entries() == ["c"]
    await session.append("d")
    assert await store.session("s").entries() == ["c", "d"]


async def test_an_append_is_one_commit_but_for_one_in_a_sixteenth_of_the_time(
    backend: Backend, clock: TestClock
) -> None:
    recorder = Recorder(backend)
    store = Store(recorder, idle_expiry=IDLE / 1000)
    session = store.session("s")
    await session.append(0)
    recorder.reset()
    for n in range(1, 161):
        clock.advance(IDLE // 160)
        await session.append(n)
    assert recorder.reads == 0
    entries = [commit for commit in recorder.commits if commit.appends]
    others = [commit for commit in recorder.commits if not commit.appends]
    assert len(entries) == 160
    assert all(c.expires_in is None and c.expires_at is None for c in entries)
    assert 13 <= len(others) <= 16
    assert all(c.expires_in == LIFE and not c.puts and not c.deletes for c in others)
    assert await store.session("s").entries() == list(range(161))


async def test_a_handle_that_knows_nothing_looks_before_it_writes(
    backend: Backend, clock: TestClock
) -> None:
    recorder = Recorder(backend)
    store = Store(recorder, idle_expiry=IDLE / 1000)
    await store.session("s").append("a")
    assert (recorder.reads, len(recorder.commits)) == (1, 1), "it creates: with the expiry"
    recorder.reset()
    await store.session("s").append("b")
    assert (recorder.reads, len(recorder.commits)) == (1, 1)
    recorder.reset()
    new = store.session("new")
    assert await new.entries() == []
    await new.append("a")
    assert (recorder.reads, len(recorder.commits)) == (1, 1), "it has looked"
    assert await expiry_of(backend, clock, "new") == LIFE


@pytest.mark.parametrize("warm", [True, False])
async def test_what_never_expires_goes_on_so(
    store: Store, backend: Backend, clock: TestClock, warm: bool
) -> None:
    session = store.session("s")
    await session.append("a")
    await store.session("s").set(never_expires=True)
    for _ in range(3):
        clock.advance(IDLE)
        await (session if warm else store.session("s")).append("b")
        assert await expiry_of(backend, clock) is None
    await session.set(expires_in=1)
    await session.append("c")
    assert await expiry_of(backend, clock) == LIFE, "it slides again"


async def test_sessions_made_without_expiry_keep_none(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    await Store(backend).session("s").append("old")
    await store.session("s").append("new")
    assert await expiry_of(backend, clock) is None


async def test_an_expiry_that_is_set_is_extended_when_it_is_near_and_not_shortened(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    session = store.session("s")
    far = datetime.fromtimestamp((clock() + 10 * IDLE) / 1000, UTC)
    await session.set(expires_at=far)
    assert await expiry_of(backend, clock) == 10 * IDLE
    await session.append("a")
    assert await expiry_of(backend, clock) == 10 * IDLE
    clock.advance(9 * IDLE + 1)
    await session.append("b")
    assert await expiry_of(backend, clock) == LIFE
    await session.set(expires_in=2)
    assert await expiry_of(backend, clock) == 2000, "what sets it says it all"
    async with session.turn() as turn:
        turn.append("c")
        turn.set(expires_in=3)
    assert await expiry_of(backend, clock) == 3000


async def test_a_handle_has_an_idle_expiry_of_its_own_or_none(
    backend: Backend, clock: TestClock
) -> None:
    store = Store(backend)
    await store.session("s", idle_expiry=60).append("a")
    assert await expiry_of(backend, clock) == 60_000 + 3_750
    await store.session("plain").append("a")
    assert await expiry_of(backend, clock, "plain") is None
    sliding = Store(backend, idle_expiry=60)
    await sliding.session("off", idle_expiry=0).append("a")
    assert await expiry_of(backend, clock, "off") is None
    await sliding.tenant("t").session("s").append("a")
    head = await store.tenant("t").session("s").head()
    assert head is not None
    assert head.expires_at == clock() + 63_750


async def test_an_idle_expiry_of_milliseconds_is_kept(
    backend: Backend, clock: TestClock
) -> None:
    store = Store(backend, idle_expiry=0.001)
    await store.session("s").append("a")
    assert await expiry_of(backend, clock) == 2
    clock.advance(1)
    assert await store.session("s").entries() == ["a"]
    clock.advance(1)
    assert await store.session("s").entries() == []


@pytest.mark.parametrize(
    "bad", [-1, float("nan"), float("inf"), 101 * 365 * 86_400, "60", b""], ids=repr
)
async def test_what_is_no_duration_is_refused_at_once(backend: Backend, bad: Any) -> None:
    with pytest.raises(InvalidKey, match="idle_expiry"):
        Store(backend, idle_expiry=bad)
    with pytest.raises(InvalidKey, match="idle_expiry"):
        Store(backend).session("s", idle_expiry=bad)


async def test_a_pin_set_by_another_since_is_not_undone(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    """The handle believes that the session is about to expire, or absent."""
    session = store.session("s")
    await session.append("a")
    absent = store.session("new")
    assert await absent.entries() == []
    clock.advance(IDLE)
    await Store(backend).session("s").set(never_expires=True)
    await Store(backend).session("new").set(never_expires=True)
    await session.append("b")
    await absent.append("b")
    assert await expiry_of(backend, clock) is None
    assert await expiry_of(backend, clock, "new") is None


async def test_what_creates_a_session_under_conditions_is_refused_as_ever(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    with pytest.raises(Conflict):
        await store.session("s").cells.put("c", 1, expect=3)
    assert await store.session("s").head() is None
    assert await store.session("s").cells.put("c", 1, expect=0) == 1
    assert await expiry_of(backend, clock) == LIFE
    with pytest.raises(Conflict):
        await store.session("s").cells.put("c", 1, expect=0)


async def test_many_appends_at_once_leave_the_session_its_time(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    handles = [store.session("s") for _ in range(10)]
    await asyncio.gather(*(handle.append(n) for n, handle in enumerate(handles)))
    assert await expiry_of(backend, clock) == LIFE
    clock.advance(IDLE)
    await asyncio.gather(*(handle.append(n) for n, handle in enumerate(handles)))
    left = await expiry_of(backend, clock)
    assert left is not None
    assert left >= IDLE
    assert sorted(await store.session("s").entries()) == sorted([*range(10)] * 2)


async def test_a_write_stands_though_extending_fails(
    backend: Backend, clock: TestClock
) -> None:
    faulty = DropRequests(backend, on=())
    store = Store(faulty, deadline=0.05, idle_expiry=IDLE / 1000)
    session = store.session("s")
    await session.append("a")
    clock.advance(IDLE)
    faulty.on = range(faulty.calls + 1, 1 << 60)
    await session.append("b")
    assert await expiry_of(backend, clock) == LIFE - IDLE
    with pytest.raises(Unavailable):
        await session.append("c")
    faulty.on = ()
    await session.append("c")
    assert await expiry_of(backend, clock) == LIFE
    assert await store.session("s").entries() == ["a", "b", "c"]


def test_appends_that_went_together_stand_though_extending_never_ends(
    clock: TestClock,
) -> None:
    class Hanging(Forwarding):
        """What extends a life is never answered."""

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if commit.expires_in is not None and clock.now >= later:
                await asyncio.Event().wait()
            await asyncio.sleep(0.001)
            return await super().commit(key, commit)

    async def test() -> None:
        store = Store(Hanging(MemoryBackend(clock=clock)), deadline=5, idle_expiry=IDLE / 1000)
        session = store.session("s")
        await session.append("a")
        clock.advance(IDLE)
        await asyncio.gather(*(session.append(n) for n in range(5)))
        assert await store.session("s").entries() == ["a", 0, 1, 2, 3, 4]

    later = clock.now + IDLE
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(test())


async def test_a_write_returns_though_others_write_too_fast_for_its_extension(
    backend: Backend, clock: TestClock
) -> None:
    class Overtaken(Forwarding):
        """Somebody else is faster than every extension."""

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if commit.expires_in is not None and clock.now >= later:
                await other.append("other")
            return await super().commit(key, commit)

    later = clock.now + IDLE
    other = Store(backend).session("s")
    session = Store(Overtaken(backend), deadline=0.1, idle_expiry=IDLE / 1000).session("s")
    await session.append("a")
    clock.advance(IDLE)
    async with asyncio.timeout(5):
        await session.append("b")
    assert await expiry_of(backend, clock) == LIFE - IDLE


async def test_lost_replies_lose_no_entry_and_no_expiry(
    backend: Backend, clock: TestClock
) -> None:
    store = Store(LoseReplies(backend, range(0, 100, 2)), deadline=5, idle_expiry=IDLE / 1000)
    for n in range(5):
        await store.session("s").append(n)
        left = await expiry_of(backend, clock)
        assert left is not None
        assert left >= IDLE
        clock.advance(IDLE // 3)
    assert await store.session("s").entries() == list(range(5))


async def test_a_fork_expires_when_its_parent_would_have(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    session = store.session("s")
    await session.append("a")
    await session.fork("copy")
    assert await expiry_of(backend, clock, "copy") == LIFE
    await session.set(never_expires=True)
    await session.fork("pinned")
    assert await expiry_of(backend, clock, "pinned") is None
