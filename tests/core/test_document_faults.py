"""A document is never torn: by no kill, lost reply, cancelled task, failover or race."""

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from perdure import Conflict, SessionDeleted, Store, Unavailable
from perdure.backend import Backend
from perdure.errors import OutcomeUnknown
from perdure.manifest import Known, Manifest, Manifests
from perdure.testing.faults import Delay, DropRequests, Faulty, Forwarding, LoseReplies
from perdure.types import Commit, Committed, Head, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from perdure_sqlite.backend import SqliteBackend
from tests.core.documents import Meter, chat, message
from tests.core.saver import grow, grown
from tests.core.wrappers import Narrow
from tests.faults.cancelling import WAYS

R = TypeVar("R")

ROOT = Path(__file__).parents[2]


def versions(number: int, size: int = 200_000) -> list[dict[str, Any]]:
    """One document, changed again and again."""
    rng = random.Random(number)
    document: dict[str, Any] = {"n": 0, **chat(size)}
    made = [document]
    for n in range(1, number):
        messages: list[Any] = list(document["messages"])
        messages.insert(rng.randrange(len(messages)), message(rng))
        messages.append(message(rng))
        del messages[rng.randrange(len(messages))]
        document = {**document, "n": n, "messages": messages}
        made.append(document)
    return made


