"""Exclusive turns of clients that are paused, cancelled and badly connected, at random.

In virtual time, so that a seed runs the same way but for the real milliseconds that a client
counts between two answers. ``PERDURE_LEASE_SEEDS=2000`` runs so many.
"""

import asyncio
import os
import random
from typing import TypeVar

import pytest

from perdure import (
    LeaseHeld,
    LeaseLost,
    OutcomeUnknown,
    Session,
    Store,
    Unavailable,
)
from perdure.backend import Backend

from perdure_memory.backend import MemoryBackend
from tests.core.bad_line import BadLine
from tests.core.virtual_time import VirtualTimeLoop

R = TypeVar("R")

SEEDS = int(os.environ.get("PERDURE_LEASE_SEEDS", "8"))
CLIENTS = 5
TASKS = 2
"""Of each client, which share a handle."""
TURNS = 12
"""Of each task."""


class Pausing(BadLine):
    """Stands still from time to time, as a process does; then nothing comes or goes."""

    def __init__(self, backend: Backend, chance: random.Random) -> None:
        super().__init__(backend, chance, faults=0.02, read_bytes=1 << 20, commit_bytes=1 << 20)
        self._running = asyncio.Event()
        self._running.set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0, 3))
            self._running.clear()
            await asyncio.sleep(self.chance.uniform(0, 3))
            self._running.set()

    async def _pause(self) -> None:
        await super()._pause()
        await self._running.wait()


class Clients:
    """Several processes, as far as the backend can tell, and what they were told."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._backend = MemoryBackend(clock=self._now)
        self.acknowledged: set[tuple[int, int]] = set()
        """(number, fence) of entries whose turn was acknowledged."""
        self.unknown = 0
        """Turns that were cancelled, or whose outcome nobody was told."""
        self.lost = 0

    def _now(self) -> int:
        return 1_700_000_000_000 + int(asyncio.get_running_loop().time() * 1000)

    async def run(self) -> list[list[int]]:
        """Race, and return the entries that are there then."""
        lines = [Pausing(self._backend, self._chance) for _ in range(CLIENTS)]
        pausing = [asyncio.create_task(line.run()) for line in lines]
        sessions = [Store(line, deadline=5).session("s") for line in lines]
        async with asyncio.TaskGroup() as group:
            for session in sessions * TASKS:
                group.create_task(self._work(session))
        for task in pausing:
            task.cancel()
        await asyncio.wait(pausing)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return await Store(self._backend).session("s").entries()

    async def _work(self, session: Session) -> None:
        chance = self._chance
        for _ in range(TURNS):
            limit = chance.choice([None, None, chance.uniform(0, 5)])
            try:
                async with asyncio.timeout(limit):
                    await self._turn(session)
            except LeaseLost:
                self.lost += 1
            except (TimeoutError, OutcomeUnknown):
                self.unknown += 1
            except (LeaseHeld, Unavailable, ZeroDivisionError):
                pass
            await asyncio.sleep(chance.uniform(0, 0.5))

    async def _turn(self, session: Session) -> None:
        chance = self._chance
        wait, lease = chance.choice([None, 1, 60]), chance.choice([0.1, 0.5, 2.0])
        async with session.turn(exclusive=True, wait=wait, lease=lease) as turn:
            assert turn.lease is not None
            last = await turn.entries(last=1)
            entry = last[0][0] + 1 if last else 0, turn.lease.fence
            await asyncio.sleep(chance.uniform(0, 1))
            if chance.random() < 0.1:
                raise ZeroDivisionError
            turn.append(list(entry))
        self.acknowledged.add(entry)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_who_writes_has_the_lease(seed: int) -> None:
    """Each has built on the entry before, and each has a larger fence."""
    pauses = random.getstate()
    random.seed(seed)  # the store's own: of its pauses
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            clients = Clients(seed)
            entries = runner.run(clients.run())
    finally:
        random.setstate(pauses)
    assert [number for number, _ in entries] == list(range(len(entries)))
    fences = [fence for _, fence in entries]
    assert fences == sorted(set(fences))
    assert clients.acknowledged <= {(number, fence) for number, fence in entries}
    assert len(entries) <= len(clients.acknowledged) + clients.unknown
    assert clients.lost
    assert clients.acknowledged
