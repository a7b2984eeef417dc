"""Encrypted stores, and the rows behind them."""

from collections.abc import Callable

import pytest

from perdure import KeyRing, Store
from perdure.backend import Backend

from tests.core.encryption.stored import Stored

KEYS = {"2026-01": bytes(range(32)), "2026-06": bytes(range(1, 33))}
RING = KeyRing(KEYS, primary="2026-01")


@pytest.fixture
def opened(backend: Backend) -> Callable[..., Store]:
    """Opens a store on the backend of this test, with other keys, or with none."""

    def open(keys: KeyRing = RING) -> Store:
        return Store(backend, keys=keys, deadline=5)

    return open


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    return opened()


@pytest.fixture
def stored(backend: Backend) -> Stored:
    """What the backend itself holds."""
    return Stored(backend)
