"""The DynamoDB backend keeps the contract by the server's own clock, and on a second server."""

from collections.abc import Iterator

import pytest

from perdure.testing import BackendContract, TestClock
from perdure.testing.rooms.expiry import ExpiryRoom
from perdure.testing.rooms.reads import Reads

from tests.backends.dynamodb.harness import DynamoDBHarness
from tests.services.dynamodb import new_table


class TestMinistack(BackendContract):
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
