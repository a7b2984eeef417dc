"""Runs a coroutine and cancels it: at its nth await, or so many steps of the loop later."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from itertools import count
from typing import Any, NamedTuple


async def at_await(coroutine: Coroutine[Any, Any, None], number: int) -> bool:
    """Cancel it when it suspends for that time, counted from 0. Whether it ran to its end.

    What it waits for may be anything down the stack: a lock, a pool, the network.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(_counting(coroutine, number))
    return await _ran(task)


async def _counting(coroutine: Coroutine[Any, Any, None], number: int) -> None:
    await _Steps(coroutine, number)


class _Steps:
    """Passes on what a coroutine suspends on to the task that runs it, and counts."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], number: int) -> None:
        self._coroutine = coroutine
        self._number = number

    def __await__(self) -> Generator[Any, None, None]:
        task = asyncio.current_task()
        assert task is not None
        steps = self._coroutine.__await__()
        suspended = 0
        thrown: BaseException | None = None
        while True:
            try:
                waited_for = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration:
                return
            if suspended == self._number:
                # After the task has gone to sleep on it.
                asyncio.get_running_loop().call_soon(task.cancel)
            suspended += 1
            thrown = None
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001  (passed on to the coroutine)
                thrown = error


async def after_steps(coroutine: Coroutine[Any, Any, None], number: int) -> bool:
    """Cancel it after so many steps of the event loop. Whether it ran to its end.

    While it waits for a server, the loop spins: every step is another moment on the way.
    """
    task = asyncio.get_running_loop().create_task(coroutine)
    for _ in range(number):
        await asyncio.sleep(0)
        if task.done():
            break
    else:
        task.cancel()
    return await _ran(task)


async def _ran(task: asyncio.Task[None]) -> bool:
    """Raises what the task raised, but for its own cancellation."""
    await asyncio.wait([task])
    if task.cancelled():
        return False
    task.result()
    return True


def sparser() -> Iterator[int]:
    """0, 1, 2, … 29, then a tenth more each time, and from 300 on a third."""
    number = 0
    while True:
        yield number
        number += 1 if number < 30 else number // (10 if number < 300 else 3)


class Way(NamedTuple):
    """A way to cancel, and the numbers to do it with until the coroutine runs to its end."""

    cancel: Callable[[Coroutine[Any, Any, None], int], Awaitable[bool]]
    numbers: Callable[[], Iterator[int]]


WAYS = {"awaits": Way(at_await, count), "steps": Way(after_steps, sparser)}
