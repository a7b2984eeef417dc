"""Work that goes on while whoever began it does something else."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

R = TypeVar("R")


class Ahead(Generic[R]):
    """Begins pieces of work, each in a task, and gives their results in the same order; none
    outlives the ``async with``."""

    def __init__(self) -> None:
        self._tasks: deque[asyncio.Task[R]] = deque()

    def __len__(self) -> int:
        """How many were begun whose results were not taken."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, R]) -> None:
        """Begin one more."""
        self._tasks.append(asyncio.create_task(work))

    async def result(self) -> R | None:
        """Wait for the one begun first; ``None`` if there is none. Raises what it raised."""
        if not self._tasks:
            return None
        try:
            return await self._tasks[0]
        finally:
            self._tasks.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = list(self._tasks)
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # nobody waits for it: what came first is raised
