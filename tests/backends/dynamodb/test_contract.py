"""The DynamoDB backend keeps the contract by the server's own clock, and on a second server."""

from collections.abc import Iterator

import pytest

from perdure.testing import TestClock
from perdure.testing.rooms.commits import Commits
from perdure.testing.rooms.conditions import Conditions
from perdure.testing.rooms.deletion import Deletion
from perdure.testing.rooms.expiry import ExpiryRoom
from perdure.testing.rooms.idempotency import Idempotency
from perdure.testing.rooms.listing import Listing
from perdure.testing.rooms.reads import Reads
from perdure.testing.rooms.stages import Stages

from tests.backends.dynamodb.harness import DynamoDBHarness
from tests.services.dynamodb import new_table


class TestMinistack(Listing, Stages, Deletion, Idempotency, Conditions, Commits, Reads):
    """What depends on the server most: a second one judges it its own way."""

    @pytest.fixture
    def harness(self, ministack_endpoint: str) -> Iterator[DynamoDBHarness]:
        with new_table(ministack_endpoint) as table:
            harness = DynamoDBHarness(ministack_endpoint, table, TestClock())
            yield harness
            harness.close()


class TestServerClock(ExpiryRoom, Reads):
    """What depends on the time, by the clock that is used outside tests."""

    @pytest.fixture
    def harness(self, dynamodb_endpoint: str) -> Iterator[DynamoDBHarness]:
        with new_table(dynamodb_endpoint) as table:
            harness = DynamoDBHarness(dynamodb_endpoint, table, None)
            yield harness
            harness.close()
