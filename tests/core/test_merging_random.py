"""Random tasks that append at once, leave, and lose replies: everybody is told the truth.

Hypothesis draws what happens, and the run is the same each time (``tests.core.virtual_time``).
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Coroutine
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure import (
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
from perdure.codec import Codec
from perdure.layout import stream_prefix
from perdure.position import position_of
from perdure.types import Commit, Committed, Scan, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.bad_line import BadLine
from tests.core.noting import Noting
from tests.core.virtual_time import VirtualTimeLoop

STREAMS = ("", "a")
TASKS = 6
STEPS = 12

Place = tuple[bytes, str, Position]
"""Incarnation, stream and position of an entry."""


class Ledger(Noting):
    """Notes which entries every commit has appended, and where, as it is made."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.codec = Codec()
        self.places: defaultdict[int, list[Place]] = defaultdict(list)

    async def noted(self, key: SessionKey, commit: Commit) -> Committed:
        reads = [Scan(stream_prefix(name), stream_prefix(name) + b"\xff") for name in STREAMS]
        whole = msgspec.structs.replace(commit, returning=(*commit.returning, *reads))
        made = await self.made(key, whole)
        if not made.replayed:
            for name, rows in zip(STREAMS, made.rows[-len(reads) :], strict=True):
                items = [item for item in rows.items if item.version == made.version]
                for item, entries in zip(items, self.codec.unpack(key, items), strict=True):
                    for index, (number, _) in enumerate(entries):
                        place = (made.incarnation, name, position_of(item.key, index))
                        self.places[number].append(place)
        return msgspec.structs.replace(made, rows=made.rows[: len(commit.returning)])


