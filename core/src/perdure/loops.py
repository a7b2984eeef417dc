"""A backend that belongs to one event loop, used from others.

Connections live in the event loop that made them. The loop that uses a store first gets the
backend itself, at no cost, until it ends; all others share a second one, which lives in a
thread of its own.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from perdure.backend import Backend
from perdure.background import Background
from perdure.errors import StoreClosed, Unsupported
from perdure.forwarding import Forwarding

R = TypeVar("R")


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that this is called in. Raises ``Unsupported`` where there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise Unsupported(
            "no asyncio event loop runs here, and this store is awaited in one: use "
            "perdure.sync (under trio in a thread, as with anyio.to_thread.run_sync)"
        ) from None


def at_end_of_loop(end: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Await ``end()`` in the running event loop before it is closed, or at ``aclose()``.

    An event loop has no hook for that, but whoever ends one (``asyncio.run``, a server, a test
    runner) has it close the asynchronous generators that were begun in it. Where that is done
    by a process that was forked meanwhile, the end is still the parent's to make.
    """
    process = os.getpid()

    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if os.getpid() == process:
                await end()

    begun = generator()
    with suppress(StopIteration):  # it has yielded
        begun.asend(None).send(None)
    return begun


class BackgroundBackend(Forwarding):
    """Another backend, made and run in a :class:`Background`, for any number of loops."""

    def __init__(self, make: Callable[[], Backend]) -> None:
        super().__init__(make())
        self._background = Background()
        self._ending: AsyncGenerator[None, None] | None = None

    async def _call(self, work: Coroutine[Any, Any, R]) -> R:
        if self._ending is None:
            try:
                await self._background.call(self._move_in())
            except BaseException:
                work.close()
                raise
        result = await self._background.call(work)
        self.capabilities = self.backend.capabilities  # connecting may have told more
        return result

    async def _move_in(self) -> None:
        if self._ending is None:
            self._ending = at_end_of_loop(self.backend.aclose)

    async def aclose(self) -> None:
        if self._ending is not None:
            with suppress(StoreClosed):
                await self._background.call(self.backend.aclose())
        await asyncio.to_thread(self._background.close)
