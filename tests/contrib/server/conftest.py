"""Servers that many tests share: each test uses tenants of its own."""

from collections.abc import Callable, Iterator

import pytest

from perdure.backend import Backend
from perdure.plugins import open_backend

from perdure_memory.backend import MemoryBackend
from tests.backends.postgres.harness import with_options
from tests.contrib.server.served import Thread
from tests.contrib.server.speaking import Speaker


async def memory() -> Backend:
    return MemoryBackend()


@pytest.fixture(scope="session")
def thread() -> Iterator[Thread]:
    with Thread(memory) as thread:
        yield thread


@pytest.fixture(scope="session")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Speaker]]:
    """A server of each kind of backend by its name, started when first asked for."""
    threads: dict[str, Thread] = {}

    def serve(name: str) -> Speaker:
        if name not in threads:
            match name:
                case "sqlite":
                    url = f"sqlite:///{tmp_path_factory.mktemp('served') / 'sessions.db'}"
                case "redis":
                    url = f"{request.getfixturevalue('valkey_url')}?prefix=served"
                case "postgres":
                    given = request.getfixturevalue("postgres_url")
                    url = with_options(given, schema="served")
                case _:
                    url = "memory://"

            async def make() -> Backend:
                return open_backend(url)

            threads[name] = Thread(make).start()
        return Speaker(threads[name].port)

    yield serve
    for thread in threads.values():
        thread.stop()


@pytest.fixture
def speak(thread: Thread) -> Speaker:
    return Speaker(thread.port)
