"""The Postgres backend keeps the contract by the server's own clock, too."""

from collections.abc import Iterator

import pytest

from perdure.testing.rooms.expiry import ExpiryRoom
from perdure.testing.rooms.reads import Reads

from tests.backends.postgres.harness import PostgresHarness, with_options


class TestServerClock(ExpiryRoom, Reads):
    """What depends on the time, by the clock that is used outside tests."""

    @pytest.fixture
    def harness(self, postgres_url: str) -> Iterator[PostgresHarness]:
        harness = PostgresHarness(with_options(postgres_url, schema="kit by server"))
        yield harness
        harness.close()
