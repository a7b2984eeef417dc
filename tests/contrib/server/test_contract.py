"""What is served keeps the contract, whatever the backend behind it."""

from collections.abc import Iterator

import pytest

from perdure.backend import Backend
from perdure.plugins import open_backend
from perdure.testing import BackendContract, Harness, Process
from perdure.testing.rooms.commits import Commits
from perdure.testing.rooms.deletion import Deletion
from perdure.testing.rooms.durability import DurabilityRoom
from perdure.testing.rooms.idempotency import Idempotency
from perdure.testing.rooms.listing import Listing
from perdure.testing.rooms.races import Races
from perdure.testing.rooms.reads import Reads
from perdure.testing.rooms.stages import Stages
from perdure.testing.rooms.waiting import Waiting

from tests.backends.memory.durable import DurableHarness
from tests.backends.postgres.harness import with_options
from tests.contrib.server.served import PerdureServe, ServedHarness


class TestServed(BackendContract):
    """All of it, by a clock that can be moved."""

    @pytest.fixture
    def harness(self) -> Iterator[ServedHarness]:
        harness = ServedHarness(DurableHarness())
        yield harness
        harness.close()


class ProcessHarness(Harness):
    """Clients of ``perdure serve`` as a process."""

    def __init__(self, server: PerdureServe) -> None:
        self.url = server.url
        self.process = Process("perdure.plugins:open_backend", server.url)

    async def open(self) -> Backend:
        backend = open_backend(self.url)
        await backend.open()
        return backend


@pytest.fixture(scope="module")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PerdureServe]:
    folder = tmp_path_factory.mktemp("server")
    url = f"sqlite:///{folder / 'sessions.db'}?synchronous=normal"
    with PerdureServe.start(folder, url) as server:
        yield server


@pytest.fixture(scope="module")
def redis_server(
    valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PerdureServe]:
    folder = tmp_path_factory.mktemp("server")
    with PerdureServe.start(folder, f"{valkey_url}?prefix=served") as server:
        yield server


@pytest.fixture(scope="module")
def postgres_server(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PerdureServe]:
    folder = tmp_path_factory.mktemp("server")
    with PerdureServe.start(folder, with_options(postgres_url, schema="served")) as server:
        yield server


class TestServedByProcess(
    Races, DurabilityRoom, Waiting, Listing, Stages, Deletion, Idempotency, Commits, Reads
):
    """What a server between a client and a database could spoil, in real time."""

    @pytest.fixture
    def harness(self, sqlite_server: PerdureServe) -> ProcessHarness:
        return ProcessHarness(sqlite_server)


class TestServedDatabase(Waiting, Listing, Stages, Deletion, Commits, Reads):
    """The same in front of a database that is itself a server."""

    @pytest.fixture(params=["redis", "postgres"])
    def harness(self, request: pytest.FixtureRequest) -> ProcessHarness:
        return ProcessHarness(request.getfixturevalue(f"{request.param}_server"))
