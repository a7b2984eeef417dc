"""One piece of work that goes on while whoever began it does something else."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

R = TypeVar("R")


class Ahead(Generic[R]):
    """Begins one piece of work after another, in a task; none outlives the ``async with``."""

    def __init__(self) -> None:
        self._task: asyncio.Task[R] | None = None

    def start(self, work: Coroutine[Any, Any, R]) -> None:
        """Begin the next, after the result of the one before was taken."""
        self._task = asyncio.create_task(work)

    async def result(self) -> R | None:
        """Wait for what was begun; ``None`` if nothing was. Raises what it raised."""
        task = self._task
        if task is None:
            return None
        try:
            return await task
        finally:
            self._task = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                task.exception()  # nobody waits for it: what came first is raised
