"""Warm handles against what is there: streams, turns, appends at once, keys, cuts, leases.

Several tasks of two stores do at once what random numbers say, over a bad line. Whenever they
have come to rest, every handle reads what somebody reads who comes new, and everybody was told
the truth about what was applied. In virtual time: a seed runs the same way each time.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from perdure import (
    Conflict,
    InvalidKey,
    LeaseHeld,
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
from perdure.codec import Codec
from perdure.derived import Derived
from perdure.layout import rows_stop, stream_prefix
from perdure.position import position_of
from perdure.types import Commit, Committed, Scan, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.core.bad_line import BadLine
from tests.core.noting import Noting
from tests.core.virtual_time import VirtualTimeLoop

STREAMS = ("", "a", "b")
STEPS = 12
AT_ONCE = 5

IDLE = 100.0
"""Seconds until the sessions of one of the stores expire."""

Place = tuple[bytes, str, Position]
"""Incarnation, stream and position of an entry."""


class Ledger(Noting):
    """Notes where every entry stands, as it is made; who cuts a row writes none anew."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.codec = Codec()
        self.places: defaultdict[int, set[Place]] = defaultdict(set)
        self.positions: defaultdict[str, list[Position]] = defaultdict(list)

    async def noted(self, key: SessionKey, commit: Commit) -> Committed:
        prefixes = [stream_prefix(name) for name in STREAMS]
        reads = [Scan(prefix, rows_stop(prefix)) for prefix in prefixes]
        whole = msgspec.structs.replace(commit, returning=(*commit.returning, *reads))
        made = await self.made(key, whole)
        if not made.replayed:
            for name, rows in zip(STREAMS, made.rows[-len(reads) :], strict=True):
                items = [item for item in rows.items if item.version == made.version]
                for item, entries in zip(items, self.codec.unpack(key, items), strict=True):
                    first, _ = self.codec.row_span(item.value)
                    for index, (number, _) in enumerate(entries, first):
                        position = position_of(item.key, index)
                        self.places[number].add((made.incarnation, name, position))
                        self.positions[name].append(position)
        return msgspec.structs.replace(made, rows=made.rows[: len(commit.returning)])


def plain(found: Any) -> Any:
    """Entries with their positions, and what was derived from others, to be compared."""
    if hasattr(found, "value"):
        return found.value, found.position, plain(found.entries)
    numbers = [number for number, _ in found]
    return list(zip(found.positions, numbers, strict=True))


