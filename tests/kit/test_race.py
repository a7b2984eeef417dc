"""The workload of a race is one that makes faults show.

Its tasks run here in one process, on backends that are broken on purpose and let others have
their turn at the worst moment.
"""

import asyncio
import random
from pathlib import Path

import pytest

from perdure.backend import Backend
from perdure.testing import Process
from perdure.testing.faults import Forwarding
from perdure.testing.race import judge
from perdure.testing.recorder import AnyCall, Deletion, Recorder, Sight, Write
from perdure.testing.writer import LEASE, Assignment, Task
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot

from tests.backends.memory.durable import DurableHarness, DurableMemory
from tests.core.virtual_time import VirtualTimeLoop
from tests.mutants import broken_commits, broken_lives, broken_reads

TASKS = 16
APPENDS = 100
SESSIONS = (SessionKey("t", "session", "lasting"), SessionKey("t", "session", "mortal"))


class Line(Forwarding):
    """The way to a backend: a few milliseconds long, so that tasks meet there."""

    def __init__(self, backend: Backend, seed: int) -> None:
        super().__init__(backend)
        self.chance = random.Random(seed)

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        await self.pause()
        return await super().read(key, *reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        await self.pause()
        return await super().commit(key, commit)

    async def pause(self) -> None:
        await asyncio.sleep(self.chance.randrange(1, 3) / 1000)


def assignment(notes: Path, *, tasks: int, appends: int) -> Assignment:
    return Assignment(
        process=Process("perdure_memory.backend:MemoryBackend", ""),
        name="0",
        sessions=SESSIONS,
        mortal=SESSIONS[1:],
        tasks=tasks,
        appends=appends,
        notes=str(notes),
    )


def race(backend: type[DurableMemory], path: Path) -> tuple[list[str], list[AnyCall]]:
    """What a race on this backend shows, and its calls. Always runs the same way."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(run(backend, path))


async def run(backend: type[DurableMemory], path: Path) -> tuple[list[str], list[AnyCall]]:
    harness = DurableHarness(backend)
    calls: list[AnyCall] = []
    work = assignment(path, tasks=TASKS, appends=APPENDS)
    lines = [Line(await harness.open(), seed) for seed in range(2)]
    clients = [Recorder(line, calls.append) for line in lines]
    tasks = [Task(clients[n % 2], work, n) for n in range(work.tasks)]
    await asyncio.gather(*(task.run() for task in tasks))
    told = list(calls)
    return await judge(clients[0], told), told


def test_a_sound_backend_passes_and_every_kind_of_call_occurs(tmp_path: Path) -> None:
    found, calls = race(DurableMemory, tmp_path)
    assert found == []
    answered = [call for call in calls if call.returned is not None]
    writes = [call for call in answered if isinstance(call, Write)]
    assert sum(call.applied for call in writes) == TASKS * APPENDS
    assert any(call.replayed for call in writes)
    refused = [call for call in writes if call.refusal]
    assert {call.refusal for call in refused} == {"Conflict", "SessionDeleted"}
    conditions = [condition for call in refused for condition in call.commit.conditions]
    assert any(condition.key == LEASE and condition.version for condition in conditions)
    assert any(call.deleted for call in answered if isinstance(call, Deletion))
    assert any(isinstance(call, Sight) and call.scans for call in answered)


@pytest.mark.parametrize(
    "mutant",
    [
        broken_commits.LosesConcurrentCommits,
        broken_commits.ChecksConditionsTooEarly,
        broken_commits.ChecksExpectationsTooEarly,
        broken_commits.IgnoresFences,
        broken_commits.AppliesPutsOnConflict,
        broken_commits.CountsConflicts,
        broken_commits.ForgetsLastDelete,
        broken_commits.KeepsTheFirstStamp,
        broken_lives.DeletesRegardless,
        broken_lives.DeletesAnyIncarnation,
        broken_reads.MixesVersions,
        broken_reads.ReadsRangesOneByOne,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_a_broken_backend_does_not_pass(mutant: type[DurableMemory], tmp_path: Path) -> None:
    found, _ = race(mutant, tmp_path)
    assert found
