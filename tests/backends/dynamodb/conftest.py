"""Backends on tables of their own, with clocks that are moved by hand."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from perdure.testing import TestClock

from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.settings import Settings
from tests.backends.dynamodb.raw import Raw
from tests.backends.dynamodb.visitors import Visitor
from tests.services.dynamodb import REGION, new_table

Visit = Callable[[], Visitor]
"""Makes another client of the test's table."""

Fresh = Callable[[], Awaitable[DynamoDBBackend]]


@pytest.fixture
def settings(dynamodb_endpoint: str) -> Iterator[Settings]:
    """Those of an empty table."""
    with new_table(dynamodb_endpoint) as table:
        yield Settings(table=table, region=REGION, endpoint=dynamodb_endpoint)


@pytest.fixture
def clock() -> TestClock:
    """Of all clients."""
    return TestClock()


@pytest.fixture
async def backend(settings: Settings, clock: TestClock) -> AsyncIterator[DynamoDBBackend]:
    backend = DynamoDBBackend(settings, clock=clock)
    yield backend
    await backend.aclose()


@pytest.fixture
def raw(settings: Settings) -> Iterator[Raw]:
    """What the table holds, past the backend."""
    assert settings.endpoint is not None
    raw = Raw(settings.endpoint, settings.table)
    yield raw
    raw.close()


@pytest.fixture
async def visit(settings: Settings, clock: TestClock) -> AsyncIterator[Visit]:
    async with AsyncExitStack() as stack:

        def another() -> Visitor:
            visitor = Visitor(settings, clock)
            stack.push_async_callback(visitor.aclose)
            return visitor

        yield another


@pytest.fixture
async def fresh(settings: Settings, clock: TestClock) -> AsyncIterator[Fresh]:
    """Open backends that have not met any session."""
    async with AsyncExitStack() as stack:

        async def another() -> DynamoDBBackend:
            backend = DynamoDBBackend(settings, clock=clock)
            stack.push_async_callback(backend.aclose)
            await backend.open()
            return backend

        yield another
