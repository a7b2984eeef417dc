"""The floors of Redis: redis-py, and a protocol written for nothing but this.

Both keep a session as a list, one element per turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url

from benchmarks.contenders import Contender, decode_all, encode
from benchmarks.workload import Turn

Part = str | bytes | int
"""Of a command."""

pack = cast("Callable[[tuple[Part, ...]], bytes]", hiredis.__dict__["pack_command"])
"""A command's bytes. hiredis declares another type than it takes."""


class Client(Protocol):
    """What is used of redis-py, whose own types are not complete."""

    async def execute_command(self, *args: Part) -> Any:
        """The reply to one command."""

    async def aclose(self) -> None:
        """Disconnect."""


def connect(url: str) -> Client:
    """redis-py's asyncio client."""
    options = cast("dict[str, Any]", parse_url(url))
    return Redis(**options)


class BareRedis(Contender):
    """redis-py's asyncio client, one RPUSH per turn."""

    name = "bare"

    def __init__(self, url: str, prefix: str) -> None:
        self._prefix = prefix
        self._redis = connect(url)

    async def open(self) -> None:
        await self._redis.execute_command("PING")

    async def close(self) -> None:
        await self._redis.aclose()

    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        for session, turns in sessions.items():
            for start in range(0, len(turns), 100):
                batch = turns[start : start + 100]
                bodies = [encode(turn) for turn in batch]
                await self._redis.execute_command("RPUSH", self._prefix + session, *bodies)

    async def append(self, session: str, turn: Turn) -> None:
        await self._redis.execute_command("RPUSH", self._prefix + session, encode(turn))

    async def load(self, session: str) -> list[Turn]:
        return decode_all(
            await self._redis.execute_command("LRANGE", self._prefix + session, 0, -1)
        )

    async def load_last(self, session: str, turns: int) -> list[Turn]:
        return decode_all(
            await self._redis.execute_command("LRANGE", self._prefix + session, -turns, -1)
        )


class PipelinedRedis(Contender):
    """One connection, pipelined by hand: all that is sent in one turn of the event loop goes
    in one write."""

    name = "pipelined"

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._pipeline = _Pipeline()

    async def open(self) -> None:
        where = cast("dict[str, Any]", parse_url(self._url))
        loop = asyncio.get_running_loop()
        await loop.create_connection(
            lambda: self._pipeline, where.get("host", "localhost"), where.get("port", 6379)
        )
        if "password" in where:
            name = where.get("username") or "default"
            await self._pipeline.send("AUTH", name, where["password"])
        if where.get("db"):
            await self._pipeline.send("SELECT", where["db"])

    async def close(self) -> None:
        self._pipeline.close()

    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        floor = BareRedis(self._url, self._prefix)
        await floor.fill(sessions)
        await floor.close()

    async def append(self, session: str, turn: Turn) -> None:
        await self._pipeline.send("RPUSH", self._prefix + session, encode(turn))

    async def load(self, session: str) -> list[Turn]:
        return decode_all(await self._pipeline.send("LRANGE", self._prefix + session, 0, -1))

    async def load_last(self, session: str, turns: int) -> list[Turn]:
        return decode_all(
            await self._pipeline.send("LRANGE", self._prefix + session, -turns, -1)
        )


class _Pipeline(asyncio.Protocol):
    """Replies come in the order of the requests. Whatever goes wrong ends the benchmark."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._replies = deque[asyncio.Future[Any]]()
        self._unsent: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        for reply in self._replies:
            if not reply.done():
                reply.set_exception(exc or ConnectionError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (value := self._reader.gets()) is not False:
            reply = self._replies.popleft()
            if isinstance(value, hiredis.ReplyError):
                reply.set_exception(value)
            else:
                reply.set_result(value)

    def send(self, *parts: Part) -> asyncio.Future[Any]:
        """A command's reply."""
        command = pack(parts)
        if not self._replies:
            self._transport.write(command)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(command)
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._replies.append(reply)
        return reply

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _flush(self) -> None:
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