class Tasks:
    """One run."""

    def __init__(self, seed: int, *, faults: float, deletes: bool, deadline: float) -> None:
        self.chance = chance = random.Random(seed)
        self.ledger = Ledger(MemoryBackend())
        self.line = BadLine(
            self.ledger,
            chance,
            faults=faults,
            read_bytes=1 << 20,
            commit_bytes=chance.choice([600, 80_000, 1 << 20]),
        )
        self.store = Store(self.line, deadline=deadline)
        self.deletes = deletes
        self.sessions = [self.store.session("s") for _ in range(3)]
        self.numbers = 0
        self.told: dict[int, tuple[str, Position]] = {}
        """Of the last entry of each append that was acknowledged: where it is said to be."""
        self.whole: list[list[int]] = []
        """The entries of each append."""
        self.refused: set[int] = set()
        self.order: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        """What each task appended to each stream, one after another, as it was told."""
        self.kept: dict[str, set[Position]] = {}
        self.wrong: list[str] = []

    async def run(self) -> list[str]:
        await asyncio.gather(*(self.task(number) for number in range(TASKS)))
        await self.ledger.settled()
        lanes = self.store._client.lanes
        left = len(asyncio.all_tasks()) - 1
        if lanes or left:
            self.wrong.append(f"{left} tasks and {lanes} are left")
        self.line.faults = 0
        for session in self.sessions:  # what the handles know is what there is
            await self.compare(session)
        return self.wrong + self.judged()

    async def task(self, task: int) -> None:
        for _ in range(STEPS):
            place = self.chance.randrange(len(self.sessions))
            if self.chance.random() < 0.1:
                self.sessions[place] = self.store.session("s")
            session = self.sessions[place]
            if self.deletes and self.chance.random() < 0.03:
                step = self.delete(session)
            elif self.chance.random() < 0.1:
                step = self.compare(session)
            else:
                step = self.append(task, session)
            await self.perhaps_cancelled(step)
            if self.chance.random() < 0.3:
                await asyncio.sleep(self.chance.random() * 0.01)

    async def perhaps_cancelled(self, step: Coroutine[Any, Any, None]) -> None:
        doing = asyncio.ensure_future(step)
        if self.chance.random() < 0.15:
            loop = asyncio.get_running_loop()
            loop.call_later(self.chance.random() * 0.008, doing.cancel)
        await asyncio.wait((doing,), timeout=60)
        if not doing.done():
            self.wrong.append("something does not end")
        elif (
            not doing.cancelled()
            and (error := doing.exception()) is not None
            and not isinstance(error, SessionDeleted | Unavailable | OutcomeUnknown)
        ):
            raise error

    async def append(self, task: int, session: Session[Any]) -> None:
        name = self.chance.choice(STREAMS)
        key = f"key-{self.numbers}" if self.chance.random() < 0.1 else None
        entries: list[list[Any]] = []
        for _ in range(self.chance.randint(1, 3)):
            self.numbers += 1
            padding = self.chance.randbytes(self.chance.choice([0, 20, 200, 40_000]))
            entries.append([self.numbers, padding])
        numbers = [number for number, _ in entries]
        self.whole.append(numbers)
        stream = session.stream(name) if name else session
        try:
            position = await stream.append(*entries, key=key)
        except OutcomeUnknown as error:
            await self.settle(session, numbers, error)
        except PerdureError as error:
            assert error.outcome is Outcome.NOT_APPLIED
            self.refused.update(numbers)
            raise
        else:
            self.told[numbers[-1]] = (name, position)
            self.order[task, name].append(numbers[-1])

    async def settle(
        self, session: Session[Any], numbers: list[int], error: OutcomeUnknown
    ) -> None:
        """Perhaps insist. Others, whose commit it is too, may do so at the same time."""
        if error.commit is None or self.chance.random() < 0.3:
            raise error
        try:
            await session.resend(error.commit)
        except OutcomeUnknown:
            pass
        except PerdureError as refusal:
            assert refusal.outcome is Outcome.NOT_APPLIED
            self.refused.update(numbers)
        else:
            self.applied_somewhere(numbers)

    def applied_somewhere(self, numbers: list[int]) -> None:
        if not self.ledger.places[numbers[-1]]:
            self.wrong.append(f"{numbers} were resent with success, and are nowhere")

    async def delete(self, session: Session[Any]) -> None:
        await session.delete()

    async def compare(self, session: Session[Any]) -> None:
        """What a handle reads is where the ledger says it is."""
        for name in STREAMS:
            stream = session.stream(name) if name else session
            entries = await stream.entries()
            if entries.head is None:
                continue
            for (number, _), position in zip(entries, entries.positions, strict=True):
                place = (entries.head.incarnation, name, position)
                if place not in self.ledger.places[number]:
                    self.wrong.append(f"{number} was read at {place}")

    def judged(self) -> list[str]:
        wrong: list[str] = []
        places = self.ledger.places
        wrong += [f"{n} is at {at}" for n, at in places.items() if len(at) > 1]
        wrong += [f"{n} was refused and applied" for n in self.refused if places[n]]
        for number, (name, position) in self.told.items():
            if [at[1:] for at in places[number]] != [(name, position)]:
                wrong.append(f"{number} was said to be at {position}, is at {places[number]}")
        for numbers in self.whole:
            applied = Counter(len(places[number]) for number in numbers)
            if len(applied) > 1:
                wrong.append(f"of {numbers} only a part was applied")
            if applied[1]:
                positions = [places[number][0] for number in numbers]
                if positions != sorted(positions) or len({at[:2] for at in positions}) > 1:
                    wrong.append(f"{numbers} stand at {positions}")
        for (task, name), numbers in self.order.items():
            lives = [places[number][0][0] for number in numbers]
            at = [places[number][0][2] for number in numbers]
            for (life, here), (next_life, there) in zip(
                zip(lives, at, strict=True), list(zip(lives, at, strict=True))[1:], strict=False
            ):
                if life == next_life and here >= there:
                    wrong.append(f"task {task} appended to {name!r}: {here} before {there}")
        return wrong


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 1 << 32),
    faults=st.sampled_from([0, 0.02, 0.1]),
    deletes=st.booleans(),
    deadline=st.sampled_from([0.02, 0.3, 5]),
)
def test_whoever_appends_at_once_is_told_the_truth(
    seed: int, faults: float, deletes: bool, deadline: float
) -> None:
    pauses = random.getstate()
    random.seed(seed)  # the store's own: of its pauses
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            tasks = Tasks(seed, faults=faults, deletes=deletes, deadline=deadline)
            assert runner.run(tasks.run()) == []
    finally:
        random.setstate(pauses)
