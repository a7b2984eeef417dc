"""Doing the same for many things, some at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def for_each(
    items: Iterable[T] | AsyncIterator[T],
    work: Callable[[T], Awaitable[object]],
    *,
    at_once: int,
) -> None:
    """Await ``work(item)`` for each, so many at the same time; items are taken as needed.

    The first error ends it: what is under way is cancelled, and the error raised.
    """
    source = items if isinstance(items, AsyncIterator) else _each(items)
    turn = asyncio.Lock()

    async def worker() -> None:
        while True:
            async with turn:
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
            await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(worker())
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


async def _each(items: Iterable[T]) -> AsyncGenerator[T, None]:
    for item in items:
        yield item
