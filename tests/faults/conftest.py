"""One database of each kind that this folder breaks connections to."""

import secrets
from pathlib import Path

import pytest

from tests.faults.databases import Database, Postgres, Redis, Sqlite
from tests.services.cluster import Cluster


@pytest.fixture(params=["redis", "postgres"])
def networked(request: pytest.FixtureRequest, valkey_url: str, postgres_url: str) -> Database:
    """Those behind a network, each with nothing in it."""
    name = f"faults_{secrets.token_hex(4)}"
    if request.param == "redis":
        return Redis(valkey_url, name=name)
    return Postgres(postgres_url, name)


@pytest.fixture(params=["sqlite", "redis", "cluster", "postgres"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str, postgres_url: str
) -> Database:
    """All on which an operation ever suspends."""
    name = f"faults_{secrets.token_hex(4)}"
    if request.param == "sqlite":
        return Sqlite(tmp_path)
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("valkey_cluster")
        return Redis(*(node.url for node in cluster.nodes), name=name)
    if request.param == "redis":
        return Redis(valkey_url, name=name)
    return Postgres(postgres_url, name)
