"""Exclusive turns of processes that are stopped and killed.

``PERDURE_TAKEOVERS=1000`` races until so many leases were lost to others, on each database.
"""

import asyncio
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from perdure import LeaseHeld, Store

from tests.races.lease_worker import Task

TAKEOVERS = int(os.environ.get("PERDURE_TAKEOVERS", "40"))
PROCESSES = 4
SESSIONS = 16
LEASE = 0.3

Database = tuple[str, str]
"""Its URL, and a tenant of the test's own."""


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    tenant = f"leases-{uuid4()}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sessions.db'}", tenant
    fixture = {"redis": "valkey_url", "postgres": "postgres_url"}[request.param]
    return request.getfixturevalue(fixture), tenant


@asynccontextmanager
async def child(task: Task) -> AsyncGenerator[Process, None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.races.lease_worker",
        stdin=PIPE,
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def word(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return (await process.stdout.readline()).decode().strip()


async def test_a_killed_holder_is_taken_over_from_within_its_lease(database: Database) -> None:
    url, tenant = database
    async with (
        Store(url, tenant=tenant) as store,
        child(Task(url, tenant, "hold", lease=1.0)) as holder,
    ):
        assert [await word(holder), await word(holder)] == ["asking", "held"]
        await asyncio.sleep(0.5)  # long enough for a renewal
        with pytest.raises(LeaseHeld):
            await store.session("0").turn(exclusive=True).__aenter__()
        holder.kill()
        killed = time.monotonic()
        async with store.session("0").turn(exclusive=True, wait=20) as turn:
            assert time.monotonic() - killed < 2.5
            assert await turn.entries() == []


async def test_a_killed_waiter_holds_up_the_others_no_longer_than_its_ticket(
    database: Database,
) -> None:
    url, tenant = database
    async with Store(url, tenant=tenant) as store:
        async with (
            store.session("0").turn(exclusive=True),
            child(Task(url, tenant, "hold", lease=1.0)) as waiter,
        ):
            assert await word(waiter) == "asking"
            await _queue_is_not_empty(store)
            waiter.kill()
            killed = time.monotonic()
        async with store.session("0").turn(exclusive=True, wait=20):
            assert time.monotonic() - killed < 2.5


async def _queue_is_not_empty(store: Store) -> None:
    """A waiter changes the session when it puts its ticket in the queue."""
    session = store.session("0")
    head = await session.head()
    assert head is not None
    async with asyncio.timeout(20):
        while head.version < 2:
            await asyncio.sleep(0.01)
            head = await session.head()
            assert head is not None


async def test_a_stopped_holder_that_wakes_can_neither_write_nor_free_the_lease(
    database: Database,
) -> None:
    url, tenant = database
    async with (
        Store(url, tenant=tenant) as store,
        child(Task(url, tenant, "hold", lease=LEASE)) as holder,
    ):
        assert [await word(holder), await word(holder)] == ["asking", "held"]
        holder.send_signal(signal.SIGSTOP)
        async with store.session("0").turn(exclusive=True, wait=20) as turn:
            holder.send_signal(signal.SIGCONT)
            assert holder.stdin is not None
            holder.stdin.write(b"end it\n")
            assert await word(holder) == "lost"
            with pytest.raises(LeaseHeld):  # it is still ours
                await store.session("0").turn(exclusive=True).__aenter__()
            turn.append("parent")
        assert await store.session("0").entries() == ["parent"]


async def test_no_stale_write_in_many_takeovers(database: Database, tmp_path: Path) -> None:
    """Processes race for sessions while each is stopped, again and again, for longer than a
    lease lasts. Who has lost one never writes: numbers and fences grow with the log."""
    url, tenant = database
    notes = [tmp_path / f"{n}.txt" for n in range(PROCESSES)]
    tasks = [Task(url, tenant, "race", SESSIONS, LEASE, notes=str(file)) for file in notes]
    async with Store(url, tenant=tenant) as store:
        racing = [asyncio.create_task(_disturbed(task)) for task in tasks]
        try:
            async with asyncio.timeout(60 + TAKEOVERS):
                while _lost(notes) < TAKEOVERS:
                    await asyncio.sleep(0.1)
                    for task in racing:
                        assert not task.done(), task.result()
        finally:
            for task in racing:
                task.cancel()
            await asyncio.gather(*racing, return_exceptions=True)
        acknowledged = _acknowledged(notes)
        for n in range(SESSIONS):
            entries = await store.session(str(n)).entries()
            assert [number for number, _ in entries] == list(range(len(entries)))
            fences = [fence for _, fence in entries]
            assert fences == sorted(set(fences))
            assert set(acknowledged[str(n)]) <= {tuple(entry) for entry in entries}
            # At most the last words of each process were not heard.
            assert len(entries) <= len(acknowledged[str(n)]) + PROCESSES


async def _disturbed(task: Task) -> None:
    """Have a process race, and stop it again and again."""
    async with child(task) as process:
        assert await word(process) == "racing"
        while process.returncode is None:
            await asyncio.sleep(random.uniform(0.2, 0.6))
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(LEASE + 0.1)
            process.send_signal(signal.SIGCONT)
    raise AssertionError(f"a racing process has ended with {process.returncode}")


def _lines(notes: list[Path]) -> list[list[str]]:
    texts = [file.read_text() for file in notes if file.exists()]
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    return [line.split() for line in lines if line.endswith("\n")]


def _lost(notes: list[Path]) -> int:
    return sum(line[1] == "lost" for line in _lines(notes))


def _acknowledged(notes: list[Path]) -> dict[str, list[tuple[int, int]]]:
    """By session: the entries (number, fence) of turns that were acknowledged."""
    found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in _lines(notes):
        if line[1] != "lost":
            found[line[0]].append((int(line[1]), int(line[2])))
    return found
