"""What the kit needs of each backend: a database of its own, and ways to look into it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.testing import TestClock

from tests.backends.durable_objects.harness import MovedWorker, WorkerHarness
from tests.backends.dynamodb.harness import DynamoDBHarness
from tests.backends.memory.durable import DurableHarness
from tests.backends.postgres.harness import PostgresHarness, with_options
from tests.backends.redis.harness import MovedHarness, RedisHarness
from tests.backends.redis.moved_clock import MovedValkey
from tests.backends.sqlite.harness import SqliteHarness
from tests.services.dynamodb import new_table

POSTGRES_CLOCK = TestClock()
"""One for all tests, as they share a schema: its time must not run backwards."""


@pytest.fixture
def memory_harness() -> DurableHarness:
    """With the data kept outside: restarts, other clients and the raw oracle."""
    return DurableHarness()


@pytest.fixture
def sqlite_harness(tmp_path: Path) -> SqliteHarness:
    return SqliteHarness(tmp_path / "sessions.db", TestClock())


@pytest.fixture
def redis_harness(request: pytest.FixtureRequest) -> Iterator[RedisHarness]:
    server: MovedValkey | None = None
    if "PERDURE_TEST_REDIS_URL" not in os.environ:
        server = request.getfixturevalue("movable_valkey")
    if server is None:
        harness = RedisHarness(request.getfixturevalue("valkey_url"))
    else:
        harness = MovedHarness(server)
    yield harness
    harness.raw.close()


@pytest.fixture
def postgres_harness(postgres_url: str) -> Iterator[PostgresHarness]:
    harness = PostgresHarness(with_options(postgres_url, schema="kit"), POSTGRES_CLOCK)
    yield harness
    harness.close()


@pytest.fixture
def dynamodb_harness(dynamodb_endpoint: str) -> Iterator[DynamoDBHarness]:
    with new_table(dynamodb_endpoint) as table:
        harness = DynamoDBHarness(dynamodb_endpoint, table, TestClock())
        yield harness
        harness.close()


@pytest.fixture
def durable_objects_harness(moved_worker: MovedWorker) -> WorkerHarness:
    return WorkerHarness(moved_worker)
