"""What only the tests of the Redis backend need."""

import pytest

from tests.backends.redis.moved_clock import MovedValkey


@pytest.fixture
def moved_valkey(movable_valkey: MovedValkey | None) -> MovedValkey:
    """For tests that are about nothing else."""
    if movable_valkey is None:
        pytest.skip("needs Linux and a C compiler to move the server's clock")
    return movable_valkey
