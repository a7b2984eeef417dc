"""Work that nobody waits for, and that a sweep finishes where it is cut short."""

import asyncio
from collections.abc import Awaitable, Callable

from perdure.errors import PerdureError

AT_ONCE = 2
"""Sessions that are cleaned up at once; others wait."""

GRACE = 2.0
"""Seconds that closing waits for what is under way."""


class Background:
    """Tasks of one backend. Bound to its event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work`` soon. Its errors are dropped: what failed is due, and swept later."""
        task = asyncio.get_running_loop().create_task(self._do(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait a moment for what is under way, and stop the rest."""
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._room:
                await work()
        except PerdureError:
            return
