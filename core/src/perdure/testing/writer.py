"""One process of a race: ``python -m perdure.testing.writer``.

It reads an :class:`Assignment` as a line of JSON, opens a backend of its own, says ``ready``,
waits for another line, and writes. What its tasks ask and are told goes to a file, call by
call, as lines of JSON, so that a reader knows it even of a process that was killed.
"""

import asyncio
import random
import sys
from collections import deque
from contextlib import suppress
from importlib import import_module
from operator import attrgetter
from typing import Unpack

import msgspec

from perdure.backend import Backend
from perdure.errors import Conflict, OutcomeUnknown, SessionDeleted
from perdure.testing.harness import Process
from perdure.testing.recorder import AnyCall, Recorder
from perdure.testing.shorthand import CommitFields, at, new_commit, new_id, resent
from perdure.types import (
    Append,
    Commit,
    Committed,
    Condition,
    Expect,
    Get,
    Head,
    Item,
    KeyRange,
    ListQuery,
    Order,
    Scan,
    SessionKey,
)

LOG = b"log/"
CELLS = KeyRange(b"cell/", b"cell0")
COUNTER = b"counter"
LEASE = b"lease"

TRIES = 3
"""How often a task tries to be faster than all others, before it gives in to them."""


class Assignment(msgspec.Struct, frozen=True):
    """What one process is to do."""

    process: Process
    name: str
    sessions: tuple[SessionKey, ...]
    """Its tasks write to these at random."""
    mortal: tuple[SessionKey, ...]
    """Those of them that may be deleted, and are then made again by the next writer."""
    tasks: int
    appends: int
    """For each task: so many commits that append are acknowledged."""
    notes: str
    """The path of the file for its calls."""


def open_backend(process: Process) -> Backend:
    """The backend that a harness's ``process`` describes."""
    module, _, name = process.factory.partition(":")
    backend = attrgetter(name)(import_module(module))(process.argument)
    if not isinstance(backend, Backend):
        raise TypeError(f"{process.factory} returned {type(backend).__name__}, not a Backend")
    return backend


