"""One after another: what would only get in one another's way."""

import asyncio

from perdure.types import SessionKey

PATIENCE = 0.5
"""Seconds. Who has waited so long for others goes ahead of them: the one whose turn it is may
be waiting for an answer that never comes."""


class Queues:
    """A queue for each session, and in each event loop; there while somebody stands in it.

    A courtesy: nothing goes wrong where two do it at once, except that one has to do it again.
    """

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[tuple[SessionKey, asyncio.AbstractEventLoop], _Queue] = {}

    def turn(self, key: SessionKey) -> "_Turn":
        """``async with``: waits until those who came before are done, in order of arrival, and
        not for ever."""
        return _Turn(self._queues, (key, asyncio.get_running_loop()))


class _Queue:
    """Those who want to do something to one session, the one who is doing it included."""

    __slots__ = ("length", "lock")

    def __init__(self) -> None:
        self.length = 0
        self.lock = asyncio.Lock()


class _Turn:
    """One of them."""

    __slots__ = ("_came", "_place", "_queue", "_queues")

    def __init__(
        self,
        queues: dict[tuple[SessionKey, asyncio.AbstractEventLoop], _Queue],
        place: tuple[SessionKey, asyncio.AbstractEventLoop],
    ) -> None:
        self._queues = queues
        self._place = place
        queue = queues.get(place)
        if queue is None:
            queue = queues[place] = _Queue()
        self._queue = queue
        self._came = False

    async def __aenter__(self) -> None:
        queue = self._queue
        queue.length += 1
        try:
            if not queue.lock.locked():
                self._came = await queue.lock.acquire()
                return
            try:
                async with asyncio.timeout(PATIENCE):
                    self._came = await queue.lock.acquire()
            except TimeoutError:
                pass
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *error: object) -> None:
        if self._came:
            self._queue.lock.release()
        self._leave()

    def _leave(self) -> None:
        self._queue.length -= 1
        if not self._queue.length:
            del self._queues[self._place]
