"""An endpoint of DynamoDB's protocol in front of another, where all goes wrong that may.

What AWS documents of its errors:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import aiohttp
import msgspec
from aiohttp import web


class Mishap(Enum):
    """What becomes of a request. Of those with ``AFTER`` the table has seen it."""

    THROTTLED = "throttled"
    CONFLICT = "conflict"
    FAILED_BEFORE = "500 before"
    FAILED_AFTER = "500 after"
    GATEWAY_AFTER = "502 of something on the way"
    CUT_BEFORE = "connection closed before"
    CUT_AFTER = "connection closed after"
    TORN_AFTER = "half a reply"
    GARBLED_AFTER = "a reply with a byte changed"
    SLOW_AFTER = "a reply that takes a moment"
    LATE_AFTER = "a reply later than anybody waits"
    STRAY = "a request that arrives when nobody waits any more"


THROTTLED = (
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
)
PREFIX = {
    "ThrottlingException": "com.amazon.coral.availability",
    "InternalServerError": "com.amazonaws.dynamodb.v20120810",
}


class Received(NamedTuple):
    """One request."""

    operation: str
    """As the API names it: ``PutItem``."""
    headers: dict[str, str]
    body: bytes

    @property
    def writes(self) -> bool:
        return self.operation in ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")


class MishapProxy:
    """Answers in the place of an endpoint. A context manager; made by :meth:`start`."""

    _session: aiohttp.ClientSession
    _served: web.Server
    _server: asyncio.Server

    def __init__(self, url: str, *, share: float, patience: float, seed: int) -> None:
        self._url = url
        self._endpoint = parse_qs(urlsplit(url).query)["endpoint"][0]
        self._share = share
        self._patience = patience
        self._chance = random.Random(seed)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.met: Counter[Mishap] = Counter()
        """What has happened to requests that write."""

    @classmethod
    async def start(cls, url: str, *, share: float, patience: float, seed: int = 0) -> Self:
        """One in front of the endpoint that a table's URL names.

        It lets this share of all requests go wrong, and knows that a client waits for an answer
        no longer than ``patience`` seconds.
        """
        proxy = cls(url, share=share, patience=patience, seed=seed)
        proxy._session = aiohttp.ClientSession(auto_decompress=False)
        proxy._served = web.Server(proxy._serve)
        loop = asyncio.get_running_loop()
        proxy._server = await loop.create_server(proxy._served, "127.0.0.1", 0)
        return proxy

    @property
    def url(self) -> str:
        """The table's URL, with the proxy for an endpoint."""
        port = self._server.sockets[0].getsockname()[1]
        return self._url.replace(self._endpoint, f"http://127.0.0.1:{port}")

    async def until_idle(self) -> None:
        """Wait until all that was on the way has arrived."""
        await self._idle.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._idle.wait()
        await self._served.shutdown(0)
        await self._session.close()
        await self._server.wait_closed()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self._under_way += 1
        self._idle.clear()
        try:
            target = request.headers.get("X-Amz-Target", "")
            headers = {
                name: value
                for name, value in request.headers.items()
                if name not in ("Host", "Content-Length")
            }
            received = Received(target.rpartition(".")[2], headers, await request.read())
            return await self._answer(request, received)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _answer(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        if self._chance.random() >= self._share:
            return await self._pass_on(received)
        mishap = self._chance.choice(list(Mishap))
        self.met[mishap] += received.writes
        match mishap:
            case Mishap.THROTTLED:
                return refuse(400, self._chance.choice(THROTTLED))
            case Mishap.CONFLICT:
                return conflict(received)
            case Mishap.FAILED_BEFORE:
                return refuse(500, "InternalServerError")
            case Mishap.CUT_BEFORE:
                return cut(request)
            case Mishap.STRAY:
                await asyncio.sleep(2 * self._patience)
                return await self._pass_on(received)
            case _:
                reply = await self._pass_on(received)
                return await self._spoil(mishap, request, reply)

    async def _spoil(
        self, mishap: Mishap, request: web.BaseRequest, reply: web.Response
    ) -> web.StreamResponse:
        assert isinstance(reply.body, bytes)
        match mishap:
            case Mishap.FAILED_AFTER:
                return refuse(500, "InternalServerError")
            case Mishap.GATEWAY_AFTER:
                return web.Response(status=502, text="<html><h1>Bad Gateway</h1></html>")
            case Mishap.TORN_AFTER:
                torn = web.StreamResponse(status=reply.status, headers=reply.headers)
                torn.content_length = len(reply.body)
                await torn.prepare(request)
                await torn.write(reply.body[: len(reply.body) // 2])
                return cut(request)
            case Mishap.GARBLED_AFTER:
                place = self._chance.randrange(len(reply.body))
                changed = bytes([reply.body[place] ^ 1])
                reply.body = reply.body[:place] + changed + reply.body[place + 1 :]
                return reply
            case Mishap.SLOW_AFTER:
                await asyncio.sleep(self._patience / 4)
                return reply
            case Mishap.LATE_AFTER:
                await asyncio.sleep(2 * self._patience)
                return reply
            case _:
                return cut(request)

    async def _pass_on(self, received: Received) -> web.Response:
        async with self._session.post(
            self._endpoint, data=received.body, headers=received.headers
        ) as reply:
            kept = ("Content-Type", "Date", "x-amz-crc32", "x-amzn-requestid")
            headers = {name: reply.headers[name] for name in kept if name in reply.headers}
            return web.Response(status=reply.status, headers=headers, body=await reply.read())


def refuse(status: int, code: str, **more: object) -> web.Response:
    """An error as DynamoDB words it."""
    prefix = PREFIX.get(code, "com.amazonaws.dynamodb.v20120810")
    body = msgspec.json.encode({"__type": f"{prefix}#{code}", "message": "so it goes", **more})
    return web.Response(status=status, body=body, content_type="application/x-amz-json-1.0")


def conflict(received: Received) -> web.Response:
    """Another transaction is about the same item."""
    if received.operation != "TransactWriteItems":
        return refuse(400, "TransactionConflictException")
    asked = msgspec.json.decode(received.body, type=Transaction)
    reasons = [{"Code": "None"}] * len(asked.TransactItems)
    reasons[0] = {"Code": "TransactionConflict", "Message": "Transaction is ongoing"}
    return refuse(400, "TransactionCanceledException", CancellationReasons=reasons)


class Transaction(msgspec.Struct):
    TransactItems: Sequence[object]


def cut(request: web.BaseRequest) -> web.Response:
    """Close the connection without a further word."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
