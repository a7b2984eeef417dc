"""A table for the kit: its backends, a clock that is moved by hand, and a look past them."""

from perdure.backend import Backend
from perdure.testing import Harness, Process, TestClock
from perdure.types import SessionKey
from perdure.uri import parse

from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.settings import settings_from
from tests.backends.dynamodb.raw import Raw
from tests.services.dynamodb import table_url


def open_at_start(url: str) -> DynamoDBBackend:
    """A backend for whom the kit's clock has not been moved."""
    return DynamoDBBackend(settings_from(parse(url)), clock=TestClock())


def open_by_server_clock(url: str) -> DynamoDBBackend:
    return DynamoDBBackend(settings_from(parse(url)))


class DynamoDBHarness(Harness):
    """One table. Close it at the end. ``clock``: ``None`` for the server's."""

    def __init__(self, endpoint: str, table: str, clock: TestClock | None) -> None:
        self.clock = clock
        self.raw = Raw(endpoint, table)
        self._settings = settings_from(parse(table_url(endpoint, table)))
        opener = open_by_server_clock if clock is None else open_at_start
        self.process = Process(f"{__name__}:{opener.__name__}", table_url(endpoint, table))

    async def open(self) -> Backend:
        backend = DynamoDBBackend(self._settings, clock=self.clock)
        await backend.open()
        return backend

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes]:
        return self.raw.items(key)

    def close(self) -> None:
        self.raw.close()
