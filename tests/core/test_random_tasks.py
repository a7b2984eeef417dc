"""Random tasks over shared handles and a bad line: whatever they are told is true.

Every read is compared with what the session held at the version that the read claims; every
entry is applied at most once, and exactly once if it was acknowledged. On the memory backend a
seed always runs the same way. ``PERDURE_TASK_SEEDS=2000`` runs so many.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import (
    START,
    Cells,
    Conflict,
    Document,
    Entries,
    InvalidKey,
    Log,
    Outcome,
    OutcomeUnknown,
    PerdureError,
    Position,
    Session,
    SessionDeleted,
    Store,
    Unavailable,
)
from perdure.backend import Backend
from perdure.codec import ROW_BYTES
from perdure.types import Commit, Head

from perdure_memory.backend import MemoryBackend
from perdure_sqlite.backend import SqliteBackend
from tests.core.bad_line import BadLine
from tests.core.truth import Placed, State, Truth
from tests.core.virtual_time import VirtualTimeLoop

SEEDS = int(os.environ.get("PERDURE_TASK_SEEDS", "20"))

TASKS = 5
STEPS = 40
"""So many tasks take so many steps each."""


class Seen(msgspec.Struct, frozen=True):
    """Something that was read, and what it must be, given the truth at the head it claims."""

    what: str
    id: str
    head: Head | None
    found: Any
    expected: Callable[[State], Any]


def ends_inside(entry: tuple[Position, Any], position: Position) -> bool:
    """Whether a position is that of a fragment of an entry, but of its last one."""
    rows = -(-len(msgspec.msgpack.encode(entry[1])) // ROW_BYTES)
    first, at = (int(place[16:24], 16) for place in (entry[0], position))
    return entry[0][:16] == position[:16] and first <= at < first + rows - 1


class Tasks:
    """One run: handles that several tasks share, and what those tasks were told."""

    def __init__(self, backend: Backend, seed: int, *, deletes: bool) -> None:
        self.chance = chance = random.Random(seed)
        self.deletes = deletes
        self.kind = f"kind-{seed}"
        self.truth = Truth(backend)
        self.line = BadLine(
            self.truth,
            chance,
            faults=chance.choice([0, 0.02, 0.1]),
            read_bytes=chance.choice([200, 2000, 1 << 20]),
            commit_bytes=chance.choice([300, 70_000, 1 << 20]),
        )
        self.store = Store(self.line, kind=self.kind, deadline=chance.choice([0.02, 5]))
        self.ids = ["s"] if chance.random() < 0.7 else ["s", "t"]
        self.handles = [self.store.session(chance.choice(self.ids)) for _ in range(3)]
        self.seen: list[Seen] = []
        self.applied: set[int] = set()
        self.refused: set[int] = set()
        self.popped: Counter[int] = Counter()
        self.numbers = self.forks = 0
        self.wrong: list[str] = []
        self.operations: list[Callable[[Session], Awaitable[None]]] = []
        for operation, weight in (
            (self.append, 6),
            (self.read_all, 1),
            (self.read_last, 2),
            (self.read_range, 3),
            (self.read_mixed, 1),
            (self.pop, 2),
            (self.truncate, 2),
            (self.clear, 0.3),
            (self.cells, 2),
            (self.head, 1),
            (self.turn, 2),
            (self.save, 1),
            (self.fork, 1),
            (self.delete, 0.5 if deletes else 0),
        ):
            self.operations += [operation] * round(10 * weight)

    async def run(self) -> list[str]:
        """All that was wrong; empty if nothing was."""
        watching = [asyncio.create_task(self.watch(id)) for id in self.ids]
        await asyncio.gather(*(self.task() for _ in range(TASKS)))
        await self.truth.settled()
        self.line.faults = 0
        end = Store(self.truth, kind=self.kind)
        for id, watch in zip(self.ids, watching, strict=True):
            await end.session(id).append([-1, "end"])
            watched = await asyncio.wait_for(watch, 60)
            left = await end.session(id).entries()
            if [value for value in watched if value in left] != left:
                self.wrong.append(f"a watch of {id} missed something: {watched}, {left}")
        for session in self.handles:
            await self.read_all(session)
            await self.read_last(session)
        return self.wrong + self.judged()

    async def task(self) -> None:
        for _ in range(STEPS):
            place = self.chance.randrange(len(self.handles))
            if self.chance.random() < 0.05:
                self.handles[place] = self.store.session(self.handles[place].key.id)
            operation = self.chance.choice(self.operations)
            step = asyncio.ensure_future(operation(self.handles[place]))
            if self.chance.random() < 0.03:
                loop = asyncio.get_running_loop()
                loop.call_later(self.chance.random() * 0.005, step.cancel)
            await asyncio.wait((step,), timeout=60)
            if not step.done():
                self.wrong.append(f"{operation.__name__} does not end")
            elif not step.cancelled() and (error := step.exception()) is not None:
                self.allow(error)

    def allow(self, error: BaseException) -> None:
        if isinstance(error, Conflict | SessionDeleted | Unavailable | OutcomeUnknown):
            return
        # A position in another life may lie within what is one long entry in this one.
        if not (self.deletes and isinstance(error, InvalidKey)):
            raise error

    async def watch(self, id: str) -> list[Any]:
        """What a watch yields of the session's last life, up to the entry that ends it."""
        store = Store(self.line, kind=self.kind)
        while True:
            yielded: list[Any] = []
            last = START
            try:
                async for entry in store.session(id).watch(after=START):
                    if entry.position <= last:
                        self.wrong.append(f"a watch yielded {entry} after {last}")
                    last = entry.position
                    yielded.append(entry.value)
                    if entry.value[0] == -1:
                        return yielded
            except SessionDeleted:
                continue

    def check(
        self, what: str, session: Session, entries: Entries, part: Callable[[Placed], Placed]
    ) -> None:
        def expected(state: State) -> Placed:
            return part(state.log)

        found = list(zip(entries.positions, entries, strict=True))
        self.seen.append(Seen(what, session.key.id, entries.head, found, expected))

    def judged(self) -> list[str]:
        wrong: list[str] = []
        for seen in self.seen:
            if seen.head is None:
                if seen.found:
                    wrong.append(f"{seen.what} found {seen.found} where nothing is")
                continue
            state = self.truth.states[seen.id, seen.head.incarnation, seen.head.version]
            if seen.found != seen.expected(state):
                wrong.append(f"{seen.what}: {seen.found}, not {seen.expected(state)}")
        for (id, _), versions in self.truth.versions.items():
            if sorted(versions) != list(range(1, len(versions) + 1)):
                wrong.append(f"versions of {id}: {versions}")
        for number, places in self.truth.places.items():
            original = [place for place in places if place[0].id in self.ids]
            if number > 0 and len(original) != 1:
                wrong.append(f"{number} was applied {len(original)} times")
        there = self.truth.places.keys()
        wrong += [f"{n} was acknowledged and is nowhere" for n in self.applied - there]
        wrong += [f"{n} was refused and applied" for n in self.refused & there]
        wrong += [
            f"{n} was popped {times} times" for n, times in self.popped.items() if times > 1
        ]
        return wrong

    # What the tasks do

    def entries_to_append(self, count: int) -> list[Any]:
        made: list[Any] = []
        for _ in range(count):
            self.numbers += 1
            size = self.chance.choice([0, 20, 200, 200, 500, 50_000])
            made.append([self.numbers, self.chance.randbytes(size).hex()])
        return made

    def position(self, session: Session, of_last: int | None = None) -> Position:
        """Some position that the session's log has or had."""
        known = self.truth.positions[session.key.id]
        return self.chance.choice(known[-(of_last or len(known)) :] or [START])

    async def settle(
        self, session: Session, numbers: list[int], write: Awaitable[object]
    ) -> None:
        """Write, and note what was said about it; if that was nothing, perhaps insist."""
        commit: Commit | None = None
        try:
            await write
            self.applied.update(numbers)
        except OutcomeUnknown as error:
            commit = error.commit
        except PerdureError as error:
            assert error.outcome is Outcome.NOT_APPLIED
            self.refused.update(numbers)
            raise
        if commit is not None and self.chance.random() < 0.7:
            try:
                await session.resend(commit)
                self.applied.update(numbers)
            except OutcomeUnknown:
                pass
            except PerdureError:
                self.refused.update(numbers)
                raise

    async def append(self, session: Session) -> None:
        entries = self.entries_to_append(self.chance.randint(1, 4))

        async def write() -> None:
            position = await session.append(*entries)
            at = {place[2] for place in self.truth.places[entries[-1][0]]}
            if position not in at:
                self.wrong.append(f"append said {position}, but it is at {at}")

        await self.settle(session, [entry[0] for entry in entries], write())

    async def turn(self, session: Session) -> None:
        entry = self.entries_to_append(1)[0]

        async def write() -> None:
            async with session.turn() as turn:
                if self.chance.random() < 0.6:
                    self.check("turn", session, await turn.entries(last=2), lambda t: t[-2:])
                if self.chance.random() < 0.3:
                    await turn.truncate(after=self.position(session, of_last=3))
                turn.append(entry)
                turn.cells["turn"] = entry[0]

        await self.settle(session, [entry[0]], write())

    async def read_all(self, session: Session) -> None:
        self.check("entries()", session, await session.entries(), lambda t: t)

    async def read_last(self, session: Session) -> None:
        n = self.chance.randint(0, 6)
        entries = await session.entries(last=n)
        self.check(f"last={n}", session, entries, lambda t: t[max(0, len(t) - n) :])

    async def read_range(self, session: Session) -> None:
        after, before = sorted((self.position(session), self.position(session)))
        n = self.chance.choice([None, 0, 1, 3])

        def within(log: Placed) -> Placed:
            placed = [entry for entry in log if after < entry[0] < before]
            # A position of another life may point into a long entry, which is then left out.
            return placed[:-1] if placed and ends_inside(placed[-1], before) else placed

        if self.chance.random() < 0.5:
            entries = await session.entries(after=after, before=before, limit=n)
            self.check(f"limit={n}", session, entries, lambda t: within(t)[:n])
        else:
            entries = await session.entries(after=after, before=before, last=n)
            self.check(
                f"range, last={n}",
                session,
                entries,
                lambda t: within(t) if n is None else within(t)[max(0, len(within(t)) - n) :],
            )

    async def read_mixed(self, session: Session) -> None:
        tail, cells, document, log = await session.read(Log(last=3), Cells(), Document(), Log())
        self.check("read(Log(last=3), ...)", session, tail, lambda t: t[-3:])
        self.check("read(..., Log())", session, log, lambda t: t)
        saved = None if document is None else document.value
        self.seen.append(
            Seen(
                "read(..., Cells(), Document(), ...)",
                session.key.id,
                log.head,
                (cells, saved) if log.head else None,
                lambda state: (state.cells, state.document),
            )
        )

    async def pop(self, session: Session) -> None:
        entry = await session.pop()
        if entry is not None:
            self.popped[entry[0]] += 1

    async def truncate(self, session: Session) -> None:
        if self.chance.random() < 0.5:
            await session.truncate(after=self.position(session, of_last=6))
        else:
            known = self.truth.positions[session.key.id][:6] or [START]
            await session.truncate(before=self.chance.choice(known))

    async def clear(self, session: Session) -> None:
        await session.clear()

    async def cells(self, session: Session) -> None:
        name = f"c{self.chance.randrange(5)}"
        if self.chance.random() < 0.7:
            await session.cells.put(name, self.chance.random())
        else:
            await session.cells.delete(name)

    async def head(self, session: Session) -> None:
        await session.head()

    async def save(self, session: Session) -> None:
        data = [self.chance.random()] * self.chance.choice([1, 100])
        await self.store.save(session.key.id, data)

    async def delete(self, session: Session) -> None:
        await session.delete()

    async def fork(self, session: Session) -> None:
        self.forks += 1
        at = self.position(session) if self.chance.random() < 0.7 else None
        try:
            copy = await session.fork(f"fork-{self.forks}", at=at)
        except InvalidKey:
            return  # no entry there any more
        lineage, entries = await copy.lineage(), await copy.entries()
        assert lineage is not None
        parent = self.truth.states[session.key.id, lineage.incarnation, lineage.version].log
        if at is not None and at not in [position for position, _ in parent]:
            self.wrong.append(f"a fork at {at}, where there was nothing")
        if entries != [value for position, value in parent if at is None or position <= at]:
            self.wrong.append(f"a fork at {at} of {parent} holds {entries}")


@pytest.mark.parametrize("deletes", [False, True], ids=["one life", "several lives"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_tasks_on_shared_handles_are_told_is_true(
    seed: int, deletes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:  # a backend that forgets soon makes the log say what became of a commit
        monkeypatch.setattr("perdure_memory.sessions.REMEMBERED_COMMITS", 2)
    pauses = random.getstate()
    random.seed(seed)  # the store's own: of its pauses
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            assert runner.run(Tasks(MemoryBackend(), seed, deletes=deletes).run()) == []
    finally:
        random.setstate(pauses)


async def test_it_is_true_on_sqlite_too(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "sessions.db")
    try:
        found = await asyncio.gather(
            *(Tasks(backend, seed, deletes=seed % 2 == 1).run() for seed in range(4))
        )
    finally:
        await backend.aclose()
    assert found == [[]] * 4