async def test_killing_a_process_that_saves_tears_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    rng = random.Random(0)
    for seed in range(6):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-m", "tests.core.saver", str(path), str(seed)),
            cwd=ROOT,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert child.stdout is not None
        await child.stdout.readline()
        await asyncio.sleep(rng.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        said = (await child.stdout.read()).split(b"\n")
        await child.wait()
        acknowledged = max([int(n) for n in said[:-1]], default=1)
        backend = SqliteBackend(path)
        found = await Store(backend).load("s")
        await backend.aclose()
        assert found is not None
        assert found["n"] >= acknowledged
        expected, changes = grown(seed), random.Random(seed)
        for _ in range(found["n"]):
            grow(expected, changes)
        assert found == expected


class Suspending(Forwarding):
    """Lets others run before each call and before its result, as a network does."""

    async def _call(self, work: Coroutine[Any, Any, R]) -> R:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            work.close()
            raise
        result = await super()._call(work)
        await asyncio.sleep(0)
        return result


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("staged", [False, True], ids=["one commit", "staged"])
async def test_a_save_that_is_cancelled_is_whole_or_not_done(
    backend: Backend, way: str, *, staged: bool
) -> None:
    old, new = versions(2)
    another = chat(200_000, seed=1)
    suspending = Suspending(backend)
    narrow = Narrow(suspending, read_bytes=1 << 20, commit_bytes=70_000)
    store = Store(narrow if staged else suspending)
    for number in WAYS[way].numbers():
        id = str(number)
        await store.save(id, old)
        narrow.stagings = 0

        async def save(id: str = id) -> None:
            await store.save(id, another)
            await store.save(id, new)

        ran = await WAYS[way].cancel(save(), number)
        assert await Store(backend).load(id) in (old, another, new)
        await store.save(id, new)  # also where the cancelled one has been applied
        assert await Store(backend).load(id) == new
        if ran:
            assert number
            assert (narrow.stagings > 0) is staged
            break


@pytest.mark.parametrize("fault", ["reply lost", "dropped", "dropped, who knows"])
async def test_saves_whose_requests_or_replies_are_lost_end_whole(
    backend: Backend, fault: str
) -> None:
    often = range(0, 1 << 30, 2)
    faulty: Faulty = (
        LoseReplies(backend, on=often)
        if fault == "reply lost"
        else DropRequests(backend, on=often, known=fault == "dropped")
    )
    store = Store(faulty, deadline=10)
    for document in versions(6):
        await store.save("s", document)
        assert await Store(backend).load("s") == document
    assert faulty.faults


async def test_after_an_unknown_outcome_the_next_save_is_whole(backend: Backend) -> None:
    first, second, third = versions(3)
    for faulty in (LoseReplies(backend, on=range(1, 50)), DropRequests(backend, known=False)):
        store = Store(faulty, deadline=0.2)
        await Store(backend).save("s", first)
        await store.load("s")
        with pytest.raises((OutcomeUnknown, Unavailable)):
            for document in (first, second):
                await store.save("s", document)
        assert await Store(backend).load("s") in (first, second)
        faulty.on = ()
        await store.save("s", third)
        assert await Store(backend).load("s") == third


async def test_of_savers_that_race_each_wins_whole(backend: Backend) -> None:
    """Each knows the document as it was some time ago, or not at all."""
    made = versions(24)
    stores = [Store(Delay(backend, before=0.001), deadline=30) for _ in range(4)]
    for store in stores[:2]:
        await store.save("s", made[0])
    seen: list[Any] = []

    async def save(store: Store, mine: list[dict[str, Any]]) -> None:
        for document in mine:
            await store.save("s", document)
            seen.append(await Store(backend).load("s"))

    await asyncio.gather(*(save(store, made[n::4]) for n, store in enumerate(stores)))
    assert all(document in made for document in seen)
    head = await Store(backend).session("s").head()
    assert head is not None
    assert head.version >= 2 + len(made)


async def test_of_savers_that_expect_the_same_version_one_succeeds(backend: Backend) -> None:
    made = versions(6)
    stores = [Store(backend) for _ in range(5)]
    version = await stores[0].save("s", made[0])
    for store in stores[1:]:
        await store.load("s")
    results = await asyncio.gather(
        *(
            store.save("s", document, expect=version)
            for store, document in zip(stores, made[1:], strict=True)
        ),
        return_exceptions=True,
    )
    done = [n for n, result in enumerate(results, 1) if isinstance(result, int)]
    assert len(done) == 1
    assert [type(result) for result in results].count(Conflict) == 4
    assert await Store(backend).load("s") == made[done[0]]


class Mirrored(Forwarding):
    """Commits go to a replica too, until it lags behind; then it takes over, and says so."""

    def __init__(self, backend: Backend, replica: Backend) -> None:
        super().__init__(backend)
        self.replica = replica
        self.lagging = False
        self.epoch = b"first"

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        found = await super().read(key, *reads)
        return msgspec.structs.replace(found, epoch=self.epoch)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        if not self.lagging:
            await self.replica.commit(key, commit)
        return msgspec.structs.replace(made, epoch=self.epoch)

    def fail_over(self) -> None:
        self.backend, self.epoch, self.lagging = self.replica, b"second", True


async def test_a_manifest_lost_in_a_failover_is_not_built_on() -> None:
    """Its version has been made again, with another document in it."""
    made = versions(3)
    backend = Mirrored(MemoryBackend(), MemoryBackend())
    store, other = Store(backend), Store(backend)
    await store.save("s", made[0])
    backend.lagging = True
    assert await store.save("s", made[1]) == 2
    backend.fail_over()
    assert await other.save("s", chat(200_000, seed=1)) == 2
    assert await store.save("s", made[2]) == 3
    assert await other.load("s") == made[2]


async def test_commits_of_its_own_do_not_cost_a_save_another_round_trip() -> None:
    """Although after a failover it depends on the session's whole history."""
    made = versions(3)
    meter = Meter(Mirrored(MemoryBackend(), MemoryBackend()))
    store = Store(meter)
    await store.save("s", made[0])
    session = store.session("s")
    for document in made[1:]:
        await session.append("a turn")
        await session.cells.put("step", document["n"])
        meter.reset()
        await store.save("s", document)
        assert meter.trips == 1
    await Store(meter).session("s").append("another's")
    meter.reset()
    await store.save("s", made[0])
    assert (meter.commits, meter.reads) == (2, 1)
    assert await Store(meter).load("s") == made[0]


async def test_a_handle_does_not_bring_a_deleted_session_back(backend: Backend) -> None:
    first, second = versions(2)
    store = Store(backend)
    session = store.session("s")
    await session.save(first)
    await Store(backend).delete("s")
    with pytest.raises(SessionDeleted):
        await session.save(second)
    assert await store.load("s") is None
    await store.save("s", second)
    assert await store.load("s") == second


async def test_a_fork_has_a_document_of_its_own(backend: Backend) -> None:
    first, second = versions(2)
    store = Store(backend)
    session = store.session("s")
    await session.save(first)
    copy = await session.fork("copy")
    await copy.save(second)
    assert await Store(backend).load("s") == first
    assert await Store(backend).load("copy") == second
    await session.save(second)
    await copy.save(first)
    assert (await session.load(), await copy.load()) == (second, first)


def _known(version: int, entries: int, incarnation: bytes = b"i") -> Known:
    head = Head(version=version, incarnation=incarnation, tip=b"t", created_at=0, updated_at=0)
    return Known(version, Manifest(slots=entries, table=bytes(22 * entries)), head, b"")


def test_what_a_client_remembers_of_documents_is_bounded() -> None:
    manifests = Manifests(limit=100_000)
    keys = [SessionKey("t", "k", str(n)) for n in range(1000)]
    for key in keys:
        manifests.remember(key, _known(1, 100))
        manifests.recall(keys[0])
    held = [key for key in keys if manifests.recall(key)]
    assert 20 < len(held) < 100_000 / 2200
    assert keys[0] in held
    assert keys[-1] in held
    manifests.remember(keys[0], _known(1, 5000))
    assert [key for key in keys if manifests.recall(key)] == []
    manifests.remember(keys[0], _known(1, 0))
    assert manifests.recall(keys[0]) is not None


def test_an_own_commit_moves_along_what_is_known_in_one_history_only() -> None:
    manifests = Manifests()
    key = SessionKey("t", "k", "s")
    manifests.remember(key, _known(5, 1))
    for head, epoch in (
        (_known(7, 1).head, b""),
        (_known(6, 1, b"another life").head, b""),
        (_known(6, 1).head, b"another epoch"),
    ):
        assert head is not None
        manifests.advance(key, head, epoch)
        assert manifests.recall(key) == _known(5, 1)
    head = _known(6, 1).head
    assert head is not None
    manifests.advance(key, head, b"")
    assert manifests.recall(key) == msgspec.structs.replace(_known(5, 1), head=head)


def test_what_was_seen_late_does_not_replace_what_is_newer() -> None:
    manifests = Manifests()
    key = SessionKey("t", "k", "s")
    manifests.remember(key, _known(5, 1))
    manifests.remember(key, _known(4, 2))
    assert manifests.recall(key) == _known(5, 1)
    manifests.remember(key, _known(2, 3, b"another life"))
    assert manifests.recall(key) == _known(2, 3, b"another life")
    manifests.forget(key)
    assert manifests.recall(key) is None
