"""One schema for tests that need none of their own, and backends on it, closed at the end."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest

from perdure.types import SessionKey
from perdure.uri import parse

from perdure_postgres.backend import PostgresBackend
from perdure_postgres.settings import Settings
from perdure_postgres.url import settings_of
from tests.backends.postgres.databases import administer

Connect = Callable[..., PostgresBackend]

SCHEMA = "tests"


@pytest.fixture
def settings(postgres_url: str) -> Settings:
    return msgspec.structs.replace(settings_of(parse(postgres_url)), schema=SCHEMA)


@pytest.fixture
async def connect(settings: Settings) -> AsyncIterator[Connect]:
    """Makes backends; takes the fields of ``Settings`` that differ."""
    made: list[PostgresBackend] = []

    def make(**changes: Any) -> PostgresBackend:
        backend = PostgresBackend(msgspec.structs.replace(settings, **changes))
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.aclose()


@pytest.fixture
async def backend(connect: Connect) -> PostgresBackend:
    backend = connect()
    await backend.open()
    return backend


@pytest.fixture
async def db(postgres_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection past the backend that finds the tables of ``SCHEMA``."""
    options = f"-c search_path={SCHEMA}"
    connection = await psycopg.AsyncConnection.connect(
        postgres_url, autocommit=True, options=options
    )
    async with connection:
        yield connection


@pytest.fixture
def key() -> SessionKey:
    """A session of a tenant that no other test has."""
    return SessionKey.of(f"tenant-{uuid4()}", "session", "chat")


@pytest.fixture
async def administrator(postgres_url: str) -> None:
    """For tests that make roles and triggers: a server of the user's own may forbid it."""
    rows = await administer(
        postgres_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    )
    if rows != [(True,)]:
        pytest.skip("needs a superuser")


@pytest.fixture
def direct_url(postgres_url: str) -> str:
    """The shared server, if it asks for no password: poolers of these tests know none."""
    if parse(postgres_url).password is not None:
        pytest.skip("the server asks for a password")
    return postgres_url
