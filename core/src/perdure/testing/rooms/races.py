"""Races between processes, with exact accounting of everything that was acknowledged."""

import asyncio
from pathlib import Path

import pytest

from perdure.testing.harness import Harness, Process
from perdure.testing.race import calls_of, judge, kill, race, start
from perdure.testing.recorder import Write
from perdure.testing.rooms.room import Connect, Room, sibling
from perdure.testing.shorthand import read_head, write
from perdure.testing.writer import Assignment
from perdure.types import SessionKey

PROCESSES = 4
TASKS = 4
APPENDS = 100


def process_of(harness: Harness) -> Process:
    if harness.process is None:
        pytest.skip("this backend is of one process")
    return harness.process


class Races(Room):
    async def test_sixteen_writers_in_four_processes_lose_double_and_reorder_nothing(
        self, harness: Harness, connect: Connect, key: SessionKey, tmp_path: Path
    ) -> None:
        """Appends, comparisons, counters, leases, deletions: what each was told adds up."""
        process = process_of(harness)
        sessions = tuple(sibling(key, str(n)) for n in range(4))
        calls = await race(
            Assignment(
                process=process,
                name=str(n),
                sessions=sessions,
                mortal=sessions[2:],
                tasks=TASKS,
                appends=APPENDS,
                notes=str(tmp_path / f"{n}.jsonl"),
            )
            for n in range(PROCESSES)
        )
        made = [call for call in calls if isinstance(call, Write) and call.applied]
        assert len(made) == PROCESSES * TASKS * APPENDS
        assert await judge(await connect(), calls) == []

    async def test_a_killed_process_loses_nothing_acknowledged(
        self, harness: Harness, connect: Connect, key: SessionKey, tmp_path: Path
    ) -> None:
        process = process_of(harness)
        backend = await connect()
        if not harness.persistent:
            pytest.skip("nothing outlives this backend")
        assignments = [
            Assignment(
                process=process,
                name=str(life),
                sessions=(key,),
                mortal=(),
                tasks=TASKS,
                appends=100_000,
                notes=str(tmp_path / f"{life}.jsonl"),
            )
            for life in range(3)
        ]
        for life, assignment in enumerate(assignments, 1):
            child = await start(assignment)
            try:
                assert child.stdin is not None
                child.stdin.write(b"go\n")
                while (head := (await backend.read(key)).head) is None or (
                    head.version < 50 * life
                ):
                    assert child.returncode is None
            finally:
                await kill(child)
        await asyncio.sleep(0.2)  # what the last one has sent may still arrive
        calls = [call for assignment in assignments for call in calls_of(assignment)]
        assert await judge(backend, calls) == []
        last = await read_head(backend, key)
        assert last.version >= 150
        assert (await write(backend, key)).version == last.version + 1
