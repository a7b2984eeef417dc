"""How fast attachments come and go, against the same bytes in the same database, bare."""

import asyncio
import io
import os
import random
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import cast

from psycopg import AsyncConnection, sql

import perdure
from perdure.attachment_parts import PART_BYTES

from benchmarks import servers
from benchmarks.bare_redis import connect
from benchmarks.contenders import Perdure, sqlite
from benchmarks.effort import Effort, step
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Table, Target

BARE, OURS = "bare", "perdure"
PUT, OPEN = "put", "open"

NOTES = [
    "Of 64 MiB that do not compress, from memory and to nowhere. bare: rows of 255 KiB, one "
    "after another, each a statement of its own, acknowledged as durably as ours are: INSERT "
    "and SELECT with sqlite3 in a thread (synchronous=FULL) and with psycopg, SET and GET with "
    "redis-py. It checks nothing. perdure: put() of a binary file, and all that open() gives.",
    "SHA-256: what hashing the bytes once takes, which neither can do without who names them "
    "by their content.",
]


def measure(
    effort: Effort, directory: Path, seed: int, urls: Mapping[str, str | None]
) -> Table:
    """The table. ``directory`` takes the databases; ``urls``: of servers that run already."""
    content = random.Random(seed).randbytes(effort.attachment)
    folder = directory / "attachments"
    folder.mkdir()
    with step("attachments: sqlite"):
        bare = BareFile(folder / "bare.db")
        rows = asyncio.run(_compare(effort, content, bare, sqlite(folder)))
    with (
        servers.redis(folder / "redis", urls.get("redis")) as server,
        step("attachments: redis"),
    ):
        bare = BareKeys(server.url, f"{server.run}:attachment:")
        rows += asyncio.run(_compare(effort, content, bare, server.ours()))
        asyncio.run(server.clear())
    with (
        servers.postgres(folder / "postgres", urls.get("postgres")) as server,
        step("attachments: postgres"),
    ):
        bare = BareRows(server.url, f"{server.run}_bare")
        rows += asyncio.run(_compare(effort, content, bare, server.ours()))
        asyncio.run(server.clear())
    started = perf_counter()
    sha256(content)
    speed = len(content) / (perf_counter() - started) / 2**20
    rows.append(Row(measure="SHA-256", unit="MiB/s", values={BARE: speed}))
    return Table("attachments", (BARE, OURS), rows, NOTES)


class Bare(ABC):
    """A driver that writes and reads rows. ``name`` is of the database."""

    name: str

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make a place for the rows."""

    @abstractmethod
    async def write(self, number: int, row: bytes) -> None:
        """Write one row, durably."""

    @abstractmethod
    async def read(self, number: int) -> bytes:
        """Read one row."""

    @abstractmethod
    async def clear(self) -> None:
        """Remove all rows."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""


class BareFile(Bare):
    """sqlite3, in threads."""

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, body BLOB)")

    async def write(self, number: int, row: bytes) -> None:
        statement = "INSERT INTO rows VALUES (?, ?)"
        await asyncio.to_thread(self._db.execute, statement, (number, row))

    async def read(self, number: int) -> bytes:
        return await asyncio.to_thread(self._read, number)

    async def clear(self) -> None:
        self._db.execute("DELETE FROM rows")

    async def close(self) -> None:
        self._db.close()

    def _read(self, number: int) -> bytes:
        found = self._db.execute("SELECT body FROM rows WHERE number = ?", (number,))
        return found.fetchone()[0]


class BareKeys(Bare):
    """redis-py."""

    name = "redis"

    def __init__(self, url: str, prefix: str) -> None:
        self._redis = connect(url)
        self._prefix = prefix
        self._count = 0

    async def open(self) -> None:
        await self._redis.execute_command("PING")

    async def write(self, number: int, row: bytes) -> None:
        await self._redis.execute_command("SET", f"{self._prefix}{number}", row)
        self._count = number + 1

    async def read(self, number: int) -> bytes:
        return await self._redis.execute_command("GET", f"{self._prefix}{number}")

    async def clear(self) -> None:
        names = [f"{self._prefix}{number}" for number in range(self._count)]
        await self._redis.execute_command("DEL", *names)

    async def close(self) -> None:
        await self._redis.aclose()


class BareRows(Bare):
    """psycopg, binary, prepared, uncompressed."""

    name = "postgres"

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._table = sql.Identifier(schema, "parts")
        self._schema = sql.Identifier(schema)

    async def open(self) -> None:
        self._db = await AsyncConnection.connect(self._url, autocommit=True)
        for statement in (
            sql.SQL("CREATE SCHEMA {0}"),
            sql.SQL("CREATE TABLE {1} (number integer PRIMARY KEY, body bytea)"),
            sql.SQL("ALTER TABLE {1} ALTER COLUMN body SET STORAGE EXTERNAL"),
        ):
            await self._db.execute(statement.format(self._schema, self._table))
        self._insert = sql.SQL("INSERT INTO {} VALUES (%s, %b)").format(self._table)
        self._select = sql.SQL("SELECT body FROM {} WHERE number = %s").format(self._table)

    async def write(self, number: int, row: bytes) -> None:
        await self._db.execute(self._insert, (number, row), prepare=True)

    async def read(self, number: int) -> bytes:
        found = await self._db.execute(self._select, (number,), prepare=True, binary=True)
        return cast("tuple[bytes]", await found.fetchone())[0]

    async def clear(self) -> None:
        await self._db.execute(sql.SQL("TRUNCATE {}").format(self._table))

    async def close(self) -> None:
        await self._db.close()


async def _compare(effort: Effort, content: bytes, bare: Bare, ours: Perdure) -> list[Row]:
    samples = Samples[tuple[str, str]]()
    await bare.open()
    await ours.open()
    for round_ in range(effort.rounds + 1):
        settle()
        for name in rotated((BARE, OURS), round_):
            seconds = (
                await _bare(bare, content) if name == BARE else await _ours(ours.store, content)
            )
            if round_:  # the first warms up
                for what, taken in zip((PUT, OPEN), seconds, strict=True):
                    samples.add((name, what), len(content) / taken / 2**20)
    await bare.close()
    await ours.close()
    rows: list[Row] = []
    for what in (PUT, OPEN):
        values = {name: samples.median((name, what)) for name in (BARE, OURS)}
        rows.append(
            Row(
                measure=f"{what}, {bare.name}",
                unit="MiB/s",
                values=values,
                judged=values[OURS] / values[BARE],
                target=Target(0.5, at_least=True),
            )
        )
    return rows


async def _bare(bare: Bare, content: bytes) -> Sequence[float]:
    """Seconds to write it, and to read it."""
    begun = perf_counter()
    starts = range(0, len(content), PART_BYTES)
    for number, start in enumerate(starts):
        await bare.write(number, content[start : start + PART_BYTES])
    written = perf_counter()
    for number in range(len(starts)):
        await bare.read(number)
    read = perf_counter()
    await bare.clear()
    return written - begun, read - written


async def _ours(store: perdure.Store, content: bytes) -> Sequence[float]:
    """Seconds to put it, and to read it."""
    session = store.session(os.urandom(8).hex())
    begun = perf_counter()
    put = await session.attachments.put(io.BytesIO(content))
    written = perf_counter()
    async with aclosing(session.attachments.open(put.digest)) as pieces:
        async for _ in pieces:
            pass
    read = perf_counter()
    await session.delete()
    return written - begun, read - written
