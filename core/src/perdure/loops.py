"""A backend that belongs to one event loop, used from others.

Connections live in the event loop that made them. The loop that uses a store first gets the
backend itself, at no cost, until it ends; all others share a second one, which lives in a
thread of its own.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from perdure.backend import Backend
from perdure.forwarding import Forwarding

R = TypeVar("R")


def at_end_of_loop(end: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Await ``end()`` in the running event loop before it is closed, or at ``aclose()``.

    An event loop has no hook for that, but whoever ends one (``asyncio.run``, a server, a test
    runner) has it close the asynchronous generators that were begun in it.
    """

    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await end()

    begun = generator()
    with suppress(StopIteration):  # it has yielded
        begun.asend(None).send(None)
    return begun


class BackgroundBackend(Forwarding):
    """Another backend, made and run in the loop of a thread of its own.

    For any number of loops and threads. Nothing starts before the first call.
    """

    def __init__(self, make: Callable[[], Backend]) -> None:
        super().__init__(make())
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def _call(self, work: Coroutine[Any, Any, R]) -> R:
        """Have it done over there. Cancelling the one who waits for it cancels it."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="perdure", daemon=True
                )
                self._thread.start()
        result = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        self.capabilities = self.backend.capabilities  # connecting may have told more
        return result

    async def aclose(self) -> None:
        with self._starting:
            loop, thread = self._loop, self._thread
            self._thread = None
        if loop is None or thread is None:
            return
        try:
            await super().aclose()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            await asyncio.to_thread(thread.join)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
