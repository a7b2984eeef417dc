"""Races between processes, with exact accounting of everything that was acknowledged."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from asyncio.subprocess import Process as Child
from collections import defaultdict

import msgspec
import pytest

from perdure.backend import Backend, Durability
from perdure.testing.harness import Harness, Process
from perdure.testing.history import Operation, violations
from perdure.testing.rooms.room import Connect, Room
from perdure.testing.shorthand import read_items, write
from perdure.testing.writer import Assignment, Report
from perdure.types import SessionKey

PROCESSES = 4
TASKS = 4
APPENDS = 200

Histories = defaultdict[SessionKey, list[Operation]]


def process_of(harness: Harness) -> Process:
    if harness.process is None:
        pytest.skip("this backend is of one process")
    return harness.process


async def start(assignment: Assignment) -> Child:
    """A child process that has been told what to do and waits for the signal to begin."""
    # Harnesses may live in a test's own folder, which only the parent's path knows.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "perdure.testing.writer",
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert child.stdin is not None
    child.stdin.write(msgspec.json.encode(assignment) + b"\n")
    await child.stdin.drain()
    return child


def note(histories: Histories, lines: bytes) -> int:
    """Enter the reports in ``lines`` that are complete; return how many there were."""
    count = 0
    for line in lines.splitlines(keepends=True):
        if line.startswith(b"{") and line.endswith(b"}\n"):
            report = msgspec.json.decode(line, type=Report)
            histories[report.session].append(report.operation)
            count += 1
    return count


async def check(backend: Backend, histories: Histories) -> None:
    for session, operations in histories.items():
        head = (await backend.read(session)).head
        assert violations(operations, await read_items(backend, session), head) == []


def under_way(operations: list[Operation], life: str) -> None:
    """Enter what a killed process may have had under way: one operation for each task."""
    for task in range(TASKS):
        writer = f"{life}.{task}"
        number = 1 + max((o.number for o in operations if o.writer == writer), default=-1)
        value = f"{writer}/{number}".encode()
        operations.append(Operation(writer=writer, number=number, value=value, version=None))


class Races(Room):
    async def test_sixteen_writers_in_four_processes_lose_double_and_reorder_nothing(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        process = process_of(harness)
        sessions = tuple(SessionKey(key.tenant, key.kind, str(n)) for n in range(4))
        children = [
            await start(Assignment(process, str(n), sessions, TASKS, APPENDS))
            for n in range(PROCESSES)
        ]
        histories: Histories = defaultdict(list)
        try:
            for child in children:
                assert child.stdout is not None
                assert await child.stdout.readline() == b"ready\n"
            results = await asyncio.gather(*(child.communicate(b"go\n") for child in children))
        finally:
            for child in children:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        for child, (out, errors) in zip(children, results, strict=True):
            assert child.returncode == 0, errors.decode()
            assert note(histories, out) == TASKS * APPENDS
        backend = await connect()
        await check(backend, histories)
        assert sum(map(len, histories.values())) == PROCESSES * TASKS * APPENDS

    async def test_a_killed_process_loses_nothing_acknowledged(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        process = process_of(harness)
        backend = await connect()
        if backend.capabilities.durability is Durability.NONE:
            pytest.skip("nothing outlives this backend")
        histories: Histories = defaultdict(list)
        for life in range(3):
            child = await start(Assignment(process, str(life), (key,), TASKS, 100_000))
            assert child.stdin is not None
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
            child.stdin.write(b"go\n")
            lines = b"".join([await child.stdout.readline() for _ in range(50)])
            child.kill()
            rest, _ = await child.communicate()
            told = note(histories, lines + rest)
            assert told >= 50
            under_way(histories[key], str(life))
        await check(backend, histories)
        last = max(o.version for o in histories[key] if o.version is not None)
        assert (await write(backend, key)).version > last
