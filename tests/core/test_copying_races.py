"""Copying while others write, at the source or at the target."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import pytest

from perdure import Store
from perdure.backend import Backend
from perdure.copying import Fate, copier, reading
from perdure.errors import OutcomeUnknown
from perdure.testing import TestClock
from perdure.testing.faults import Forwarding
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from tests.core.copies import (
    answers,
    copy,
    copy_one,
    everything,
    fates,
    large,
    noise,
    same_items,
)
from tests.core.wrappers import Narrow, Recorder

SEEDS = int(os.environ.get("PERDURE_COPY_SEEDS", "20"))

CHANCE = random.Random(5)
R = TypeVar("R")


@pytest.fixture
def source(clock: TestClock) -> MemoryBackend:
    """What is copied from, to the ``backend``."""
    return MemoryBackend(clock=clock)


# Written to meanwhile


async def append(store: Store) -> None:
    await store.session("s").append("late")


async def patch(store: Store) -> None:
    cells = {"c00": str(CHANCE.random()), "c29": "late", f"d{CHANCE.random()}": "late"}
    await store.session("s").cells.update(cells)


async def patch_much(store: Store) -> None:
    await store.session("s").cells.update({f"c{n:02}": noise(CHANCE, 500) for n in range(9)})


async def pop(store: Store) -> None:
    await store.session("s").pop()


async def rewrite(store: Store) -> None:
    session = store.session("s")
    await session.truncate(before=(await session.entries()).positions[3])


async def save(store: Store) -> None:
    await store.save("s", [noise(CHANCE, 100) for _ in range(50)])


async def settle(store: Store) -> None:
    await store.session("s").set(meta=b"late", labels=("late",), expires_in=3600)


async def forget(store: Store) -> None:
    await store.session("s").cells.delete("c00")


async def nothing(store: Store) -> None:
    del store


@pytest.mark.parametrize(
    "happens", [append, patch, patch_much, pop, rewrite, save, settle, forget]
)
async def test_what_is_written_between_two_pages_is_in_the_copy(
    source: Backend, backend: Backend, happens: Callable[[Store], Awaitable[None]]
) -> None:
    for page in (0, 12):
        await large(source)
        narrow = Narrow(source, read_bytes=300)
        events = [nothing] * page + [happens, nothing, nothing, happens]
        narrow.between = [lambda event=event: event(Store(source)) for event in events]
        recorder = Recorder(Narrow(backend, commit_bytes=70_000))
        assert await copy_one(narrow, recorder) in (Fate.COPIED, Fate.REPLACED)
        assert narrow.between == []
        assert len(recorder.commits) == 1
        assert await answers(Store(backend)) == await answers(Store(source))
        assert await same_items(source, backend)


async def test_a_session_deleted_between_two_pages_is_not_copied(
    source: Backend, backend: Backend
) -> None:
    session = await large(source)
    narrow = Narrow(source)
    narrow.between = [session.delete]
    assert await copy_one(narrow, backend) is Fate.ABSENT
    assert await answers(Store(backend)) == {}


async def test_a_session_made_anew_between_two_pages_is_copied_as_it_is_now(
    source: Backend, backend: Backend
) -> None:
    session = await large(source)

    async def recreate() -> None:
        await session.delete()
        await large(source)

    narrow = Narrow(source)
    narrow.between = [recreate]
    assert await copy_one(narrow, backend) is Fate.COPIED
    assert await same_items(source, backend)


async def test_a_session_that_never_keeps_still_fails_alone(
    source: Backend, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copier, "LONGEST_PAUSE", 0.02)
    await large(source)
    await Store(source).session("quiet").append(1)
    narrow = Narrow(source)
    narrow.between = [lambda: forget(Store(source))] * 30
    reports = await copy(narrow, backend)
    assert reports["s"].fate is Fate.FAILED
    assert "faster than it could be copied" in str(reports["s"].reason)
    assert reports["quiet"].fate is Fate.COPIED
    assert (await fates(source, backend))["s"] == "copied"


async def test_what_changes_behind_what_is_remembered_makes_it_start_again(
    source: Backend, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "KNOWN_ITEMS", 3)
    await large(source)
    narrow = Narrow(source)
    narrow.between = [lambda event=e: event(Store(source)) for e in [nothing] * 8 + [patch]]
    once = Narrow(source)
    assert await copy_one(once, MemoryBackend()) is Fate.COPIED
    assert await copy_one(narrow, backend) is Fate.COPIED
    assert narrow.reads > once.reads + 8
    assert await same_items(source, backend)


async def test_too_much_that_changes_for_one_commit_makes_it_start_again(
    source: Backend, backend: Backend
) -> None:
    await large(source)
    narrow = Narrow(source, read_bytes=10_000)
    narrow.between = [lambda: patch_much(Store(source))]
    recorder = Recorder(Narrow(backend, commit_bytes=2000))
    assert await copy_one(narrow, recorder) is Fate.COPIED
    assert await same_items(source, backend)
    (made,) = recorder.commits
    assert sum(len(key) + len(value) for key, value in made.puts) <= 2000


@pytest.mark.parametrize("copied_before", [False, True])
async def test_a_target_written_to_during_the_copy_is_not_overwritten(
    source: Backend, backend: Backend, copied_before: bool
) -> None:
    session = await large(source)
    if copied_before:
        await copy(source, backend)
        await session.append("theirs")
    narrow = Narrow(source)
    narrow.between = [lambda: Store(backend).session("s").append("mine")]
    assert await copy_one(narrow, backend) is Fate.REFUSED
    assert (await Store(backend).session("s").entries())[-1] == "mine"


class Hooked(Forwarding):
    """Something happens right after the first read, which is of the head alone."""

    def __init__(self, backend: Backend, event: Callable[[], Awaitable[object]]) -> None:
        super().__init__(backend)
        self.events = [event]

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await super().read(key, *reads)
        if self.events:
            await self.events.pop()()
        return snapshot


async def test_a_session_made_anew_after_a_look_at_it_is_copied_as_it_is_now(
    source: Backend, backend: Backend
) -> None:
    session = Store(source).session("s")
    await session.append(1)

    async def recreate() -> None:
        await session.delete()
        await Store(source).session("s").append(2)

    assert await copy_one(Hooked(source, recreate), backend) is Fate.COPIED
    assert await same_items(source, backend)


@pytest.mark.parametrize("side", ["source", "target"])
async def test_what_is_written_while_copies_are_compared_is_no_difference(
    source: Backend, backend: Backend, side: str
) -> None:
    await Store(source).session("s").append(1)
    await copy(source, backend)
    if side == "source":
        hooked = Hooked(source, Store(source).session("s").delete)
        assert await copy_one(hooked, backend, verify=True) is Fate.ABSENT
        return
    hooked = Hooked(backend, lambda: Store(backend).session("s").append(2))
    (refused,) = (await copy(source, hooked, verify=True)).values()
    assert refused.reason == "it is there, and not as an earlier copy left it"


class Forgetful(Forwarding):
    """Cannot say what became of the first commit, which never came."""

    forgot = False

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if not self.forgot:
            self.forgot = True
            raise OutcomeUnknown("too long ago", commit=commit, forgotten=True)
        return await super().commit(key, commit)


async def test_a_commit_that_the_target_cannot_remember_is_made_again(
    source: Backend, backend: Backend
) -> None:
    await Store(source).session("s").append(1)
    assert await copy_one(source, Forgetful(backend)) is Fate.COPIED
    assert await same_items(source, backend)


class FailedOver(Forwarding):
    """After some reads another server answers, that has a history of its own."""

    def __init__(self, backend: Backend, successor: Backend, reads: int) -> None:
        super().__init__(backend)
        self.successor = successor
        self.reads = reads

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self.reads -= 1
        backend, epoch = (self.backend, b"1") if self.reads >= 0 else (self.successor, b"2")
        snapshot = await backend.read(key, *reads)
        return msgspec.structs.replace(snapshot, epoch=epoch)


async def test_a_source_that_failed_over_between_two_pages_is_read_anew(
    source: Backend, backend: Backend
) -> None:
    session = await large(source)
    replica = MemoryBackend()
    await copy(source, replica)
    await session.cells.put("c00", "lost")
    for n in range(3):
        await Store(replica).session("s").append(n)
    failing = FailedOver(Narrow(source), Narrow(replica), 4)
    assert await copy_one(failing, backend) is Fate.COPIED
    assert await same_items(replica, backend)


class Overtaken(Forwarding):
    """Somebody writes as soon as a commit is done."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        await Store(self.backend).session(key.id).append("at once")
        return made


async def test_a_copy_written_to_at_once_is_said_to_be_not_compared(
    source: Backend, backend: Backend
) -> None:
    await Store(source).session("s").append(1)
    (copied,) = (await copy(source, Overtaken(backend))).values()
    assert (copied.fate, copied.digest) == (Fate.COPIED, None)
    assert "before it could be compared" in str(copied.reason)
    assert await Store(backend).session("s").entries() == [1, "at once"]


async def test_several_copies_at_once_are_as_one(source: Backend, backend: Backend) -> None:
    for n in range(30):
        await Store(source).session(f"s{n}").append(n)
    runs = await asyncio.gather(*(fates(source, backend) for _ in range(4)))
    for n in range(30):
        assert sorted(run[f"s{n}"] for run in runs) == ["copied", *["present"] * 3]
    assert await everything(Store(backend)) == await everything(Store(source))
