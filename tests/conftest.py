"""What holds for all tests, and the servers that they share."""

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from _pytest.capture import CaptureManager  # pytest has no public name for it
from hypothesis import settings

from tests.services import reaper
from tests.services.server import Server, ServerMissing

if TYPE_CHECKING:
    from tests.backends.durable_objects.harness import MovedWorker
    from tests.backends.redis.moved_clock import MovedValkey
    from tests.services.cluster import Cluster

# Machines that run tests are noisy: how long one example takes says nothing.
settings.register_profile("perdure", deadline=None)
settings.load_profile("perdure")


def _start_valkey(directory: Path) -> Server:
    from tests.services.valkey import Valkey

    return Valkey.start(directory)


def _start_postgres(directory: Path) -> Server:
    from tests.services.postgres import NO_SYNC, Postgres

    return Postgres.start(directory, *NO_SYNC)


def _start_dynoxide(directory: Path) -> Server:
    from tests.services.dynamodb import Dynoxide

    return Dynoxide.start(directory)


def _start_ministack(directory: Path) -> Server:
    from tests.services.dynamodb import Ministack

    return Ministack.start(directory)


def _start_worker(directory: Path) -> Server:
    from tests.services.worker import Worker

    return Worker.serve(directory)


SHARED: dict[str, tuple[str, str, Callable[[Path], Server]]] = {
    "valkey_url": ("Valkey", "PERDURE_TEST_REDIS_URL", _start_valkey),
    "postgres_url": ("Postgres", "PERDURE_TEST_POSTGRES_URL", _start_postgres),
    "dynamodb_endpoint": ("dynoxide", "PERDURE_TEST_DYNAMODB_ENDPOINT", _start_dynoxide),
    "ministack_endpoint": ("ministack", "PERDURE_TEST_MINISTACK_ENDPOINT", _start_ministack),
    "durable_objects_url": ("workerd", "PERDURE_TEST_DURABLE_OBJECTS_URL", _start_worker),
}
"""By fixture: the server, a variable of the environment that names another to use in its
place, and how to start it."""


def say(config: pytest.Config, text: str) -> None:
    """Show a line at once, past the capturing of output."""
    capture = config.pluginmanager.getplugin("capturemanager")
    shown = isinstance(capture, CaptureManager)
    with capture.global_and_fixture_disabled() if shown else nullcontext():
        print(f"\n[servers] {text}", flush=True)


@contextmanager
def needs_servers(config: pytest.Config) -> Generator[None]:
    """Where a server's package is missing, skip the test and say so; fail it under CI."""
    try:
        yield
    except ServerMissing as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        say(config, f"skipping tests: {error}")
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    with needs_servers(item.config):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    with needs_servers(item.config):
        yield


