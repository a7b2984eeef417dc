"""Small scripts and helpers for the tests of the wire, below the backend."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import cast

from perdure.uri import parse

from perdure_redis.router import Reply, Router
from perdure_redis.scripts import Script
from perdure_redis.settings import Settings, settings_from


def script(name: str, source: str, *, writes: bool = True) -> Script:
    """A script of a test's own."""
    flags = "" if writes else " flags=no-writes"
    text = f"#!lua{flags}\n{source}".encode()
    return Script(
        name=name,
        source=text,
        sha=sha1(text, usedforsecurity=False).hexdigest().encode(),
        writes=writes,
    )


PUSH = script("push", "return redis.call('RPUSH', KEYS[1], ARGV[1])")
ECHO = script("echo", "return ARGV[1]", writes=False)
ALL = script("all", "return redis.call('LRANGE', KEYS[1], 0, -1)", writes=False)

SCRIPTS = (PUSH, ECHO, ALL)


def settings(url: str) -> Settings:
    return settings_from(parse(url))


@asynccontextmanager
async def routed(url: str, *scripts: Script) -> AsyncGenerator[Router]:
    """A router on the servers that the URL names, closed at the end."""
    router = Router(settings(url), scripts or SCRIPTS)
    try:
        yield router
    finally:
        await router.aclose()


def key(bucket: int, name: str) -> bytes:
    """A key in a bucket's slot."""
    return f"wire:{{{bucket}}}:{name}".encode()


def values(reply: Reply) -> list[bytes]:
    """What :data:`ALL` returned."""
    assert isinstance(reply.value, list)
    return cast("list[bytes]", reply.value)


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Look again and again; fail after so long."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


class Clock:
    """How many seconds a block took."""

    def __enter__(self) -> "Clock":
        self._start = asyncio.get_running_loop().time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = asyncio.get_running_loop().time() - self._start


@asynccontextmanager
async def relay(
    port: int, *, tls: ssl.SSLContext | None = None, trickle: float = 0
) -> AsyncGenerator[int]:
    """The loopback port of a relay to ``port``, with TLS in front of it if so wanted.

    With ``trickle`` replies pass 64 bytes at a time, that many seconds apart.
    """

    async def pump(
        source: asyncio.StreamReader, target: asyncio.StreamWriter, pause: float
    ) -> None:
        while received := await source.read(64 if pause else 65536):
            target.write(received)
            await target.drain()
            await asyncio.sleep(pause)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        ways = (
            asyncio.create_task(pump(reader, inner_writer, 0)),
            asyncio.create_task(pump(inner_reader, writer, trickle)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            inner_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
