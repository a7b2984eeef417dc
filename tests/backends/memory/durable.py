"""The reference backend over data that outlives it: what a restart and a second client see."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable

from perdure.backend import Backend
from perdure.testing import Harness, TestClock
from perdure.types import SessionKey

from perdure_memory.backend import MemoryBackend
from perdure_memory.index import SortedIndex
from perdure_memory.sessions import Session, Stage


class Disk:
    """What a memory backend keeps, kept apart from it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: dict[SessionKey, Session] = {}
        self.stages: dict[tuple[SessionKey, bytes, bytes], Stage] = {}
        self.index = SortedIndex()
        self.waiters: defaultdict[SessionKey, set[asyncio.Future[None]]] = defaultdict(set)


class DurableMemory(MemoryBackend):
    """A memory backend on a :class:`Disk`; several may be open on one."""

    def __init__(self, disk: Disk, *, clock: Callable[[], int]) -> None:
        super().__init__(clock=clock)
        self._lock = disk.lock
        self._sessions = disk.sessions
        self._stages = disk.stages
        self._index = disk.index
        self._waiters = disk.waiters


class DurableHarness(Harness):
    """``backend`` is the class to open: the sound one, or one that is broken on purpose."""

    def __init__(self, backend: type[DurableMemory] = DurableMemory) -> None:
        self.clock = clock = TestClock()
        self.disk = disk = Disk()
        self.new = lambda: backend(disk, clock=clock)

    async def open(self) -> Backend:
        return self.new()

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes]:
        session = self.disk.sessions.get(key)
        items = session.items.values() if session is not None else ()
        found = {item.key: item.value for item in items}
        for (owner, incarnation, stage), parts in self.disk.stages.items():
            if owner == key:
                for name, value in parts.parts.items():
                    found[incarnation + stage + name] = value
        return found
