"""Stores on every backend: for features that lean on what backends do."""

from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest

from perdure import Store
from perdure.testing import Harness

from tests.backends.conftest import (
    durable_objects_harness,
    dynamodb_harness,
    memory_harness,
    postgres_harness,
    redis_harness,
    sqlite_harness,
)
from tests.backends.test_contract import BACKENDS

__all__ = [
    "durable_objects_harness",
    "dynamodb_harness",
    "memory_harness",
    "postgres_harness",
    "redis_harness",
    "sqlite_harness",
]


@pytest.fixture(params=BACKENDS)
def harness(request: pytest.FixtureRequest) -> Harness:
    """A database for this test alone; ``await harness.open()`` is another client of it."""
    return request.getfixturevalue(f"{request.param}_harness")


@pytest.fixture
async def any_store(harness: Harness) -> AsyncGenerator[Store, None]:
    """A store on each backend in turn, with a tenant of its own."""
    backend = await harness.open()
    yield Store(backend, tenant=uuid4().hex, deadline=10)
    await backend.aclose()
