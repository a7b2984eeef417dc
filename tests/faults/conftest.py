"""One database of each kind that this folder breaks connections to."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.databases import Database, DurableObjects, DynamoDB, Postgres, Redis, Sqlite
from tests.services.cluster import Cluster
from tests.services.worker import Worker


@pytest.fixture
def table(dynamodb_url: str) -> DynamoDB:
    return DynamoDB(dynamodb_url)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[DurableObjects]:
    with Worker.serve(tmp_path) as server:
        yield DurableObjects(server.url + "/")


@pytest.fixture
def redis(valkey_url: str) -> Redis:
    return Redis(valkey_url, name=f"faults_{secrets.token_hex(4)}")


@pytest.fixture
def cluster(valkey_cluster: Cluster) -> Redis:
    urls = (node.url for node in valkey_cluster.nodes)
    return Redis(*urls, name=f"faults_{secrets.token_hex(4)}")


@pytest.fixture
def postgres(postgres_url: str) -> Postgres:
    return Postgres(postgres_url, f"faults_{secrets.token_hex(4)}")


@pytest.fixture
def sqlite(tmp_path: Path) -> Sqlite:
    return Sqlite(tmp_path)


@pytest.fixture(params=["redis", "postgres", "table", "worker"])
def networked(request: pytest.FixtureRequest) -> Database:
    """Those behind a network, each with nothing in it."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["sqlite", "redis", "cluster", "postgres", "table", "worker"])
def database(request: pytest.FixtureRequest) -> Database:
    """All on which an operation ever suspends."""
    return request.getfixturevalue(request.param)
