"""Servers that only the tests of the Redis backend need."""

from collections.abc import Iterator

import pytest

from tests.backends.redis.moved_clock import MovedValkey, start_moved


@pytest.fixture(scope="session")
def movable_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovedValkey | None]:
    """A server whose clock can be moved, with an append-only file; ``None`` where it cannot."""
    directory = tmp_path_factory.mktemp("moved")
    server = start_moved(directory, "--appendonly", "yes", "--appendfsync", "no")
    yield server
    if server is not None:
        server.stop()


@pytest.fixture
def moved_valkey(movable_valkey: MovedValkey | None) -> MovedValkey:
    """For tests that are about nothing else."""
    if movable_valkey is None:
        pytest.skip("needs Linux and a C compiler to move the server's clock")
    return movable_valkey
