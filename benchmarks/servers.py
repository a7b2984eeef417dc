"""The database servers that are measured on, and what takes part on each.

Everything is kept under names of this run's own, and removed in the end: the server may be
somebody's.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import msgspec
from psycopg import AsyncConnection, sql

from perdure.uri import parse

from benchmarks.bare_postgres import BarePostgres
from benchmarks.bare_redis import BareRedis, Part, PipelinedRedis, connect
from benchmarks.contenders import Contender, Perdure
from benchmarks.effort import Effort
from benchmarks.table import Row
from tests.services.postgres import Postgres
from tests.services.valkey import Valkey

POOL = 8
"""Connections to Postgres, of each contender: as many as perdure has by default."""


class Server(ABC):
    """A server, and the names of one run on it."""

    name: str
    """Ours, in the table."""
    default_port: int
    floor_notes: tuple[str, ...]
    """What the floors do."""

    def __init__(self, url: str) -> None:
        """``url``: of a server that runs, without options of perdure's own."""
        self.url = url
        self.run = f"bench{os.getpid()}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = parse(self.url)
        return url.host or "localhost", url.port or self.default_port

    def ours(self, port: int | None = None) -> Perdure:
        """perdure on it, or through a proxy on a local port."""
        url = parse(self.url)
        if port is not None:
            url = msgspec.structs.replace(url, host="127.0.0.1", port=port)
        query = {**url.query, **self._options()}
        url = msgspec.structs.replace(url, query=query)
        return Perdure(self.name, url.render(hide_secrets=False))

    @abstractmethod
    def floors(self) -> Sequence[Contender]:
        """The floors, the one that is judged by first."""

    def beside(self) -> Sequence[Perdure]:
        """perdure elsewhere, to compare with: not judged."""
        return ()

    async def own_rows(self, effort: Effort, seed: int) -> list[Row]:
        """What only such a server tells."""
        return []

    @abstractmethod
    async def size(self) -> int:
        """Bytes that it holds, in memory or on disk."""

    @abstractmethod
    async def about(self) -> str:
        """Which server this is, and what it does for durability."""

    @abstractmethod
    async def clear(self) -> None:
        """Remove what this run has stored."""

    def _options(self) -> dict[str, str]:
        """Of our store's URL."""
        return {}


class RedisServer(Server):
    """Redis or Valkey."""

    name = "redis"
    default_port = 6379
    floor_notes = (
        "bare: redis-py's asyncio client with hiredis, one RPUSH per turn.",
        "pipelined: the same RPUSH on one connection, pipelined by hand. redis: perdure.",
    )

    def floors(self) -> Sequence[Contender]:
        return (
            BareRedis(self.url, f"{self.run}:bare:"),
            PipelinedRedis(self.url, f"{self.run}:pipelined:"),
        )

    async def size(self) -> int:
        return (await self._call("INFO", "memory"))["used_memory"]

    async def about(self) -> str:
        info = await self._call("INFO", "server")
        kind = "valkey" if "valkey_version" in info else "redis"
        disk = await self._call("INFO", "persistence")
        log = "on" if disk["aof_enabled"] else "off"
        return f"{kind.title()} {info[f'{kind}_version']}, append-only file {log}."

    async def clear(self) -> None:
        cursor = 0
        while True:
            cursor, keys = await self._call(
                "SCAN", cursor, "MATCH", f"{self.run}:*", "COUNT", 1000
            )
            if keys:
                await self._call("UNLINK", *keys)
            if not cursor:
                return

    def _options(self) -> dict[str, str]:
        return {"prefix": self.run}

    async def _call(self, *parts: Part) -> Any:
        redis = connect(self.url)
        try:
            return await redis.execute_command(*parts)
        finally:
            await redis.aclose()


class PostgresServer(Server):
    """Postgres."""

    name = "postgres"
    default_port = 5432
    floor_notes = (
        "bare: psycopg's asyncio pool, one prepared INSERT per turn, binary, uncompressed. "
        "postgres: perdure.",
    )

    def floors(self) -> Sequence[Contender]:
        return (BarePostgres(self.url, f"{self.run}_bare", POOL),)

    async def size(self) -> int:
        ((size,),) = await self._rows("SELECT pg_database_size(current_database())")
        return size

    async def about(self) -> str:
        ((version, fsync, commit, buffers),) = await self._rows(
            "SELECT current_setting('server_version'), current_setting('fsync'), "
            "current_setting('synchronous_commit'), current_setting('shared_buffers')"
        )
        return (
            f"Postgres {version}: fsync {fsync}, synchronous_commit {commit}, "
            f"shared_buffers {buffers}; {POOL} connections each."
        )

    async def clear(self) -> None:
        async with await AsyncConnection.connect(self.url, autocommit=True) as connection:
            for schema in (self.run, f"{self.run}_bare"):
                drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE")
                await connection.execute(drop.format(sql.Identifier(schema)))

    def _options(self) -> dict[str, str]:
        return {"schema": self.run, "pool": str(POOL)}

    async def _rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        async with await AsyncConnection.connect(self.url, autocommit=True) as connection:
            return await (await connection.execute(query)).fetchall()


@contextmanager
def redis(directory: Path, url: str | None) -> Generator[Server]:
    """The server at ``url``, else one of its own that writes nothing to disk."""
    if url:
        yield RedisServer(url)
    else:
        with Valkey.start(directory) as server:
            yield RedisServer(server.url)


@contextmanager
def postgres(directory: Path, url: str | None) -> Generator[Server]:
    """The server at ``url``, else one of its own with Postgres's default settings."""
    if url:
        yield PostgresServer(url)
    else:
        with Postgres.start(directory) as server:
            yield PostgresServer(server.url)
