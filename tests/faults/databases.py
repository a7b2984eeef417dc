"""The databases that faults are tried on, and what their servers say of their clients."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import redis

from perdure.backend import Backend
from perdure.plugins import open_backend

from tests.faults.proxy import address_of


class Database(ABC):
    """A place for sessions, empty at first, and how to look at it from outside."""

    url: str
    limit = 0
    """How many connections a backend may have open at most."""
    apart = 1
    """How many bytes apart the replies to most kinds of writes are cut."""
    closely = 1
    """The same of an append, and its request."""
    deletion = b"plum"
    """What is in the request that deletes a session of that name, and in none before it."""
    patience = "timeout"
    """The option of its URL that says for how many seconds an answer is waited for."""

    async def open(self) -> Backend:
        """A new backend on it. Does no I/O."""
        return open_backend(self.url)

    @abstractmethod
    def connections(self) -> int:
        """How many clients the server has now, as it says itself: this database's, and those
        that have not said whose they are, but for the one asking."""

    def unfinished(self) -> int:
        """How many of them have begun something and neither ended nor are about it."""
        return 0

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Whether it comes true; a server takes a moment to notice what a client did."""
        for _ in range(500):
            if await asyncio.to_thread(condition):
                return True
            await asyncio.sleep(0.01)
        return False


class Sqlite(Database):
    """A file. It has no connections, but the rules of the contract hold all the same."""

    def __init__(self, directory: Path) -> None:
        self.url = f"sqlite:///{directory}/faults.db"

    def connections(self) -> int:
        return 0


class Redis(Database):
    """A prefix on one server, or on the nodes of a cluster."""

    def __init__(self, *servers: str, name: str) -> None:
        self._servers = servers
        self._name = name
        self.url = _with_options(servers[0], f"prefix={name}&client_name={name}")
        self.limit = 4 * len(servers)

    def connections(self) -> int:
        return sum(map(self._connections_of, self._servers))

    def _connections_of(self, server: str) -> int:
        # redis-py's annotations leave out those of its keyword arguments.
        client = redis.Redis.from_url(server)  # pyright: ignore[reportUnknownMemberType]
        with client:
            clients = client.client_list()  # pyright: ignore[reportUnknownMemberType]
        ours = [client for client in clients if client["name"] in ("", self._name)]
        return len(ours) - 1


class Postgres(Database):
    """A schema in a database."""

    limit = 10
    # A reply has some hundreds of bytes, and every cut costs a process and a log-in.
    apart = 1 if os.environ.get("PERDURE_EVERY_BYTE") else 7

    def __init__(self, url: str, name: str) -> None:
        self._server = url
        self._name = name
        self.url = _with_options(url, f"schema={name}&application_name={name}")

    def connections(self) -> int:
        return len(self._states())

    def unfinished(self) -> int:
        return sum(state.startswith("idle in transaction") for state in self._states())

    def _states(self) -> list[str]:
        with psycopg.connect(self._server, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT coalesce(state, '') FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
                "AND application_name IN ('', %s)",
                (self._name,),
            ).fetchall()
        return [state for (state,) in rows]


class Http(Database):
    """Something behind HTTP. The server is not asked for its connections: they are those that
    this process has to it."""

    limit = 4

    def __init__(self, url: str) -> None:
        self.url = _with_options(url, f"connections={self.limit}")
        _, self._port = address_of(url)

    def connections(self) -> int:
        return sum(
            bool(connection.raddr) and connection.raddr.port == self._port
            for connection in psutil.Process().net_connections(kind="tcp")
            if connection.status == psutil.CONN_ESTABLISHED
        )


class DynamoDB(Http):
    """A table."""

    # Headers and signature make a thousand bytes.
    apart = closely = 1 if os.environ.get("PERDURE_EVERY_BYTE") else 11
    deletion = b"TransactWriteItems"
    patience = "request_timeout"


class DurableObjects(Http):
    """All of a Worker's objects."""

    # Of more than 64 commits a second an object does not remember whether a repeated one, whose
    # sender knew nothing of the session, is among them.
    apart = 3


def _with_options(url: str, options: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{options}"
