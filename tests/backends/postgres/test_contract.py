"""The Postgres backend keeps the contract."""

from collections.abc import Iterator

import pytest

from perdure.testing import BackendContract, TestClock
from perdure.testing.rooms.expiry import ExpiryRoom
from perdure.testing.rooms.reads import Reads

from tests.backends.postgres.harness import PostgresHarness, with_options

clock = TestClock()
"""One for all tests, as they share a schema: its time must not run backwards."""


class TestPostgresBackend(BackendContract):
    """All of it, by a clock that can be moved."""

    @pytest.fixture
    def harness(self, postgres_url: str) -> Iterator[PostgresHarness]:
        harness = PostgresHarness(with_options(postgres_url, schema="kit"), clock)
        yield harness
        harness.close()


class TestServerClock(ExpiryRoom, Reads):
    """What depends on the time, by the clock that is used outside tests."""

    @pytest.fixture
    def harness(self, postgres_url: str) -> Iterator[PostgresHarness]:
        harness = PostgresHarness(with_options(postgres_url, schema="kit by server"))
        yield harness
        harness.close()
