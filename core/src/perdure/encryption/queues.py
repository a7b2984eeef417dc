"""One after another: what would only get in one another's way."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from perdure.types import SessionKey

PATIENCE = 0.5
"""Seconds. Who has waited so long for others goes ahead of them: the one whose turn it is may
be waiting for an answer that never comes."""


class _Queue:
    """Those who want to do something to one session, the one who is doing it included."""

    __slots__ = ("length", "lock")

    def __init__(self) -> None:
        self.length = 0
        self.lock = asyncio.Lock()

    async def acquire(self) -> bool:
        """Wait for one's turn; whether it came."""
        if not self.lock.locked():
            return await self.lock.acquire()
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.lock.acquire()
        except TimeoutError:
            return False


class Queues:
    """A queue for each session, and in each event loop; there while somebody stands in it.

    A courtesy: nothing goes wrong where two do it at once, except that one has to do it again.
    """

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[tuple[SessionKey, asyncio.AbstractEventLoop], _Queue] = {}

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        """Wait until those who came before are done, in order of arrival, and not for ever."""
        place = (key, asyncio.get_running_loop())
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = _Queue()
        queue.length += 1
        try:
            came = await queue.acquire()
            try:
                yield
            finally:
                if came:
                    queue.lock.release()
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[place]
