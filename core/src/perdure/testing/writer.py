"""One process of a race: ``python -m perdure.testing.writer``.

It reads an :class:`Assignment` as a line of JSON, opens a backend of its own, says ``ready``,
waits for another line, and writes. Each acknowledged append is reported as a line of JSON as
soon as it is acknowledged, so that a reader knows them even of a process that was killed.
"""

import asyncio
import sys
import time
from importlib import import_module
from operator import attrgetter

import msgspec

from perdure.backend import Backend
from perdure.errors import Conflict
from perdure.testing.harness import Process
from perdure.testing.history import Operation
from perdure.testing.shorthand import at, write
from perdure.types import Append, At, Expect, SessionKey

LOG = b"log/"


class Assignment(msgspec.Struct, frozen=True):
    """What one process is to do."""

    process: Process
    name: str
    sessions: tuple[SessionKey, ...]
    """Its tasks write to these in turn."""
    tasks: int
    appends: int
    """For each task."""


class Report(msgspec.Struct, frozen=True):
    """One acknowledged append."""

    session: SessionKey
    operation: Operation


def open_backend(process: Process) -> Backend:
    """The backend that a harness's ``process`` describes."""
    module, _, name = process.factory.partition(":")
    backend = attrgetter(name)(import_module(module))(process.argument)
    if not isinstance(backend, Backend):
        raise TypeError(f"{process.factory} returned {type(backend).__name__}, not a Backend")
    return backend


async def append(backend: Backend, key: SessionKey, value: bytes, *, compare: bool) -> int:
    """Append one value, on condition that nobody else did meanwhile if ``compare``."""
    while True:
        expect: Expect | At = Expect.ANY
        if compare:
            head = (await backend.read(key)).head
            expect = Expect.ABSENT if head is None else at(head)
        try:
            made = await write(backend, key, expect=expect, appends=(Append(LOG, (value,)),))
        except Conflict:
            continue
        return made.version


async def work(backend: Backend, assignment: Assignment, task: int) -> None:
    writer = f"{assignment.name}.{task}"
    for number in range(assignment.appends):
        session = assignment.sessions[(task + number) % len(assignment.sessions)]
        value = f"{writer}/{number}".encode()
        invoked = time.monotonic()
        version = await append(backend, session, value, compare=number % 3 == 2)
        operation = Operation(
            writer=writer,
            number=number,
            value=value,
            version=version,
            invoked=invoked,
            returned=time.monotonic(),
        )
        line = msgspec.json.encode(Report(session, operation))
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


async def run(assignment: Assignment) -> None:
    backend = open_backend(assignment.process)
    try:
        sys.stdout.buffer.write(b"ready\n")
        sys.stdout.buffer.flush()
        await asyncio.to_thread(sys.stdin.buffer.readline)
        await asyncio.gather(*(work(backend, assignment, n) for n in range(assignment.tasks)))
    finally:
        await backend.aclose()


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Assignment)))
