"""Requests to one server, over connections that are kept alive."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import lru_cache
from io import BytesIO

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from perdure.errors import StoreClosed, TooLarge, Unavailable
from perdure.protocol.auth import Mode, bearer, sign
from perdure.protocol.limits import CONTENT_TYPE, MAX_BODY_BYTES
from perdure.protocol.paths import Operation, path_of

from perdure_durable_objects.failures import no_answer, refusal, too_long
from perdure_durable_objects.settings import Settings

KEEP_ALIVE = 60.0
"""Seconds for which an idle connection is kept."""

HEARTBEAT = 20.0
"""Seconds between pings while waiting, so that a dead connection is noticed."""

TOTAL = 10
"""How many times the time for silence a request may take in all."""

MAX_ANSWER_BYTES = 256 << 20
"""Longest answer that is taken into memory."""

LONG = 1 << 20
"""Bytes of a body that is not written at once."""

PATHS = 4096
"""How many paths of sessions in use are remembered."""

_HEADERS = {
    "Accept": CONTENT_TYPE,
    "Accept-Encoding": "identity",
    "User-Agent": "perdure-durable-objects",
}
"""All that aiohttp would add by itself."""


class NoWebSocket(Exception):
    """The server answered a request to wait by anything but a WebSocket."""


class Connection:
    """Sends requests and returns what is answered with status 200. One event loop's.

    Makes its connections at need. Nothing is sent twice.
    """

    def __init__(self, settings: Settings) -> None:
        self.origin = settings.origin
        self._settings = settings
        self._timeout = aiohttp.ClientTimeout(
            total=settings.timeout * TOTAL,
            connect=settings.timeout,
            sock_connect=settings.connect_timeout,
            sock_read=settings.timeout,
        )
        self._session: aiohttp.ClientSession | None = None
        self._waiting: aiohttp.ClientSession | None = None
        """A waiting request has a connection for itself, and must not take the others'."""
        key = settings.key
        self._bearer = {
            method: _headers(method, bearer(key.id, key.secret)) for method in ("GET", "POST")
        }
        self._closed = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._place = lru_cache(PATHS)(self._locate)

    async def request(self, operation: Operation, *scope: str, body: bytes = b"") -> bytes:
        """The body of the answer. ``scope`` is tenant, kind and id, as far as it has them.

        Raises what the server refuses with, ``Unavailable``, ``OutcomeUnknown`` where the
        operation writes, ``TooLarge``, ``StoreClosed``.
        """
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"a request of {len(body)} bytes; the limit is {MAX_BODY_BYTES}")
        self.check_open()
        session = self._session
        if session is None:
            session = self._session = self._connect(self._settings.connections)
        method, writes = operation.method, operation.writes
        url, target = self._place(operation, scope)
        self._under_way += 1
        try:
            async with session.request(
                method,
                url,
                # aiohttp wants long bodies in pieces.
                data=BytesIO(body) if len(body) > LONG else body or None,
                headers=self._headers(method, target, body),
                allow_redirects=False,
            ) as response:
                answer = await _read(response)
                if answer is None:
                    raise too_long(MAX_ANSWER_BYTES, self.origin, writes=writes)
                if response.status == 200:
                    return answer
                retry_after = response.headers.get("Retry-After")
                error = refusal(
                    response.status,
                    answer,
                    self.origin,
                    writes=writes,
                    retry_after=retry_after,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as cause:
            raise no_answer(cause, self.origin, writes=writes) from cause
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        raise error

    @asynccontextmanager
    async def listen(
        self, scope: tuple[str, ...], query: str
    ) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket of operation ``wait``. Raises as :meth:`request` does."""
        self.check_open()
        session = self._waiting
        if session is None:
            session = self._waiting = self._connect(0, _accept_websocket)
        path = f"{path_of(Operation.WAIT, *scope)}?{query}"
        url = URL(self.origin + path, encoded=True)
        try:
            async with session.ws_connect(
                url,
                headers=self._headers("GET", path, b""),
                heartbeat=HEARTBEAT,
                max_msg_size=1 << 20,
            ) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            raise NoWebSocket from error  # it says that it is one, and is not
        except (aiohttp.ClientError, TimeoutError, OSError) as cause:
            self.check_open()
            raise no_answer(cause, self.origin, writes=False) from cause

    async def aclose(self) -> None:
        """Wait for the answers to what was sent, end who waits for changes, disconnect.
        Idempotent."""
        self._closed = True
        if self._waiting is not None:
            await self._waiting.close()
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()
        if self._session is not None:
            await self._session.close()

    def check_open(self) -> None:
        """Raises ``StoreClosed`` after :meth:`aclose`."""
        if self._closed:
            raise StoreClosed("this durable-objects backend was closed")

    def _connect(
        self, connections: int, *middlewares: aiohttp.ClientMiddlewareType
    ) -> aiohttp.ClientSession:
        """Raises ``Unavailable`` if a file of certificates cannot be used."""
        tls: ssl.SSLContext | bool = True
        if self._settings.tls is not None:
            try:
                tls = self._settings.tls.context()
            except OSError as error:
                raise Unavailable(
                    f"{self.origin}: a file for TLS cannot be used: {error}", lasting=True
                ) from error
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, keepalive_timeout=KEEP_ALIVE, ssl=tls
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,  # nothing was asked to be compressed
            middlewares=middlewares,
        )

    def _locate(self, operation: Operation, scope: tuple[str, ...]) -> tuple[URL, str]:
        """The whole address, and the part of it that is signed."""
        path = path_of(operation, *scope)
        return URL(self.origin + path, encoded=True), path

    def _headers(self, method: str, target: str, body: bytes) -> CIMultiDict[str]:
        """Of one request. Those of a bearer are made once: making them costs aiohttp as much as
        a quarter of the request."""
        key = self._settings.key
        if key.mode is Mode.BEARER:
            return self._bearer[method]
        now = time.time_ns() // 1_000_000
        return _headers(method, sign(key.id, key.secret, method, target, now, body))


async def _accept_websocket(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Take nothing but a WebSocket: aiohttp would follow a redirect."""
    response = await handler(request)
    if response.status != 101:
        response.close()
        raise NoWebSocket
    return response


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body; ``None`` if it is too long."""
    length = response.content_length
    if length is None:
        found = bytearray()
        async for piece in response.content.iter_any():
            found += piece
            if len(found) > MAX_ANSWER_BYTES:
                return None
        return bytes(found)
    return await response.read() if length <= MAX_ANSWER_BYTES else None


def _headers(method: str, authorization: str) -> CIMultiDict[str]:
    headers = CIMultiDict(_HEADERS, Authorization=authorization)
    if method == "POST":
        headers["Content-Type"] = CONTENT_TYPE
    return headers
