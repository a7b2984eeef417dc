"""What may stand between a client and its server: it counts, and does as a test says."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """Passes requests on to a server, unless ``handler`` says otherwise."""

    def __init__(self, url: str) -> None:
        """``url`` is the server's, with its key."""
        self._behind = URL(url)
        self._session: aiohttp.ClientSession | None = None
        self._transports: set[object] = set()
        self.handler: Handler = self.pass_on
        self.requests: list[str] = []
        """The last part of each request's path."""
        self.port = 0

    @property
    def connections(self) -> int:
        """How many a client has opened."""
        return len(self._transports)

    @property
    def url(self) -> str:
        """For a client of the server behind it."""
        return str(self._behind.with_port(self.port))

    async def pass_on(self, request: web.Request, body: bytes | None = None) -> web.Response:
        """What the server answers."""
        assert self._session is not None
        target = self._behind.origin().join(URL(request.raw_path, encoded=True))
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in ("Authorization", "Content-Type")
        }
        data = await request.read() if body is None else body
        async with self._session.request(
            request.method, target, data=data or None, headers=headers
        ) as answer:
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers={"Content-Type": answer.headers.get("Content-Type", "")},
            )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path.rpartition("/")[2])
        self._transports.add(request.transport)
        return await self.handler(request)

    @classmethod
    @asynccontextmanager
    async def before(
        cls, url: str, tls: ssl.SSLContext | None = None
    ) -> AsyncGenerator["Front"]:
        """One on a free port."""
        front = cls(url)
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", front._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        try:
            async with aiohttp.ClientSession() as front._session:
                site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
                await site.start()
                front.port = runner.addresses[0][1]
                yield front
        finally:
            await runner.cleanup()


async def drop(request: web.Request) -> web.StreamResponse:
    """Close the connection in place of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
