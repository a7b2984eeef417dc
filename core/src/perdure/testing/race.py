"""A race between processes, from the outside: start them, stop them, judge what they say."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from asyncio.subprocess import Process as Child
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from perdure.backend import Backend
from perdure.testing.history import violations
from perdure.testing.recorder import AnyCall
from perdure.testing.shorthand import read_items
from perdure.testing.writer import Assignment
from perdure.types import SessionKey

DECODER = msgspec.json.Decoder(AnyCall)


async def start(assignment: Assignment) -> Child:
    """A child process that has been told what to do and is ready to begin."""
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
    assert child.stdout is not None
    child.stdin.write(msgspec.json.encode(assignment) + b"\n")
    await child.stdin.drain()
    if await child.stdout.readline() != b"ready\n":
        _, errors = await child.communicate()
        raise AssertionError(errors.decode())
    return child


async def race(assignments: Iterable[Assignment]) -> list[AnyCall]:
    """Have all of them done at once, each by a process; all calls that they made."""
    assignments = list(assignments)
    starting = [asyncio.create_task(start(assignment)) for assignment in assignments]
    try:
        started = await asyncio.gather(*starting)
        results = await asyncio.gather(*(child.communicate(b"go\n") for child in started))
    finally:
        for child in await asyncio.gather(*starting, return_exceptions=True):
            if isinstance(child, Child):
                await kill(child)
    for child, (_, errors) in zip(started, results, strict=True):
        assert child.returncode == 0, errors.decode()
    return [call for assignment in assignments for call in calls_of(assignment)]


async def kill(child: Child) -> None:
    """Kill a process, if it is still there, and wait for its end."""
    if child.returncode is None:
        child.kill()
        await child.communicate()


def calls_of(assignment: Assignment) -> list[AnyCall]:
    """What a process has noted; of one that was killed, the last line may be torn."""
    lines = Path(assignment.notes).read_bytes().splitlines(keepends=True)
    return [DECODER.decode(line) for line in lines if line.endswith(b"\n")]


async def judge(backend: Backend, calls: Iterable[AnyCall]) -> list[str]:
    """What the sessions that these calls were about have against them: see
    :func:`perdure.testing.history.violations`."""
    sessions: defaultdict[SessionKey, list[AnyCall]] = defaultdict(list)
    for call in calls:
        sessions[call.key].append(call)
    found: list[str] = []
    for key, about in sessions.items():
        head = (await backend.read(key)).head
        items = await read_items(backend, key)
        found += [f"{key.id}: {wrong}" for wrong in violations(about, items, head)]
    return found
