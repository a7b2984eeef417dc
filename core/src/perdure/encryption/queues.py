"""One after another: what would only get in one another's way."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from perdure.types import SessionKey


class _Queue:
    """Those who want to do something to one session, the one who is doing it included."""

    __slots__ = ("length", "lock")

    def __init__(self) -> None:
        self.length = 0
        self.lock = asyncio.Lock()


class Queues:
    """A queue for each session, and in each event loop; there while somebody stands in it."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[tuple[SessionKey, asyncio.AbstractEventLoop], _Queue] = {}

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        """Wait until all who came before are done, first come first served."""
        place = (key, asyncio.get_running_loop())
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = _Queue()
        queue.length += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[place]