class Run:
    """One run, and what was wrong in it."""

    def __init__(self, seed: int, *, faults: float, lives: bool, deadline: float) -> None:
        self.chance = chance = random.Random(seed)
        self.passed = 0
        self.ledger = Ledger(MemoryBackend(clock=self.now))
        self.faults = faults
        self.line = BadLine(
            self.ledger,
            chance,
            faults=0,
            read_bytes=chance.choice([400, 1 << 20]),
            commit_bytes=chance.choice([80_000, 1 << 20]),
        )
        idle = chance.choice([None, IDLE])
        self.stores = [
            Store(self.line, deadline=deadline, idle_expiry=idle),
            Store(self.line, deadline=deadline),
        ]
        self.lives = lives
        self.sessions = [store.session("s") for store in self.stores for _ in range(2)]
        self.numbers = self.keys = 0
        self.told: dict[int, tuple[str, Position]] = {}
        self.refused: set[int] = set()
        self.popped: Counter[int] = Counter()
        self.by_key: defaultdict[str, set[Position]] = defaultdict(set)
        self.repeatable: list[tuple[str, str, list[Any]]] = []
        self.begun = self.ended = 0
        """Exclusive turns that counted, and those of them that were acknowledged."""
        self.wrong: list[str] = []

    def now(self) -> int:
        seconds = asyncio.get_running_loop().time()
        return 1_700_000_000_000 + self.passed + int(seconds * 1000)

    async def run(self) -> list[str]:
        operations: list[Callable[[Session], Coroutine[Any, Any, None]]] = [
            *[self.append] * 6,
            *[self.keyed] * 3,
            *[self.turn] * 3,
            *[self.exclusive] * 3,
            *[self.pop] * 2,
            *[self.truncate] * 3,
            *[self.derive] * 2,
            *[self.read] * 4,
            self.clear,
            self.settings,
        ]
        if self.lives:
            operations.append(self.delete)
        for _ in range(STEPS):
            self.line.faults = self.faults
            work = [
                self.chance.choice(operations)(self.chance.choice(self.sessions))
                for _ in range(self.chance.randint(1, AT_ONCE))
            ]
            await asyncio.gather(*map(self.perhaps_cancelled, work))
            self.line.faults = 0
            await self.ledger.settled()
            await self.rest()
            if self.chance.random() < 0.3:
                self.passed += self.chance.randrange(60_000 if self.lives else 5_000)
            if self.chance.random() < 0.2:
                n = self.chance.randrange(len(self.sessions))
                self.sessions[n] = self.stores[n // 2].session("s")
        return self.wrong + self.judged()

    async def rest(self) -> None:
        """Everybody reads what is there."""
        lanes = [store._client.lanes for store in self.stores]
        left = len(asyncio.all_tasks()) - 1
        if any(lanes) or left:
            self.wrong.append(f"{left} tasks and {lanes} are left")
        chance = self.chance
        if not self.lives:
            count = await Store(self.ledger).session("s").cells.get("count", 0)
            if not self.ended <= count <= self.begun:
                self.wrong.append(f"{self.ended} to {self.begun} turns counted {count}")
        for name in STREAMS:
            known = self.ledger.positions[name] or [Position("0" * 32)]
            after, before = chance.choice(known[-6:]), chance.choice(known)
            count = chance.randrange(5)
            requests = [
                Log(stream=name),
                Log(stream=name, last=count),
                Log(stream=name, after=after),
                Log(stream=name, before=before, last=count),
                Log(stream=name, after=after, limit=count),
                Derived("sum", stream=name),
            ]
            chance.shuffle(requests)
            fresh = await Store(self.ledger).session("s").read(*requests)
            for session in self.sessions:
                for number, request in enumerate(requests):
                    if chance.random() < 0.5:
                        continue
                    (found,) = await session.read(request)
                    if plain(found) != plain(fresh[number]):
                        self.wrong.append(
                            f"{name!r} {vars(request)}: {plain(found)}, not "
                            f"{plain(fresh[number])}"
                        )
            (resumed,) = (found for found in fresh if hasattr(found, "value"))
            if resumed.value is not None and not any(
                place[1:] == (name, resumed.position)
                for place in self.ledger.places[resumed.value]
            ):
                self.wrong.append(f"what was derived from {resumed.value} is {resumed}")

    async def perhaps_cancelled(self, step: Coroutine[Any, Any, None]) -> None:
        doing = asyncio.ensure_future(step)
        if self.chance.random() < 0.15:
            loop = asyncio.get_running_loop()
            loop.call_later(self.chance.random() * 0.02, doing.cancel)
        await asyncio.wait((doing,), timeout=120)
        if not doing.done():
            self.wrong.append(f"{step} does not end")
        elif (
            not doing.cancelled()
            and (error := doing.exception()) is not None
            and not isinstance(
                error, SessionDeleted | Unavailable | OutcomeUnknown | Conflict | LeaseHeld
            )
            # A position of another life may lie within what is one long entry in this one.
            and not (self.lives and isinstance(error, InvalidKey))
        ):
            raise error

    def made(self) -> list[list[Any]]:
        entries: list[list[Any]] = []
        for _ in range(self.chance.randint(1, 4)):
            self.numbers += 1
            padding = self.chance.randbytes(self.chance.choice([0, 20, 200, 40_000, 90_000]))
            entries.append([self.numbers, padding])
        return entries

    def stream(self, session: Session[Any]) -> Any:
        name = self.chance.choice(STREAMS)
        return name, session.stream(name) if name else session

    async def settle(
        self, session: Session[Any], numbers: list[int], write: Coroutine[Any, Any, Any]
    ) -> Any:
        """What the write says, or perhaps what a resend of it says."""
        try:
            return await write
        except OutcomeUnknown as error:
            if error.commit is None or self.chance.random() < 0.3:
                raise
            try:
                await session.resend(error.commit)
            except OutcomeUnknown:
                pass
            except PerdureError as refusal:
                assert refusal.outcome is Outcome.NOT_APPLIED
                self.refused.update(numbers)
                raise
            else:
                if numbers and not all(self.ledger.places[number] for number in numbers):
                    self.wrong.append(f"{numbers} were resent with success, and are nowhere")
            return None
        except PerdureError as error:
            if error.outcome is Outcome.NOT_APPLIED:
                self.refused.update(numbers)
            raise

    async def append(self, session: Session[Any]) -> None:
        name, stream = self.stream(session)
        entries = self.made()
        numbers = [number for number, _ in entries]
        position = await self.settle(session, numbers, stream.append(*entries))
        if position is not None:
            self.told[numbers[-1]] = (name, position)

    async def keyed(self, session: Session[Any]) -> None:
        if self.repeatable and self.chance.random() < 0.6:
            key, name, entries = self.chance.choice(self.repeatable)
        else:
            self.keys += 1
            key, name, entries = f"key-{self.keys}", self.chance.choice(STREAMS), self.made()
            self.repeatable.append((key, name, entries))
        stream = session.stream(name) if name else session
        position = await stream.append(*entries, key=key)
        self.by_key[key].add(position)
        if not self.lives:
            self.told[entries[-1][0]] = (name, position)

    async def turn(self, session: Session[Any]) -> None:
        entries = self.made()
        name = self.chance.choice(STREAMS)

        async def write() -> None:
            async with session.turn() as turn:
                if self.chance.random() < 0.5:
                    await turn.entries(last=self.chance.randrange(4), stream=name)
                if self.chance.random() < 0.3:
                    known = self.ledger.positions[name]
                    if known:
                        await turn.truncate(after=self.chance.choice(known[-5:]), stream=name)
                if self.chance.random() < 0.1:
                    turn.clear(stream=name)
                turn.append(*entries, stream=name)

        await self.settle(session, [number for number, _ in entries], write())

    async def exclusive(self, session: Session[Any]) -> None:
        entries = self.made()
        numbers = [number for number, _ in entries]
        name = self.chance.choice(STREAMS)
        wait, lease = self.chance.choice([None, 1, 60]), self.chance.choice([0.05, 1.0, 30.0])

        async def write() -> None:
            async with session.turn(exclusive=True, wait=wait, lease=lease) as turn:
                if self.chance.random() < 0.5:
                    await turn.entries(last=self.chance.randrange(4), stream=name)
                count = await turn.cells.get("count", 0)
                if self.chance.random() < 0.3:
                    await asyncio.sleep(self.chance.random() * 0.2)
                if self.chance.random() < 0.2:
                    known = self.ledger.positions[name]
                    if known:
                        await turn.truncate(after=self.chance.choice(known[-5:]), stream=name)
                turn.cells["count"] = count + 1
                turn.append(*entries, stream=name)
                self.begun += 1
            self.ended += 1

        await self.settle(session, numbers, write())

    async def pop(self, session: Session[Any]) -> None:
        _, stream = self.stream(session)
        entry = await stream.pop()
        if entry is not None:
            self.popped[entry[0]] += 1

    async def truncate(self, session: Session[Any]) -> None:
        name, stream = self.stream(session)
        known = self.ledger.positions[name]
        if not known:
            return
        if self.chance.random() < 0.5:
            await stream.truncate(after=self.chance.choice(known[-6:]))
        else:
            await stream.truncate(before=self.chance.choice(known[:8]))

    async def clear(self, session: Session[Any]) -> None:
        _, stream = self.stream(session)
        await (session.clear() if stream is session else stream.delete())

    async def derive(self, session: Session[Any]) -> None:
        name, stream = self.stream(session)
        entries = await stream.entries(last=self.chance.randint(1, 3))
        if entries:
            at = entries.positions[0]
            await session.derive("sum", entries[0][0], at=at, stream=name)

    async def read(self, session: Session[Any]) -> None:
        _, stream = self.stream(session)
        await stream.entries(last=self.chance.choice([None, 1, 3]))

    async def settings(self, session: Session[Any]) -> None:
        await session.set(meta=b"%d" % self.chance.randrange(100))

    async def delete(self, session: Session[Any]) -> None:
        await session.delete()

    def judged(self) -> list[str]:
        wrong: list[str] = []
        places = self.ledger.places
        keyed = {number for _, _, entries in self.repeatable for number, _ in entries}
        for number, at in places.items():
            lives = [place[0] for place in at]
            if len(at) > 1 and (number not in keyed or len(set(lives)) < len(at)):
                wrong.append(f"{number} is at {at}")
        wrong += [f"{n} was refused and applied" for n in self.refused if places[n]]
        for number, told in self.told.items():
            if told not in {place[1:] for place in places[number]}:
                wrong.append(f"{number} was said to be at {told}, is at {places[number]}")
        if not self.lives:
            wrong += [f"{k}: {at}" for k, at in self.by_key.items() if len(at) > 1]
        wrong += [
            f"{n} was popped {times} times"
            for n, times in self.popped.items()
            if times > 1 and not (self.lives and n in keyed)
        ]
        return wrong


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a smaller seed is no simpler
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 1 << 32),
    faults=st.sampled_from([0, 0.02, 0.1]),
    lives=st.booleans(),
    deadline=st.sampled_from([0.05, 5]),
)
def test_every_handle_reads_what_is_there(
    seed: int, faults: float, lives: bool, deadline: float
) -> None:
    pauses = random.getstate()
    random.seed(seed)  # the store's own: of its pauses
    try:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            run = Run(seed, faults=faults, lives=lives, deadline=deadline)
            assert runner.run(run.run()) == []
    finally:
        random.setstate(pauses)
