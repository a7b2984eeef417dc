"""Handles whose operations overlap, answers that come late, caches that must not be used."""

import asyncio
import random
from typing import Any

import pytest

from perdure import Conflict, OutcomeUnknown, SessionDeleted, Store
from perdure.backend import Backend
from perdure.testing import TestClock
from perdure.testing.faults import ALWAYS, Forwarding, LoseReplies
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from tests.core.wrappers import Narrow, Recorder

KEY = SessionKey("default", "session", "s")


class Held(Forwarding):
    """Holds answers to reads back, as they are, until :meth:`release`."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.holding = False
        self.held = asyncio.Event()
        """Set while an answer is held back."""
        self._go = asyncio.Event()

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await super().read(key, *reads)
        if self.holding:
            self.holding = False
            self.held.set()
            await self._go.wait()
        return snapshot

    async def hold(self, reading: asyncio.Future[Any]) -> None:
        """Wait until ``reading`` has its answer on the way, and it is held back."""
        waiting = asyncio.ensure_future(self.held.wait())
        await asyncio.wait((waiting, reading), return_when=asyncio.FIRST_COMPLETED)
        assert self.held.is_set()

    def release(self) -> None:
        self._go.set()


async def test_a_cache_of_a_former_life_is_not_carried_on_by_an_own_commit(
    store: Store,
) -> None:
    session = store.session("s")
    await session.append("former 1")
    await session.append("former 2")
    await store.delete("s")
    await store.session("s").append("a")
    await store.session("s").append("b")
    assert await session.cells.get("x") is None  # shows it the new life, not its log
    await session.append("c")
    assert await session.entries() == ["a", "b", "c"]
    assert await session.entries(last=2) == ["b", "c"]


async def test_a_large_commit_that_was_resent_is_not_missing_in_the_cache(
    backend: Backend,
) -> None:
    """A resent commit names the stage that holds its entries; they are not in it."""
    lossy = LoseReplies(Narrow(backend, read_bytes=1 << 20, commit_bytes=70_000), on=ALWAYS)
    session = Store(lossy, deadline=0.1).session("s")
    entries = [random.randbytes(30_000).hex() for _ in range(5)]
    with pytest.raises(OutcomeUnknown) as caught:
        await session.append(*entries)
    lossy.on = ()
    assert caught.value.commit is not None
    await session.resend(caught.value.commit)
    assert await session.entries() == await Store(backend).session("s").entries() == entries


async def test_a_cut_in_front_of_what_a_handle_holds_is_seen_by_it(store: Store) -> None:
    """The row at the cut is written again, with a key below all that the cache covers."""
    writer = store.session("s")
    await writer.append("a", "b")
    for entry in "cdef":
        await writer.append(entry)
    positions = (await writer.entries()).positions
    session = store.session("s")
    assert await session.entries(last=1) == ["f"]
    assert [await session.pop() for _ in range(3)] == ["f", "e", "d"]
    await session.truncate(before=positions[1])
    assert await store.session("s").entries() == ["b", "c"]
    assert await session.entries(last=1) == ["c"]
    assert await session.entries(last=2) == ["b", "c"]
    assert await session.entries() == ["b", "c"]


async def test_a_failover_that_lost_a_version_does_not_keep_a_reader_for_ever() -> None:
    class Yielding(Recorder):
        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            await asyncio.sleep(0)  # so that a read repeated for ever can be cancelled
            return await super().read(key, *reads)

    lost, kept = MemoryBackend(), MemoryBackend()
    recorder = Yielding(lost)
    session = Store(recorder).session("s")
    await session.append("a")
    await kept.commit(KEY, recorder.commits[0])
    await session.append("lost")
    recorder.backend = kept
    async with asyncio.timeout(5):
        assert await session.entries() == ["a"]
        assert await session.entries(last=1) == ["a"]
    await session.append("b")
    assert await session.entries() == ["a", "b"]


async def test_a_late_answer_that_there_is_nothing_does_not_undo_an_own_write(
    backend: Backend,
) -> None:
    held = Held(backend)
    store = Store(held)
    session = store.session("s")
    held.holding = True
    reading = asyncio.ensure_future(session.head())
    await held.hold(reading)
    await session.append("mine")
    held.release()
    assert await reading is None
    await store.delete("s")
    with pytest.raises(SessionDeleted):
        await session.append("brought back")
    assert await store.session("s").head() is None


async def test_a_late_answer_from_a_former_life_does_not_undo_news_of_the_present_one(
    backend: Backend,
) -> None:
    held = Held(backend)
    store = Store(held)
    await store.session("s").append("former")
    session = store.session("s")
    held.holding = True
    reading = asyncio.ensure_future(session.entries())
    await held.hold(reading)
    await store.delete("s")
    await store.session("s").append("present")
    assert await session.entries(last=1) == ["present"]
    held.release()
    assert await reading == ["former"]
    await session.append("more")
    assert await session.entries() == ["present", "more"]


async def test_a_late_answer_does_not_take_back_what_is_known_to_be_newer(
    backend: Backend,
) -> None:
    held = Held(backend)
    store = Store(held)
    await store.session("s").append("a")
    session = store.session("s")
    held.holding = True
    reading = asyncio.ensure_future(session.entries())
    await held.hold(reading)
    await session.append("b")
    assert await session.entries() == ["a", "b"]
    await store.session("s").append("c")
    held.release()
    assert await reading == ["a"]
    assert await session.entries(last=1) == ["c"]
    async with session.turn() as turn:
        turn.append("d")
    assert await session.entries() == ["a", "b", "c", "d"]


async def test_a_reader_is_not_starved_by_writes_through_the_same_handle(
    backend: Backend,
) -> None:
    class Slow(Forwarding):
        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            snapshot = await super().read(key, *reads)
            await asyncio.sleep(0.003)
            return snapshot

    session = Store(Slow(backend)).session("s")
    await session.append(0)
    stop = False

    async def write() -> None:
        while not stop:
            await session.append("x")
            await asyncio.sleep(0.001)

    writing = asyncio.create_task(write())
    try:
        for _ in range(3):
            entries = await asyncio.wait_for(session.entries(), 5)
            assert entries[0] == 0
    finally:
        stop = True
        await writing
    assert await session.entries() == await Store(backend).session("s").entries()


@pytest.mark.parametrize("warm", [False, True])
async def test_an_acknowledged_creation_that_is_gone_is_not_brought_back(
    backend: Backend, warm: bool
) -> None:
    """The resend is answered from the tombstone: the session was made, and then deleted."""

    class DeletedMeanwhile(Forwarding):
        sent = 0

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            made = await super().commit(key, commit)
            self.sent += 1
            if self.sent == 1:
                await Store(self.backend).delete(key.id)
                raise OutcomeUnknown("the reply was lost, on purpose", commit=commit)
            return made

    session = Store(DeletedMeanwhile(backend)).session("s")
    if warm:
        assert await session.entries() == []
    await session.append("a")
    with pytest.raises(SessionDeleted):
        await session.append("b")
    assert await Store(backend).session("s").head() is None
    assert await session.entries() == []
    await session.append("begun anew")
    assert await session.entries() == ["begun anew"]


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_cut_that_was_read_in_a_former_life_writes_nothing_of_it(
    backend: Backend, cut: str
) -> None:
    """The same key and version in both: only the incarnation tells the two rows apart."""

    class ReplacedAfterRead(Forwarding):
        done = False

        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            snapshot = await super().read(key, *reads)
            if not self.done:
                self.done = True
                store = Store(self.backend)
                await store.delete(key.id)
                await store.session(key.id).append("d", "e", "f")
            return snapshot

    await Store(backend).session("s").append("a", "b", "c")
    positions = (await Store(backend).session("s").entries()).positions
    session = Store(ReplacedAfterRead(backend)).session("s")
    if cut == "before":
        await session.truncate(before=positions[1])
        assert await Store(backend).session("s").entries() == ["e", "f"]
    else:
        await session.truncate(after=positions[1])
        assert await Store(backend).session("s").entries() == ["d", "e"]


@pytest.mark.parametrize("looks", [False, True])
async def test_a_turn_that_cuts_a_log_writes_nothing_of_a_former_life(
    backend: Backend, looks: bool
) -> None:
    store = Store(backend)
    await store.session("s").append("a", "b", "c")
    positions = (await store.session("s").entries()).positions
    with pytest.raises((SessionDeleted, Conflict)):
        async with store.session("s").turn() as turn:
            await turn.truncate(after=positions[1])
            await store.delete("s")
            await store.session("s").append("d", "e", "f")
            if looks:
                await turn.entries()
            turn.append("g")
    assert await store.session("s").entries() == ["d", "e", "f"]


async def test_a_lease_that_lapsed_in_a_former_life_is_not_taken_from_its_holder(
    backend: Backend, clock: TestClock
) -> None:
    """Between the look at the lapsed cell and the write, the session is made anew."""

    class ReplacedAfterRead(Forwarding):
        replaced = False

        async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
            snapshot = await super().read(key, *reads)
            if any(rows.items for rows in snapshot.rows):
                self.replaced = True
                await Store(self.backend).delete(key.id)
                await Store(self.backend).session(key.id).cells.put("lease", "holder")
            return snapshot

    session = Store(backend).session("s")
    await session.head()
    await session.cells.put("lease", "lapsed", expires_in=1)
    clock.advance(2000)
    replacing = ReplacedAfterRead(backend)
    with pytest.raises(Conflict):
        await Store(replacing).session("s").cells.put("lease", "thief", expect=0)
    assert replacing.replaced
    assert await Store(backend).session("s").cells.get("lease") == "holder"