class Servers:
    """The servers of this test session: started together, each when first asked for."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._directory = TemporaryDirectory(prefix="perdure-tests-")
        self._executor = ThreadPoolExecutor()
        self._starting: dict[str, Future[Server]] = {}

    def prepare(self, *names: str) -> None:
        """Begin to start those that neither run nor are given by the environment."""
        missing = [
            name
            for name in names
            if name not in self._starting and SHARED[name][1] not in os.environ
        ]
        if missing:
            reaper.remove(self._directory.name)
            self.say(f"starting {' and '.join(SHARED[name][0] for name in missing)}")
        for name in missing:
            directory = Path(self._directory.name) / name
            self._starting[name] = self._executor.submit(SHARED[name][2], directory)

    def url(self, name: str) -> str:
        """Wait for one and say where it is."""
        given = os.environ.get(SHARED[name][1])
        if given is not None:
            return given
        self.prepare(name)
        return self._starting[name].result().url

    def say(self, text: str) -> None:
        """Show a line at once, past the capturing of output."""
        say(self._config, text)

    def stop(self) -> None:
        """Stop all and wait."""
        self._executor.shutdown()
        for starting in self._starting.values():
            if starting.exception() is None:
                starting.result().stop()
        self._directory.cleanup()


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """The shared servers. Those that any test of this session asks for start now, together."""
    servers = Servers(request.config)
    try:
        asked = {
            name
            for item in request.session.items
            if isinstance(item, pytest.Function)
            for name in item.fixturenames
        }
        servers.prepare(*(name for name in SHARED if name in asked))
        yield servers
    finally:
        servers.stop()


@pytest.fixture(scope="session")
def valkey_url(servers: Servers) -> str:
    """A standalone Valkey, or what ``PERDURE_TEST_REDIS_URL`` names. Shared: use names of your
    own, flush nothing, change no setting."""
    return servers.url("valkey_url")


@pytest.fixture(scope="session")
def postgres_url(servers: Servers) -> str:
    """A database of a Postgres server, or what ``PERDURE_TEST_POSTGRES_URL`` names. Shared:
    use schemas of your own, change no setting."""
    return servers.url("postgres_url")


@pytest.fixture(scope="session")
def aws_credentials() -> Iterator[None]:
    """Some for servers that take any, unless the environment has its own."""
    from tests.services.dynamodb import CREDENTIALS

    with pytest.MonkeyPatch.context() as environment:
        if "PERDURE_TEST_DYNAMODB_ENDPOINT" not in os.environ:
            environment.delenv("AWS_PROFILE", raising=False)
            environment.delenv("AWS_SESSION_TOKEN", raising=False)
            for name, value in CREDENTIALS.items():
                environment.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def dynamodb_endpoint(servers: Servers, aws_credentials: None) -> str:
    """Where DynamoDB's protocol is spoken: a dynoxide, or what
    ``PERDURE_TEST_DYNAMODB_ENDPOINT`` names. Shared: use tables of your own. The environment
    has credentials for it."""
    return servers.url("dynamodb_endpoint")


@pytest.fixture
def dynamodb_url(dynamodb_endpoint: str) -> Iterator[str]:
    """The URL of an empty table there."""
    from tests.services.dynamodb import new_table, table_url

    with new_table(dynamodb_endpoint) as table:
        yield table_url(dynamodb_endpoint, table)


@pytest.fixture(scope="session")
def ministack_endpoint(servers: Servers, aws_credentials: None) -> str:
    """The same from a ministack, which deletes what has expired, and is slow."""
    return servers.url("ministack_endpoint")


@pytest.fixture(scope="session")
def durable_objects_url(servers: Servers) -> str:
    """This checkout's Worker under workerd, or what ``PERDURE_TEST_DURABLE_OBJECTS_URL``
    names; with a key for all tenants. Shared: use tenants of your own."""
    return servers.url("durable_objects_url")


@pytest.fixture(scope="session")
def valkey_cluster(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Cluster]":
    """Three primaries. Who stops one or moves slots starts a cluster of his own."""
    from tests.services.cluster import Cluster

    servers.say("starting a Valkey cluster")
    with Cluster.start(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def movable_valkey(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[MovedValkey | None]":
    """A server whose clock can be moved, with an append-only file; ``None`` where it cannot."""
    from tests.backends.redis.moved_clock import start_moved

    directory = tmp_path_factory.mktemp("moved")
    server = start_moved(directory, "--appendonly", "yes", "--appendfsync", "no")
    yield server
    if server is not None:
        server.stop()


@pytest.fixture(scope="session")
def moved_worker(servers: Servers) -> "Iterator[MovedWorker]":
    """The Worker whose clock can be moved. Shared: use tenants of your own."""
    from tests.backends.durable_objects.harness import MovedWorker

    servers.say("starting the Worker of tests")
    # It syncs every commit. In memory, where there is such a directory, that takes no time.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(prefix="perdure-worker-", dir=memory) as directory:
        reaper.remove(directory)
        with MovedWorker.begin(Path(directory)) as server:
            yield server
