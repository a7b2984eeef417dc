"""Who waits is told; who commits where nobody waits pays nothing for it."""

import asyncio
import socket
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from perdure.testing.shorthand import new_id, read_head, write
from perdure.types import Append, SessionKey

from perdure_postgres.backend import WATCH_MS, PostgresBackend
from tests.backends.postgres.conftest import Connect
from tests.backends.postgres.databases import administer, until
from tests.backends.postgres.races import STATEMENTS, by

Connection = psycopg.AsyncConnection[Any]


async def watch_rows(db: Connection, key: SessionKey) -> list[tuple[str, int]]:
    cursor = await db.execute(
        "SELECT channel, until FROM watches WHERE tenant = %s", (key.tenant,)
    )
    return await cursor.fetchall()


async def channel_of(backend: PostgresBackend, db: Connection, key: SessionKey) -> str:
    """Wait for the session until it is watched; where to be told from then on."""
    head = await read_head(backend, key)

    async def watched() -> bool:
        await backend.wait(key, after=head, timeout=0.1)
        return bool(await watch_rows(db, key))

    await until(watched)
    ((channel, _),) = await watch_rows(db, key)
    return channel


async def heard(db: Connection) -> list[str]:
    """Channels notified until now."""
    return [notify.channel async for notify in db.notifies(timeout=0.2)]


@STATEMENTS
async def test_a_commit_notifies_while_somebody_waits(
    backend: PostgresBackend, db: Connection, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key)
    channel = await channel_of(backend, db, key)
    await db.execute(SQL("LISTEN {}").format(Identifier(channel)))
    fields = by(statement, made.incarnation)
    appends = (Append(b"log", (b"one",)),)
    await write(backend, key, **fields, appends=appends)
    assert await heard(db) == [channel]
    await write(backend, SessionKey(key.tenant, key.kind, "another"))
    assert await heard(db) == []
    await db.execute("UPDATE watches SET until = 1 WHERE tenant = %s", (key.tenant,))
    await write(backend, key, **fields, appends=appends)
    assert await heard(db) == [], "nobody waits any more"


async def test_a_deletion_notifies(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    await write(backend, key)
    channel = await channel_of(backend, db, key)
    await db.execute(SQL("LISTEN {}").format(Identifier(channel)))
    assert not await backend.delete(key, id=new_id(), incarnation=new_id())
    assert await heard(db) == []
    assert await backend.delete(key, id=new_id())
    assert await heard(db) == [channel]


async def test_waiting_again_does_not_write_again(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    await write(backend, key)
    await channel_of(backend, db, key)
    before = await watch_rows(db, key)
    for _ in range(5):
        await channel_of(backend, db, key)
    assert await watch_rows(db, key) == before


async def test_the_watch_of_one_does_not_shorten_anothers(
    connect: Connect, db: Connection, key: SessionKey
) -> None:
    one, other = connect(), connect()
    await write(one, key)
    await channel_of(one, db, key)
    await db.execute(
        "UPDATE watches SET until = until + %s WHERE tenant = %s", (WATCH_MS, key.tenant)
    )
    before = await watch_rows(db, key)
    await channel_of(other, db, key)
    assert await watch_rows(db, key) == before


async def test_who_is_told_wakes_at_once(
    connect: Connect, db: Connection, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the notification alone, not by looking."""
    monkeypatch.setattr("perdure_postgres.backend.LOOKS", ())
    waiter, writer = connect(), connect()
    await write(writer, key)
    head = await read_head(waiter, key)
    await channel_of(waiter, db, key)
    for _ in range(5):
        waiting = asyncio.create_task(waiter.wait(key, after=head, timeout=10))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        made = await write(writer, key)
        async with asyncio.timeout(2):
            head = await waiting
        assert head == made.head


async def test_a_change_whose_maker_saw_no_watch_is_found_by_looking(
    connect: Connect, db: Connection, key: SessionKey
) -> None:
    waiter, writer = connect(), connect()
    await write(writer, key)
    head = await read_head(waiter, key)
    waiting = asyncio.create_task(waiter.wait(key, after=head, timeout=10))

    async def watched() -> bool:
        return bool(await watch_rows(db, key))

    await until(watched)
    await db.execute("DELETE FROM watches WHERE tenant = %s", (key.tenant,))
    made = await write(writer, key)
    async with asyncio.timeout(3):
        assert await waiting == made.head


async def test_without_a_connection_to_listen_on_it_polls(
    connect: Connect, key: SessionKey
) -> None:
    waiter, writer = connect(listen_conninfo="host=127.0.0.1 port=1 dbname=x"), connect()
    await write(writer, key)
    head = await read_head(waiter, key)
    waiting = asyncio.create_task(waiter.wait(key, after=head, timeout=10))
    await asyncio.sleep(0.05)
    made = await write(writer, key)
    async with asyncio.timeout(3):
        assert await waiting == made.head


async def test_where_listening_is_not_answered_it_polls_and_ends_in_time(
    connect: Connect, key: SessionKey
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        waiter = connect(listen_conninfo=f"host=127.0.0.1 port={port} dbname=x")
        made = await write(waiter, key)
        async with asyncio.timeout(2):
            assert await waiter.wait(key, after=made.head, timeout=0.1) == made.head
        waiting = asyncio.create_task(waiter.wait(key, after=made.head, timeout=10))
        await asyncio.sleep(0.05)
        changed = await write(waiter, key)
        async with asyncio.timeout(4):
            assert await waiting == changed.head


async def test_a_session_that_expires_wakes_its_waiter(
    backend: PostgresBackend, key: SessionKey
) -> None:
    await write(backend, key, expires_in=150)
    head = await read_head(backend, key)
    async with asyncio.timeout(2):
        assert await backend.wait(key, after=head, timeout=10) is None


async def test_an_engine_without_notify_serves_those_who_look(
    connect: Connect, postgres_url: str, key: SessionKey
) -> None:
    schema = f"silent-{uuid4()}"
    await connect(schema=schema).open()
    silent = SQL(
        "CREATE OR REPLACE VIEW {schema}.watched AS "
        "SELECT tenant, kind, id, until, false AS told FROM {schema}.watches"
    ).format(schema=Identifier(schema))
    await administer(postgres_url, silent.as_string())
    waiter, writer = connect(schema=schema), connect(schema=schema)
    await write(writer, key)
    head = await read_head(waiter, key)
    waiting = asyncio.create_task(waiter.wait(key, after=head, timeout=10))
    await asyncio.sleep(0.03)
    made = await write(writer, key)
    async with asyncio.timeout(3):
        assert await waiting == made.head
