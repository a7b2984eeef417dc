"""Copying over a bad line, after it was stopped anywhere, and all of that at once."""

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from perdure import Session, Store
from perdure.backend import Backend
from perdure.copying import Fate
from perdure.errors import OutcomeUnknown, Unavailable
from perdure.testing import TestClock
from perdure.testing.faults import DropRequests, Forwarding, LoseReplies
from perdure.types import At, Commit, Committed, Expect, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from tests.core.bad_line import BadLine
from tests.core.copies import (
    answers,
    copy,
    everything,
    fates,
    large,
    noise,
)
from tests.core.truth import Truth
from tests.core.virtual_time import VirtualTimeLoop
from tests.core.wrappers import Narrow

SEEDS = int(os.environ.get("PERDURE_COPY_SEEDS", "20"))

R = TypeVar("R")


@pytest.fixture
def source(clock: TestClock) -> MemoryBackend:
    """What is copied from, to the ``backend``."""
    return MemoryBackend(clock=clock)


# A bad line


@pytest.mark.parametrize("bad", [LoseReplies, DropRequests])
async def test_lost_requests_and_replies_change_nothing(
    source: Backend, backend: Backend, bad: type[LoseReplies | DropRequests]
) -> None:
    for n in range(30):
        await Store(source).session(f"s{n}").append(n)
    faulty = bad(backend, range(0, 1000, 2))
    for expected in ("copied", "replaced"):
        assert set((await fates(source, faulty)).values()) == {expected}
        assert faulty.faults > 10
        assert await everything(Store(backend)) == await everything(Store(source))
        for n in range(30):
            await Store(source).session(f"s{n}").append(n)


class Power:
    """What keeps a process running: it fails at one of the calls."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def use(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise PowerCut


class PowerCut(Exception):
    """The process is gone."""


class Powered(Forwarding):
    """Each call is a moment before it, and one after it."""

    def __init__(self, backend: Backend, power: Power) -> None:
        super().__init__(backend)
        self.power = power

    async def _through(self, call: Awaitable[R]) -> R:
        try:
            self.power.use()
        except PowerCut:
            asyncio.ensure_future(call).cancel()
            raise
        result = await call
        self.power.use()
        return result

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        return await self._through(super().read(key, *reads))

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await self._through(super().commit(key, commit))

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        await self._through(super().stage(key, incarnation, stage, puts))

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        return await self._through(
            super().delete(key, id=id, expect=expect, incarnation=incarnation)
        )


async def test_whenever_it_is_stopped_another_run_completes_it(source: Backend) -> None:
    """After every single step. Nothing at the target is ever half of a session."""
    await large(source)
    old, here = MemoryBackend(), Store(source)
    for id in ("older", "present", "other"):
        await here.session(id).append(id)
    await copy(source, old)
    await here.session("older").append("more")
    await here.session("s").append("more")
    await here.session("other").delete()
    await here.session("other").append("anew")
    expected = await everything(here)
    steps = 0
    while True:
        target, power = MemoryBackend(), Power(steps)
        await copy(old, target)
        before = await everything(Store(target))
        cut = Powered(Narrow(target, commit_bytes=5000), power)
        try:
            await copy(Powered(Narrow(source, read_bytes=300), power), cut, overwrite=True)
        except PowerCut:
            for key, said in (await everything(Store(target))).items():
                assert said in (expected.get(key), before.get(key))
            await copy(source, target, overwrite=True)
            assert await everything(Store(target)) == expected
            steps += 1
        else:
            break
    assert steps > 100


# All at once, at random


async def one_run(seed: int) -> None:
    """Writers, and a copy that is stopped now and then, over bad lines, into an untouched
    target: it only ever holds what was at the source at that version."""
    chance = random.Random(seed)
    truth, target = Truth(MemoryBackend()), MemoryBackend()
    names = [SessionKey("default", "session", f"s{n}") for n in range(4)]

    async def write() -> None:
        for _ in range(25):
            key = chance.choice(names)
            if chance.random() < 0.1:
                await Store(truth).session(key.id).delete()
            else:
                await note(Store(truth).session(key.id), chance)
            await asyncio.sleep(chance.random() * 0.05)

    def line(backend: Backend) -> BadLine:
        return BadLine(
            backend,
            chance,
            faults=chance.choice([0, 0.02, 0.1]),
            read_bytes=chance.choice([200, 2000, 1 << 20]),
            commit_bytes=chance.choice([70_000, 1 << 20]),
        )

    async def check() -> None:
        async for entry in Store(target).list():
            said = await answers(Store(target), entry.key)
            state = truth.states[entry.key.id, said["incarnation"], entry.head.version]
            assert [*zip(said["positions"], said["entries"], strict=True)] == state.log
            assert said["cells"] == state.cells
            assert said["document"] == (None if state.document is None else [state.document])

    writers = [asyncio.create_task(write()) for _ in range(3)]
    while not all(writer.done() for writer in writers):
        await asyncio.sleep(0.01)  # no time passes while there is nothing to copy
        run = asyncio.create_task(
            copy(line(truth), line(target), overwrite=chance.random() < 0.5, deadline=0.5)
        )
        await asyncio.wait((run,), timeout=chance.choice([0.05, 0.5, 100]))
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError, Unavailable, OutcomeUnknown):
            await run
        await check()
    await asyncio.gather(*writers)
    reports = await copy(truth, target, overwrite=True, verify=True)
    assert {report.fate for report in reports.values()} <= {
        Fate.COPIED,
        Fate.REPLACED,
        Fate.PRESENT,
    }
    for key in names:
        if said := await answers(Store(truth), key):
            assert await answers(Store(target), key) == said


async def note(session: Session, chance: random.Random) -> None:
    """A change that :class:`Truth` understands."""
    number = chance.randrange(1 << 60)
    match chance.randrange(6):
        case 0 | 1:
            await session.append([number, noise(chance, chance.choice([4, 3000, 80_000]))])
        case 2:
            await session.cells.update({f"c{chance.randrange(9)}": number, "n": number})
        case 3:
            await session.cells.delete(f"c{chance.randrange(9)}")
        case 4:
            await session.pop()
        case _:
            entries = await session.entries()
            if entries:
                await session.truncate(after=chance.choice(entries.positions))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_copies_are_true_whatever_happens(seed: int) -> None:
    pauses = random.getstate()
    random.seed(seed)  # the store's own: of its pauses
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(one_run(seed))
    finally:
        random.setstate(pauses)
