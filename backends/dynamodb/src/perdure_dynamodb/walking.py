"""Going through rows, a bounded number of requests at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from perdure.errors import Corrupt

from perdure_dynamodb.actions import SORT, ConditionFailed, Row
from perdure_dynamodb.table import Table

PARALLEL = 16
"""Requests that are under way at once. What is purged is mostly of one partition, which takes
1 000 write units a second, and its session or a successor may be in use."""

T = TypeVar("T")
R = TypeVar("R")


async def each(
    work: Callable[[T], Awaitable[R]], over: Sequence[T], at_once: int = PARALLEL
) -> list[R]:
    """Do ``work`` for all, some at once; what comes of it, in the order of ``over``.

    Raises the first error, but lets finish what is under way.
    """
    results: list[R] = []
    for start in range(0, len(over), at_once):
        done = await asyncio.gather(
            *(work(one) for one in over[start : start + at_once]), return_exceptions=True
        )
        for result in done:
            if isinstance(result, BaseException):
                raise result
            results.append(result)
    return results


async def pages(
    table: Table, partition: bytes, low: bytes, high: bytes, only: Sequence[str] | None
) -> AsyncIterator[list[Row]]:
    """A range, page by page; its rows may be removed in between."""
    behind: bytes | None = None
    while True:
        found = await table.query(partition, low, high, only=only, start_after=behind)
        yield found.rows
        behind = found.last
        if behind is None:
            return


async def attempt(write: Awaitable[None]) -> None:
    """Write, unless its condition does not hold any more: somebody else was first."""
    with suppress(ConditionFailed):
        await write


def sort_of(row: Row) -> bytes:
    """A row's sort key. Raises ``Corrupt``."""
    sort = row.get(SORT)
    if type(sort) is not bytes:
        raise Corrupt("a row has no sort key")
    return sort
