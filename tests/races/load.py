"""Writers that go through the store, and put up with a server that dies under them."""

import asyncio
import random
from collections import defaultdict

import msgspec

from perdure import Conflict, Scope, Session, SessionDeleted, SessionKey, Store
from perdure.plugins import open_backend
from perdure.testing.recorder import AnyCall, Recorder

STORES = 2
WRITERS = 8
"""So many tasks share so many stores."""

WARM = 10
"""Operations of each writer before it is called busy."""

LASTING = ("lasting-1", "lasting-2")
MORTAL = ("mortal",)
"""What a tenant has: sessions that are never deleted, and one that is all the time."""

LARGEST_COMMIT = 70_000
"""Bytes. Lower than backends set it, so that an entry of twice as many is staged in parts."""

LABELS = ("red", "green", "blue")


class Load:
    """What the writers do and are told."""

    def __init__(self, url: str) -> None:
        self.acknowledged: defaultdict[SessionKey, list[int]] = defaultdict(list)
        """The number of every entry that a writer was told is there."""
        self._calls: list[AnyCall] = []
        self._stores = [Store(self._backend(url)) for _ in range(STORES)]
        self._numbers = 0
        self._chance = random.Random()

    def _backend(self, url: str) -> Recorder:
        recorder = Recorder(open_backend(url), self._calls.append)
        recorder.capabilities = msgspec.structs.replace(
            recorder.capabilities, max_commit_bytes=LARGEST_COMMIT
        )
        return recorder

    def take_calls(self) -> list[AnyCall]:
        """Everything asked and answered below the stores since the last time."""
        calls = list(self._calls)
        self._calls.clear()
        return calls

    async def run(self, tenant: str, busy: asyncio.Event, stop: asyncio.Event) -> None:
        """Write to a tenant's sessions until ``stop``; then end what has been begun.

        Sets ``busy`` when the first writer is at work. Raises what no writer has to expect.
        """
        async with asyncio.TaskGroup() as group:
            for n in range(WRITERS):
                scope = self._stores[n % STORES].tenant(tenant)
                group.create_task(self._write(scope, busy, stop))

    async def aclose(self) -> None:
        for store in self._stores:
            await store.aclose()

    async def _write(self, scope: Scope, busy: asyncio.Event, stop: asyncio.Event) -> None:
        handles = {id: scope.session(id) for id in (*LASTING, *MORTAL)}
        works = [*[self._append] * 4, *[self._turn] * 4, self._append_large, self._label]
        done = 0
        while not stop.is_set():
            id = self._chance.choice([*handles])
            session = handles[id]
            try:
                if id in MORTAL and self._chance.random() < 0.1:
                    await self._delete(session)
                else:
                    await self._chance.choice(works)(session)
            except Conflict:
                pass
            except SessionDeleted:
                handles[id] = scope.session(id)
            done += 1
            if done == WARM:
                busy.set()

    def _new_number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def _append(self, session: Session) -> None:
        numbers = [self._new_number() for _ in range(self._chance.randint(1, 3))]
        await session.append(*([number] for number in numbers))
        self.acknowledged[session.key] += numbers

    async def _append_large(self, session: Session) -> None:
        number = self._new_number()
        await session.append([number, self._chance.randbytes(2 * LARGEST_COMMIT)])
        self.acknowledged[session.key].append(number)

    async def _turn(self, session: Session) -> None:
        """Two cells and an entry, all at once, on what is there."""
        number = self._new_number()
        async with session.turn() as turn:
            count = await turn.cells.get("count", 0) + 1
            turn.cells["count"] = turn.cells["twin"] = count
            turn.append([number])
        self.acknowledged[session.key].append(number)

    async def _label(self, session: Session) -> None:
        await session.set(labels=(self._chance.choice(LABELS),))

    async def _delete(self, session: Session) -> None:
        if await session.head() is not None:
            await session.delete()
