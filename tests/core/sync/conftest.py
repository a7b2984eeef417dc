"""Blocking stores to test with."""

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from perdure.sync import Session, Store


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sync.db"


@pytest.fixture(params=["memory", "sqlite", "valkey_url", "postgres_url"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a backend in this process, and of those that belong to an event loop."""
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/sync.db"
        case name:
            return request.getfixturevalue(name)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url, deadline=10) as store:
        yield store


@pytest.fixture
def session(store: Store) -> Session:
    return store.session(token_hex(8))
