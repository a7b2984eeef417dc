"""Stores to test with: every behaviour of the store holds on every backend we have."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from perdure import Store
from perdure.backend import Backend
from perdure.testing import TestClock

from perdure_memory.backend import MemoryBackend
from perdure_sqlite.backend import SqliteBackend
from tests.core.seen import Seen


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["memory", "sqlite"])
async def backend(
    request: pytest.FixtureRequest, tmp_path: Path, clock: TestClock
) -> AsyncGenerator[Backend, None]:
    made: Backend
    if request.param == "memory":
        made = MemoryBackend(clock=clock)
    else:
        made = SqliteBackend(tmp_path / "sessions.db", clock=clock)
    yield made
    await made.aclose()


@pytest.fixture
def store(backend: Backend) -> Store:
    return Store(backend, deadline=5)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def watched(backend: Backend, seen: Seen) -> Store:
    return Store(backend, deadline=5, on_event=seen.append)
