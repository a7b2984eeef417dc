"""Databases for tests: the driver's side of the backend, without its tables."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from perdure_postgres.connection import Statement
from perdure_postgres.database import Database, Row
from perdure_postgres.settings import Settings


def in_schema(url: str, schema: str) -> str:
    """A connection string whose sessions find their tables in ``schema``."""
    return make_conninfo(url, options=f"-c search_path={schema}")


@asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncGenerator[Database]:
    """A database that is closed at the end; takes the fields of ``Settings``."""
    database = Database(Settings(conninfo=url, **settings))
    try:
        yield database
    finally:
        await database.aclose()


async def query(database: Database, text: str, *parameters: Any) -> list[Row]:
    """Rows of one statement that changes nothing."""
    (rows,) = await database.run(Statement(text.encode(), parameters), writes=False)
    return rows


async def execute(database: Database, text: str, *parameters: Any) -> list[Row]:
    """Rows of one statement that writes."""
    (rows,) = await database.run(Statement(text.encode(), parameters), writes=True)
    return rows


async def commit(database: Database, order: str, text: str, *parameters: Any) -> list[Row]:
    """Rows of one statement that may share its transaction."""
    (rows,) = await database.commit(order.encode(), Statement(text.encode(), parameters))
    return rows


async def administer(url: str, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run a statement past the backend, on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(text.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again."""
    async with asyncio.timeout(10):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.005)