class Task:
    """One writer. Every commit of its appends one value that nobody else appends."""

    def __init__(self, backend: Backend, assignment: Assignment, number: int) -> None:
        self.backend = backend
        self.assignment = assignment
        self.name = f"{assignment.name}.{number}"
        self.chance = random.Random(self.name)
        self.made = 0
        self.tried = 0
        self.known: dict[SessionKey, Head] = {}
        """The heads that it has seen last: of use to those who name what they have seen."""
        self.leases: dict[SessionKey, tuple[bytes, int]] = {}
        """What it holds, or thinks to hold: the incarnation, and the version of the commit
        that took the lease. Whoever takes it over changes that version."""
        self.kinds = [self.append, self.hold] * 4
        self.kinds += [self.compare, self.count, self.bound, self.take] * 2
        self.kinds += [self.clear, self.look, self.repeat]
        self.sent: deque[tuple[SessionKey, Commit]] = deque(maxlen=8)
        """Commits that were acknowledged."""

    async def run(self) -> None:
        while self.made < self.assignment.appends:
            key = self.chance.choice(self.assignment.sessions)
            if key in self.assignment.mortal and self.chance.random() < 0.04:
                await self.delete(key)
            await self.chance.choice(self.kinds)(key)
            if self.chance.random() < 0.1:  # others do what they like meanwhile
                await asyncio.sleep(self.chance.expovariate(200))
            if self.chance.random() < 0.01:
                await self.chance.choice([self.list, self.sweep])(key)

    async def send(self, key: SessionKey, **fields: Unpack[CommitFields]) -> Committed | None:
        """Commit, with one value appended; ``None`` if that was refused."""
        self.tried += 1
        fields["appends"] = (Append(LOG, (f"{self.name}/{self.tried}".encode(),)),)
        known = self.known.get(key)
        if known is not None and fields.get("incarnation") == known.incarnation:
            fields["base"] = known.version
        commit = new_commit(**fields)
        try:
            made = await self.backend.commit(key, commit)
        except (Conflict, SessionDeleted) as error:
            self.learn(key, error.head)
            return None
        self.learn(key, made.head)
        self.made += 1
        self.sent.append((key, commit))
        return made

    def learn(self, key: SessionKey, head: Head | None) -> None:
        if head is not None:
            self.known[key] = head
        else:
            self.known.pop(key, None)

    async def get(self, key: SessionKey, item: bytes) -> Item:
        """One item, of version 0 if it is not there."""
        snapshot = await self.backend.read(key, Get(item))
        self.learn(key, snapshot.head)
        found = snapshot.rows[0].items
        return found[0] if found else Item(item, b"", 0)

    def as_known(self, key: SessionKey) -> CommitFields:
        """What requires the incarnation that was seen last, or that there is none."""
        head = self.known.get(key)
        if head is None:
            return {"expect": Expect.ABSENT}
        return {"incarnation": head.incarnation}

    def cell(self) -> tuple[tuple[bytes, bytes]]:
        return ((b"cell/%d" % self.chance.randrange(8), self.name.encode()),)

    # Kinds of commits

    async def append(self, key: SessionKey) -> None:
        """Whatever is there."""
        await self.send(key, puts=self.cell())

    async def compare(self, key: SessionKey) -> None:
        """If nothing has happened since."""
        for _ in range(TRIES):
            head = self.known.get(key)
            expect = Expect.ABSENT if head is None else at(head)
            if await self.send(key, expect=expect, puts=self.cell()):
                return

    async def bound(self, key: SessionKey) -> None:
        """To no other incarnation than the one seen."""
        await self.send(key, **self.as_known(key))

    async def count(self, key: SessionKey) -> None:
        """Add one to a counter that others count on as well."""
        for _ in range(TRIES):
            found = await self.get(key, COUNTER)
            fields = self.as_known(key)
            fields["conditions"] = (Condition(COUNTER, found.version),)
            fields["puts"] = ((COUNTER, b"%d" % (int(found.value or b"0") + 1)),)
            if await self.send(key, **fields):
                return

    async def take(self, key: SessionKey) -> None:
        """The lease, from whoever holds it."""
        found = await self.get(key, LEASE)
        fields = self.as_known(key)
        fields["conditions"] = (Condition(LEASE, found.version),)
        fields["puts"] = ((LEASE, self.name.encode()),)
        made = await self.send(key, **fields)
        if made is not None:
            self.leases[key] = made.incarnation, made.version

    async def hold(self, key: SessionKey) -> None:
        """Write under a lease, however long ago it was taken."""
        if key in self.leases:
            incarnation, version = self.leases[key]
            lease = (Condition(LEASE, version),)
            if not await self.send(key, incarnation=incarnation, conditions=lease):
                del self.leases[key]

    async def clear(self, key: SessionKey) -> None:
        """All cells, also those that others write just now."""
        await self.send(key, deletes=(CELLS,))

    async def look(self, key: SessionKey) -> None:
        """Write nothing; read from all over the session."""
        tail = Scan(LOG, LOG + b"\xff", limit=3, reverse=True)
        cells = Scan(CELLS.start, CELLS.stop)
        snapshot = await self.backend.read(key, Get(COUNTER), tail, cells, Get(LEASE))
        self.learn(key, snapshot.head)

    async def list(self, key: SessionKey) -> None:
        """Look at all sessions at once."""
        order = self.chance.choice([*Order])
        await self.backend.list(key.tenant, key.kind, ListQuery(order=order))

    async def sweep(self, key: SessionKey) -> None:
        """Remove what nobody can see, of any session."""
        del key
        await self.backend.sweep()

    async def repeat(self, key: SessionKey) -> None:
        """A commit whose acknowledgement is taken for lost, whatever has happened since."""
        if self.sent:
            key, commit = self.chance.choice(self.sent)
            with suppress(OutcomeUnknown):  # forgotten, after so many others
                await self.backend.commit(key, resent(commit))

    async def delete(self, key: SessionKey) -> None:
        """The session, as it was seen last or whatever has happened to it since."""
        head = self.known.get(key)
        if head is None:
            return
        if self.chance.random() < 0.5:
            await self.backend.delete(key, id=new_id(), incarnation=head.incarnation)
            return
        with suppress(Conflict):
            await self.backend.delete(key, id=new_id(), expect=at(head))


async def run(assignment: Assignment) -> None:
    with open(assignment.notes, "wb", buffering=0) as notes:  # noqa: ASYNC230  (fast enough)

        def note(call: AnyCall) -> None:
            notes.write(msgspec.json.encode(call) + b"\n")

        backend = Recorder(open_backend(assignment.process), note)
        try:
            sys.stdout.buffer.write(b"ready\n")
            sys.stdout.buffer.flush()
            await asyncio.to_thread(sys.stdin.buffer.readline)
            tasks = [Task(backend, assignment, n) for n in range(assignment.tasks)]
            await asyncio.gather(*(task.run() for task in tasks))
        finally:
            await backend.aclose()


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Assignment)))
