"""What sealing costs in round trips, and that nothing of it shows in what a store does."""

import asyncio
import os
import random
from collections.abc import Callable

import msgspec
import pytest

from perdure import Cell, Conflict, KeyRing, Log, OutcomeUnknown, Session, SessionDeleted, Store
from perdure.backend import Backend
from perdure.encryption import queues
from perdure.encryption.backend import EncryptedBackend
from perdure.encryption.rows import OVERHEAD
from perdure.forwarding import Forwarding
from perdure.testing.faults import DropRequests, LoseReplies
from perdure.types import (
    Append,
    At,
    Commit,
    Committed,
    Expect,
    Read,
    SessionKey,
    Snapshot,
)

from perdure_memory.backend import MemoryBackend
from tests.core.encryption.conftest import KEYS, RING
from tests.core.wrappers import Narrow, Recorder

Opened = Callable[..., Store]


class Stuck(Forwarding):
    """Never answers a commit of that one cell."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if any(name == b"cstuck" for name, _ in commit.puts):
            await asyncio.Event().wait()
        return await super().commit(key, commit)


@pytest.fixture
def recorder(backend: Backend) -> Recorder:
    return Recorder(backend)


def trips(recorder: Recorder) -> int:
    made = recorder.reads + len(recorder.commits)
    recorder.reset()
    return made


async def test_an_append_is_one_round_trip_once_the_session_is_known(
    recorder: Recorder,
) -> None:
    store = Store(recorder, keys=RING)
    session = store.session("s")
    await session.append(1)
    assert trips(recorder) == 2
    await session.append(2)
    await store.session("s").append(3)  # another handle of this process
    assert trips(recorder) == 2
    await session.stream("sub").append(1)
    assert trips(recorder) == 2  # its last row has to be found
    await session.stream("sub").append(2)
    await session.append(4)
    await session.cells.put("c", 1)
    assert trips(recorder) == 3


@pytest.mark.parametrize("last", [None, 1])
async def test_reading_a_log_is_all_that_an_append_needs_to_know(
    recorder: Recorder, last: int | None
) -> None:
    await Store(recorder, keys=RING).session("s").append(1, 2)
    recorder.reset()
    session = Store(recorder, keys=RING).session("s")
    await session.entries(last=last)
    await session.append(3)
    assert trips(recorder) == 2
    assert await Store(recorder, keys=RING).session("s").entries() == [1, 2, 3]


async def test_reading_that_there_is_nothing_is_all_that_a_first_append_needs(
    recorder: Recorder,
) -> None:
    session = Store(recorder, keys=RING).session("s")
    assert await session.entries() == []
    await session.append(1)
    assert trips(recorder) == 2


async def test_a_turn_is_two_round_trips(recorder: Recorder) -> None:
    session = Store(recorder, keys=RING).session("s")
    await session.append(1)
    trips(recorder)
    async with session.turn() as turn:
        await turn.read(Log())
        turn.append(2)
        turn.cells["step"] = 1
    assert trips(recorder) == 2


async def test_one_who_knows_an_old_version_seals_anew(recorder: Recorder) -> None:
    one, other = (Store(recorder, keys=RING).session("s") for _ in range(2))
    await one.append("a")
    await other.append("b")
    trips(recorder)
    await one.append("c")  # in vain, a look, and again
    assert trips(recorder) == 3
    await other.cells.put("k", 1)  # in vain, and again: a cell is linked to nothing
    assert trips(recorder) == 2
    assert await Store(recorder, keys=RING).session("s").entries() == ["a", "b", "c"]


async def test_many_writers_of_one_session_all_get_in(backend: Backend) -> None:
    """Each with a memory of its own, so that each is too late most of the time."""
    stores = [Store(backend, keys=RING, deadline=20) for _ in range(8)]

    async def write(number: int, store: Store) -> None:
        for n in range(10):
            await store.session("s").append((number, n))
            await store.session("s").cells.put(f"{number}", n)

    await asyncio.gather(*(write(n, store) for n, store in enumerate(stores)))
    session = Store(backend, keys=RING).session("s")
    entries = await session.entries()
    for number in range(8):
        assert [n for writer, n in entries if writer == number] == list(range(10))
    assert await session.cells.scan() == {f"{n}": 9 for n in range(8)}
    head = await session.head()
    assert head is not None
    assert head.version == 160


async def test_writers_of_one_process_do_not_get_in_one_another_s_way(
    recorder: Recorder,
) -> None:
    store = Store(recorder, keys=RING)
    await store.session("s").append("first")
    trips(recorder)
    await asyncio.gather(*(store.session("s").cells.put(f"{n}", n) for n in range(20)))
    assert trips(recorder) == 20


async def test_one_that_gets_no_answer_holds_the_others_up_for_a_while_only(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "PATIENCE", 0.05)
    stuck = Store(Stuck(backend), keys=RING, deadline=30)
    await stuck.session("s").append("first")
    waiting = asyncio.create_task(stuck.session("s").cells.put("stuck", 1))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await asyncio.gather(*(stuck.session("s").cells.put(f"{n}", n) for n in range(5)))
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(await stuck.session("s").cells.scan()) == 5


async def test_an_append_follows_the_last_row_whatever_was_read(backend: Backend) -> None:
    """A position of another stream lies behind a row that a commit of others has made here."""
    mine, others = (Store(backend, keys=RING) for _ in range(2))
    await mine.session("s").stream("sub").append("a")
    async with others.session("s").turn() as turn:
        turn.append("x" * 70_000, "y" * 70_000)  # two rows
        turn.append("b", stream="sub")
    position = (await others.session("s").entries()).positions[-1]
    assert await mine.session("s").stream("sub").entries(after=position) == []
    await mine.session("s").stream("sub").append("c")
    fresh = Store(backend, keys=RING).session("s").stream("sub")
    assert await fresh.entries() == ["a", "b", "c"]


class Failover(Recorder):
    """Two servers, of which one answers."""

    epoch = b"first"

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        return msgspec.structs.replace(await super().read(key, *reads), epoch=self.epoch)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return msgspec.structs.replace(await super().commit(key, commit), epoch=self.epoch)


@pytest.mark.parametrize("others", ["c", "cc", "a", "ac", "ca", "L", "Lc", "ccc"])
async def test_an_append_after_a_failover_follows_the_last_row_that_is_there(
    others: str,
) -> None:
    """The failover has lost an append; others have gone on: with cells, appends, long ones."""
    lost, kept = MemoryBackend(), MemoryBackend()
    failover = Failover(lost)
    session = Store(failover, keys=RING).session("s")
    await session.append("a")
    await kept.commit(session.key, failover.commits[0])
    await session.append("lost")
    await session.entries()
    other = Store(kept, keys=RING).session("s")
    for what in others:
        if what == "c":
            await other.cells.put("c", 1)
        else:
            await other.append(*(["other"] if what == "a" else ["o" * 70_000] * 2))
    failover.backend, failover.epoch = kept, b"second"
    for _ in range(2):
        async with session.turn() as turn:
            turn.append("after")
    entries = await Store(kept, keys=RING).session("s").entries()
    assert (entries[0], entries[-2:]) == ("a", ["after", "after"])


class Distant(Forwarding):
    """A network is in between."""

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        await asyncio.sleep(random.uniform(0, 0.002))
        return await super().read(key, *reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        await asyncio.sleep(random.uniform(0, 0.002))
        return await super().commit(key, commit)


async def test_writers_that_never_rest_take_turns() -> None:
    """Who has written last knows the latest version, and would go on for ever if the other one
    waited each time that it was too late."""
    backend = MemoryBackend()
    written = [0, 0]

    async def write(number: int) -> None:
        session = Store(Distant(backend), keys=RING, deadline=20).session("s")
        while min(written) < 20:
            await session.append(number)
            written[number] += 1

    await asyncio.gather(write(0), write(1))
    assert max(written) < 20 * 10


async def test_a_condition_that_does_not_hold_is_a_conflict_at_once(backend: Backend) -> None:
    one, other = (Store(backend, keys=RING).session("s") for _ in range(2))
    version = await one.cells.put("c", 1)
    await other.append("news")
    await other.cells.put("c", 2)
    with pytest.raises(Conflict) as caught:
        await one.cells.put("c", 3, expect=version)
    assert caught.value.head == await other.head()
    with pytest.raises(Conflict):
        async with one.turn() as turn:
            assert await turn.read(Cell("c")) == (2,)
            await other.append("more news")
            turn.cells["c"] = 4
    assert await other.cells.get("c") == 2


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_lost_reply_is_resent_and_applied_once(backend: Backend, lost: int) -> None:
    for wrap in (LoseReplies, DropRequests):
        id = wrap.__name__
        store = Store(wrap(backend, on=range(lost + 1)), keys=RING, deadline=10)
        session = store.session(id)
        for n in range(5):
            await session.append(n)
        assert await Store(backend, keys=RING).session(id).entries() == list(range(5))


async def test_a_commit_of_unknown_outcome_is_resent_under_other_keys(backend: Backend) -> None:
    """The process ends, the primary key is changed, and another process settles it."""
    lossy = Store(LoseReplies(backend), keys=RING, deadline=0.3)
    with pytest.raises(OutcomeUnknown) as caught:
        await lossy.session("s").append("once")
    commit = caught.value.commit
    assert commit is not None
    assert b"once" in commit.appends[0].values[0]  # in plain, to be sealed anew
    for ring in (RING, KeyRing(KEYS, primary="2026-06")):
        result = await Store(backend, keys=ring).session("s").resend(commit)
        assert result.replayed
    assert await Store(backend, keys=RING).session("s").entries() == ["once"]


async def test_the_backend_learns_no_digest_of_the_plaintext(backend: Backend) -> None:
    recorder = Recorder(backend)
    commit = Commit(
        id=os.urandom(16), digest=b"d" * 8, new_incarnation=os.urandom(16), meta=b"m"
    )
    key = SessionKey.of("t", "k", "s")
    again = msgspec.structs.replace(commit, id=os.urandom(16))
    sealing = EncryptedBackend(recorder, RING)
    for sent in (commit, again):
        await sealing.commit(key, sent)
    first, second = (sent.digest for sent in recorder.commits)
    assert len({first, second, commit.digest}) == 3  # nor that two commits say the same
    assert len(first) == 8


@pytest.mark.parametrize(
    ("expect", "incarnation"),
    [
        (Expect.PRESENT, None),
        (At(3, b"t" * 16), None),
        (Expect.ANY, b"i" * 16),
        (Expect.PRESENT, b"i" * 16),
    ],
)
async def test_what_cannot_be_applied_is_sent_without_its_content(
    backend: Backend, expect: Expect | At, incarnation: bytes | None
) -> None:
    """It must be sent all the same: it may have been applied before."""
    recorder = Recorder(backend)
    sealing = EncryptedBackend(recorder, RING)
    commit = Commit(
        id=os.urandom(16),
        digest=b"d" * 8,
        new_incarnation=os.urandom(16),
        expect=expect,
        incarnation=incarnation,
        puts=((b"c", b"\x01\x40\xc0"),),
        appends=(Append(b"l\0", (b"\x01\x00" + bytes(24) + b"\x90",)),),
    )
    with pytest.raises((Conflict, SessionDeleted)):
        await sealing.commit(SessionKey.of("t", "k", "s"), commit)
    (sent,) = recorder.commits
    assert (sent.puts, sent.appends) == ((), ())
    assert (await backend.read(SessionKey.of("t", "k", "s"))).head is None


async def test_a_commit_too_large_for_one_is_staged_sealed(backend: Backend) -> None:
    narrow = Narrow(backend, commit_bytes=200_000)
    store = Store(narrow, keys=RING)
    session = store.session("s")
    await session.append("before")
    entries = [os.urandom(30_000) for _ in range(30)]
    await session.append(*entries)
    assert narrow.stagings > 3
    await session.append("after")
    assert await Store(backend, keys=RING).session("s").entries() == [
        "before",
        *entries,
        "after",
    ]
    position = (await session.entries()).positions[0]
    async with session.turn() as turn:
        await turn.truncate(after=position)
        turn.append(*entries)
    assert await Store(backend, keys=RING).session("s").entries() == ["before", *entries]


def test_limits_leave_room_for_what_sealing_adds(backend: Backend) -> None:
    for items, size in ((64, 1 << 20), (1 << 20, 1 << 20), (10_000, 64 << 20)):
        limits = msgspec.structs.replace(
            backend.capabilities, max_commit_items=items, max_commit_bytes=size
        )
        backend.capabilities = limits
        left = EncryptedBackend(backend, RING).capabilities
        assert left.max_item_bytes == limits.max_item_bytes - OVERHEAD
        assert left.max_commit_items * OVERHEAD + left.max_commit_bytes <= size
        assert left.max_commit_items >= min(items, 5000)


async def apply(session: Session, choice: random.Random) -> None:
    """Something that an application does."""
    stream = session.stream("sub") if choice.random() < 0.3 else session
    entries = await stream.entries()
    action = choice.randrange(9)
    if action < 4:
        await stream.append(*(choice.randrange(100) for _ in range(choice.randrange(1, 4))))
    elif action == 4:
        await stream.pop()
    elif action == 5 and entries:
        position = choice.choice(entries.positions)
        if choice.random() < 0.5:
            await stream.truncate(before=position)
        else:
            await stream.truncate(after=position)
    elif action == 6:
        await session.cells.put(f"c{choice.randrange(3)}", choice.randrange(100))
    elif action == 7 and choice.random() < 0.3:
        async with session.turn() as turn:
            turn.clear(stream="sub")
            turn.append(choice.randrange(100), stream="sub")
    elif entries:
        position = choice.choice(entries.positions)
        name = "" if stream is session else "sub"
        async with session.turn() as turn:
            await turn.truncate(after=position, stream=name)
            turn.append(choice.randrange(100), stream=name)


@pytest.mark.parametrize("seed", range(12))
async def test_an_encrypted_session_does_what_a_plain_one_does(
    backend: Backend, seed: int
) -> None:
    """The same actions on both, and the same is read: none of them breaks the chain of rows."""
    choice = random.Random(seed)
    sealed = [Store(backend, keys=RING, tenant="sealed") for _ in range(2)]
    plain = Store(backend, tenant="plain")
    for _ in range(40):
        seed = choice.getrandbits(32)
        store = choice.choice(sealed)
        await apply(store.session("s"), random.Random(seed))
        await apply(plain.session("s"), random.Random(seed))
        fresh = Store(backend, keys=RING, tenant="sealed").session("s")
        expected = plain.session("s")
        assert await fresh.entries() == await expected.entries()
        assert await fresh.stream("sub").entries() == await expected.stream("sub").entries()
        assert await fresh.cells.scan() == await expected.cells.scan()
