"""One after another: what would only get in one another's way."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from perdure.types import SessionKey


class Queues:
    """A queue for each session, and in each event loop; there while somebody stands in it."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[tuple[SessionKey, asyncio.AbstractEventLoop], asyncio.Lock] = {}

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        """Wait until all who came before are done, first come first served."""
        place = (key, asyncio.get_running_loop())
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(place) is lock:
                del self._locks[place]
