"""One attempt at a time, shared by everybody who asks for it meanwhile."""

import asyncio
import copy
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from perdure.errors import PerdureError, StoreClosed

T = TypeVar("T")


class Once(Generic[T]):
    """Calling it awaits the attempt that is under way, or starts one.

    Cancelling a caller leaves the attempt to the others.
    """

    def __init__(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._attempt = attempt
        self._task: asyncio.Task[T] | None = None

    @property
    def under_way(self) -> bool:
        """Whether there is an attempt."""
        return self._task is not None

    async def __call__(self) -> T:
        """The attempt's result or error. Raises ``StoreClosed`` if it was cancelled."""
        task = self._task
        if task is None:
            task = self._task = asyncio.create_task(self._attempt())
            task.add_done_callback(self._done)
        await asyncio.wait({task})
        if task.cancelled():
            raise StoreClosed("the store was closed")
        try:
            return task.result()
        except PerdureError as error:
            raise copy.copy(error) from None  # several callers raise it, each its own

    async def cancel(self) -> None:
        """Cancel the attempt that is under way, if any, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _done(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # it is no news if all callers have left
