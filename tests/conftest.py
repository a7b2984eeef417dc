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


SHARED: dict[str, tuple[str, str, Callable[[Path], Server]]] = {
    "valkey_url": ("Valkey", "PERDURE_TEST_REDIS_URL", _start_valkey),
    "postgres_url": ("Postgres", "PERDURE_TEST_POSTGRES_URL", _start_postgres),
}
"""By fixture: the server, a variable of the environment that names another to use in its
place, and how to start it."""


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
        with self.needed():
            return self._starting[name].result().url

    @contextmanager
    def needed(self) -> Generator[None]:
        """Where a server's package is missing, skip the test and say so; fail it under CI."""
        try:
            yield
        except ServerMissing as error:
            if os.environ.get("CI"):
                pytest.fail(str(error), pytrace=False)
            self.say(f"skipping tests: {error}")
            pytest.skip(str(error))

    def say(self, text: str) -> None:
        """Show a line at once, past the capturing of output."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        shown = isinstance(capture, CaptureManager)
        with capture.global_and_fixture_disabled() if shown else nullcontext():
            print(f"\n[servers] {text}", flush=True)

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
def valkey_cluster(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Cluster]":
    """Three primaries. Who stops one or moves slots starts a cluster of his own."""
    from tests.services.cluster import Cluster

    servers.say("starting a Valkey cluster")
    with servers.needed():
        cluster = Cluster.start(tmp_path_factory.mktemp("cluster"))
    with cluster:
        yield cluster
