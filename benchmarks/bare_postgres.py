"""The floor of Postgres: psycopg's asyncio pool."""

from collections.abc import Mapping, Sequence
from typing import LiteralString

from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool

from benchmarks.contenders import Contender, decode_all, encode
from benchmarks.workload import Turn


class BarePostgres(Contender):
    """One prepared INSERT per turn, each its own transaction; parameters and results binary.

    The value is stored as it is (``STORAGE EXTERNAL``): compressing it as Postgres would by
    default takes longer, written and read.
    """

    name = "bare"

    def __init__(self, url: str, schema: str, pool: int) -> None:
        """``pool``: how many connections."""
        self._url = url
        self._schema = schema
        self._pool = AsyncConnectionPool(
            url, min_size=pool, max_size=pool, kwargs={"autocommit": True}, open=False
        )
        self._insert = self._statement("INSERT INTO {} (session, body) VALUES (%b, %b)")
        self._select = self._statement("SELECT body FROM {} WHERE session = %b ORDER BY turn")
        self._select_last = self._statement(
            "SELECT body FROM {} WHERE session = %b ORDER BY turn DESC LIMIT %b"
        )

    async def open(self) -> None:
        await self._pool.open(wait=True)
        async with self._pool.connection() as connection:
            await self._create(connection)

    async def close(self) -> None:
        await self._pool.close()

    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        copy = self._statement("COPY {} (session, body) FROM STDIN (FORMAT BINARY)")
        async with await AsyncConnection.connect(self._url) as connection:
            await self._create(connection)
            async with connection.cursor().copy(copy) as rows:
                rows.set_types(("text", "bytea"))
                for session, turns in sessions.items():
                    for turn in turns:
                        await rows.write_row((session, encode(turn)))

    async def append(self, session: str, turn: Turn) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(self._insert, (session, encode(turn)), prepare=True)

    async def load(self, session: str) -> list[Turn]:
        return decode_all(await self._bodies(self._select, session))

    async def load_last(self, session: str, turns: int) -> list[Turn]:
        return decode_all((await self._bodies(self._select_last, session, turns))[::-1])

    async def _bodies(self, statement: bytes, *parameters: object) -> list[bytes]:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(statement, parameters, prepare=True)
            return [body for (body,) in await cursor.fetchall()]

    async def _create(self, connection: AsyncConnection) -> None:
        schema = sql.Identifier(self._schema)
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        await connection.execute(
            self._statement(
                "CREATE TABLE IF NOT EXISTS {} ("
                'session text COLLATE "C", turn bigint GENERATED ALWAYS AS IDENTITY, '
                "body bytea STORAGE EXTERNAL NOT NULL, PRIMARY KEY (session, turn))"
            )
        )

    def _statement(self, text: LiteralString) -> bytes:
        return sql.SQL(text).format(sql.Identifier(self._schema, "turns")).as_bytes(None)
