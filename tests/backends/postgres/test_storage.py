"""What a turn costs the database: no index but that of the items, nothing that grows."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from perdure.testing.shorthand import CommitFields, read_items, write
from perdure.types import Append, Committed, SessionKey

from perdure_postgres.backend import PostgresBackend
from tests.backends.postgres.conftest import Connect
from tests.backends.postgres.databases import until

VALUE = bytes(3200)


@pytest.fixture
def schema() -> str:
    """A fresh one, so that its statistics are of this test alone."""
    return f"storage-{uuid4()}"


@pytest.fixture
async def db(postgres_url: str, schema: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    options = f'-c search_path="{schema}"'
    connection = await psycopg.AsyncConnection.connect(
        postgres_url, autocommit=True, options=options
    )
    async with connection:
        yield connection


async def turns(
    backend: PostgresBackend, key: SessionKey, made: Committed, count: int
) -> Committed:
    for _ in range(count):
        made = await write(
            backend,
            key,
            incarnation=made.incarnation,
            base=made.version,
            appends=(Append(b"log", (VALUE,)),),
        )
    return made


async def sizes(db: psycopg.AsyncConnection[Any], schema: str) -> dict[str, int]:
    """Bytes of each table and index."""
    cursor = await db.execute(
        "SELECT c.relname, pg_relation_size(c.oid) FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relkind IN ('r', 'i')",
        (schema,),
    )
    return dict(await cursor.fetchall())


async def updates(db: psycopg.AsyncConnection[Any], schema: str) -> dict[str, tuple[int, int]]:
    """Rows updated, and how many of them in place, by table."""
    cursor = await db.execute(
        "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
        "WHERE schemaname = %s AND n_tup_upd > 0",
        (schema,),
    )
    return {name: (total, hot) for name, total, hot in await cursor.fetchall()}


async def test_a_turn_updates_in_place_and_grows_nothing_but_the_items(
    connect: Connect, db: psycopg.AsyncConnection[Any], schema: str, key: SessionKey
) -> None:
    backend = connect(schema=schema)
    made = await write(backend, key, labels=("a", "b"), expires_in=10**9)
    made = await turns(backend, key, made, 200)
    before = await sizes(db, schema)
    await turns(backend, key, made, 800)
    after = await sizes(db, schema)
    grown = {name for name in before if after[name] > before[name]}
    assert grown <= {"items", "items_pkey"}
    assert after["items"] < 1001 * len(VALUE) * 1.3, "stored plain, next to no space lost"
    await backend.aclose()
    expected = {"sessions": 1000, "commits": 1001 - 64}

    async def reported() -> bool:
        """The processes of the server report when they end."""
        return {table: total for table, (total, _) in (await updates(db, schema)).items()} == (
            expected
        )

    await until(reported)
    for table, (total, hot) in (await updates(db, schema)).items():
        assert hot >= 0.98 * total, table


@pytest.mark.parametrize("known", [True, False])
async def test_recency_moves_once_a_minute(
    connect: Connect,
    db: psycopg.AsyncConnection[Any],
    schema: str,
    key: SessionKey,
    known: bool,
) -> None:
    backend = connect(schema=schema)
    made = await write(backend, key)
    for age, moves in ((59_000, False), (61_000, True), (0, False)):
        cursor = await db.execute(
            "UPDATE sessions SET recent_at = updated_at - %s RETURNING recent_at", (age,)
        )
        before = await cursor.fetchone()
        fields: CommitFields = {}
        if known:
            fields = {"incarnation": made.incarnation, "base": made.version}
        made = await write(backend, key, **fields)
        cursor = await db.execute("SELECT recent_at FROM sessions")
        assert (await cursor.fetchone() != before) is moves


async def test_only_the_last_64_commits_of_a_life_are_kept(
    connect: Connect, db: psycopg.AsyncConnection[Any], schema: str, key: SessionKey
) -> None:
    backend = connect(schema=schema)
    made = await write(backend, key)
    await turns(backend, key, made, 150)
    cursor = await db.execute("SELECT count(*), min(version), max(version) FROM commits")
    assert await cursor.fetchone() == (64, 88, 151)


@pytest.mark.parametrize("size", [0, 100, 2000, 3800, 4100, 9000, 70_000])
async def test_values_of_any_length_are_stored_as_they_are(
    connect: Connect, db: psycopg.AsyncConnection[Any], schema: str, key: SessionKey, size: int
) -> None:
    """Zeros would compress to next to nothing."""
    backend = connect(schema=schema)
    value = bytes(size)
    await write(backend, key, puts=((b"a", value),))
    assert [item.value for item in await read_items(backend, key)] == [value]
    cursor = await db.execute("SELECT pg_column_size(value) FROM items")
    row = await cursor.fetchone()
    assert row is not None
    assert row[0] >= size
