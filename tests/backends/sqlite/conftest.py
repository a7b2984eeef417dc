"""One file per test, and backends on it that are closed at the end."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.types import SessionKey

from perdure_sqlite.backend import SqliteBackend

Connect = Callable[..., SqliteBackend]


def names_in(directory: Path) -> list[str]:
    """What a directory holds."""
    return sorted(file.name for file in directory.iterdir())


def size_of(file: Path) -> int:
    return file.stat().st_size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    """Makes backends on the file; takes the options of ``SqliteBackend``."""
    made: list[SqliteBackend] = []

    def make(**options: Any) -> SqliteBackend:
        backend = SqliteBackend(path, **options)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.aclose()


@pytest.fixture
def backend(connect: Connect) -> SqliteBackend:
    return connect()


@pytest.fixture
def key() -> SessionKey:
    return SessionKey.of("tenant", "session", "chat")
