"""Two operations on one session at once, in an order that is certain."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypedDict, TypeVar

import pytest
from psycopg import AsyncConnection, AsyncRawCursor

from perdure.types import NEVER

from perdure_postgres.backend import PostgresBackend
from perdure_postgres.connection import Statement
from perdure_postgres.database import Database, Results, Row
from perdure_postgres.settings import Settings
from tests.backends.postgres.databases import until

T = TypeVar("T")
Connection = AsyncConnection[Any]

STATEMENTS = pytest.mark.parametrize("statement", ["append", "plain", "commit"])
"""Those that apply a commit."""


class Fields(TypedDict, total=False):
    """What decides, for a commit of one appended value, which statement applies it."""

    incarnation: bytes
    base: int
    expires_at: int


def by(statement: str, incarnation: bytes) -> Fields:
    """Its writer has seen version 1, or nothing; that nothing expires anyhow is more to say
    than ``append.sql`` can."""
    if statement == "commit":
        return {}
    if statement == "plain":
        return {"incarnation": incarnation, "base": 1, "expires_at": NEVER}
    return {"incarnation": incarnation, "base": 1}


class DatabaseOfOne(Database):
    """Runs everything on one connection of psycopg's, in whatever transaction it is in."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        super().__init__(settings)
        self._connection = connection
        self.sent: list[bytes] = []

    async def run(self, *statements: Statement, writes: bool) -> Results:
        del writes
        results: list[list[Row]] = []
        for statement in statements:
            self.sent.append(statement.query)
            cursor = AsyncRawCursor(self._connection)
            # psycopg takes a tuple for a composite value.
            values = [list(v) if isinstance(v, tuple) else v for v in statement.parameters]
            await cursor.execute(statement.query, values, binary=True)
            results.append(await cursor.fetchall() if cursor.description else [])
        return Results(results, b"")

    async def commit(self, order: bytes, *statements: Statement) -> Results:
        del order
        return await self.run(*statements, writes=True)


class Other(PostgresBackend):
    """Another client. Its transactions are the test's: ``async with other.transaction(): ...``
    keeps what it has written locked and invisible to everybody else until the end."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        super().__init__(settings)
        self._database = self.database = DatabaseOfOne(settings, connection)
        self._connection = connection
        self.transaction = connection.transaction

    async def begun(
        self, operation: Coroutine[Any, Any, T], waiting: int = 1
    ) -> asyncio.Task[T]:
        """Start it, and return when it waits for a lock; ``waiting``: the so-manieth to."""
        task = asyncio.create_task(operation)

        async def waits() -> bool:
            assert not task.done(), f"it did not wait: {task.exception() or task.result()!r}"
            # Within a transaction the server goes on showing what it showed first.
            await self._connection.execute("SELECT pg_stat_clear_snapshot()")
            cursor = await self._connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND application_name = 'perdure'"
            )
            return await cursor.fetchone() == (waiting,)

        await until(waits)
        return task
