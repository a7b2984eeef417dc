"""A server that answers as a test says, for what dynoxide never does: refuse credentials,
throttle, break connections, garble replies, tell another time."""

import asyncio
import json
import ssl
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import cast

from aiohttp import web

from perdure_dynamodb.settings import Settings

Answer = Callable[["Asked"], Awaitable[web.Response]]

TABLE = {
    "TableStatus": "ACTIVE",
    "KeySchema": [
        {"AttributeName": "p", "KeyType": "HASH"},
        {"AttributeName": "s", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "p", "AttributeType": "B"},
        {"AttributeName": "s", "AttributeType": "B"},
    ],
}


class Asked:
    """A request that arrived."""

    def __init__(self, request: web.Request, body: bytes) -> None:
        self.request = request
        self.operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        self.sent = body
        self.body = cast("dict[str, object]", json.loads(body))


class Answering:
    """What was asked, and what is still to be answered in another way than by success."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.asked: list[Asked] = []
        self.answers: deque[Answer] = deque()
        self.descriptions: deque[Answer] = deque()
        """For ``DescribeTable``, before ``table`` is told."""
        self.asked_for_more = asyncio.Event()
        """Something else than ``DescribeTable`` has arrived."""
        self.port = 0
        self.table: dict[str, object] = dict(TABLE)

    @property
    def operations(self) -> list[str]:
        """What was asked for, ``DescribeTable`` left out."""
        return [a.operation for a in self.asked if a.operation != "DescribeTable"]

    def settings(self, **fields: object) -> Settings:
        """Those of a client."""
        known: dict[str, object] = {
            "table": "sessions",
            "region": "eu-west-1",
            "endpoint": f"{self.scheme}://127.0.0.1:{self.port}",
        }
        return Settings(**known | fields)  # pyright: ignore[reportArgumentType]

    async def handle(self, request: web.Request) -> web.Response:
        asked = Asked(request, await request.read())
        self.asked.append(asked)
        if asked.operation == "DescribeTable":
            if self.descriptions:
                return await self.descriptions.popleft()(asked)
            return reply({"Table": self.table})
        self.asked_for_more.set()
        if self.answers:
            return await self.answers.popleft()(asked)
        return reply({"Items": []} if asked.operation == "Query" else {})


@asynccontextmanager
async def answering(
    tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1"
) -> AsyncGenerator[Answering]:
    """One that runs on a free port of this host."""
    server = Answering("http" if tls is None else "https")
    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/", server.handle)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, address, 0, ssl_context=tls)
    await site.start()
    server.port = cast("int", runner.addresses[0][1])
    try:
        yield server
    finally:
        await runner.cleanup()


def reply(
    body: dict[str, object], status: int = 200, *, crc: int | None = None, date: str = ""
) -> web.Response:
    """As DynamoDB replies."""
    text = json.dumps(body).encode()
    headers = {
        "x-amz-crc32": str(zlib.crc32(text) if crc is None else crc),
        "Date": date or formatdate(usegmt=True),
    }
    return web.Response(
        body=text, status=status, headers=headers, content_type="application/x-amz-json-1.0"
    )


def refuse(code: str, message: str = "", status: int = 400, **fields: object) -> Answer:
    """An error of DynamoDB's."""

    async def answer(asked: Asked) -> web.Response:
        del asked
        kind = f"com.amazonaws.dynamodb.v20120810#{code}"
        return reply({"__type": kind, "message": message, **fields}, status)

    return answer


def cancelled(*codes: str) -> Answer:
    """A transaction is cancelled for these reasons."""
    reasons = [{"Code": code} for code in codes]
    return refuse("TransactionCanceledException", CancellationReasons=reasons)


async def hang_up(asked: Asked) -> web.Response:
    """The request arrives, the connection breaks."""
    assert asked.request.transport is not None
    asked.request.transport.abort()
    return web.Response()


async def silence(asked: Asked) -> web.Response:
    """No answer for longer than anybody waits."""
    del asked
    await asyncio.sleep(60)
    return web.Response()


async def garbled(asked: Asked) -> web.Response:
    """A reply that was changed on the way."""
    del asked
    return reply({}, crc=1)


async def strange(asked: Asked) -> web.Response:
    """A page of something that is not DynamoDB."""
    del asked
    return web.Response(text="<html>Welcome!</html>", content_type="text/html")


async def bad_gateway(asked: Asked) -> web.Response:
    """From something on the way."""
    del asked
    return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
