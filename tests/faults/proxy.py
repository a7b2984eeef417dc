"""A TCP proxy between a client and a server, which breaks one exchange at an exact byte.

It knows no protocol. What the client sends between two stretches of the server's bytes, on one
connection, is one *request*; what the server sends up to the next request is its *reply*.
(But it does know base64, in which DynamoDB and paths of the HTTP protocol carry bytes.)
"""

import asyncio
import re
import socket
import struct
from base64 import b64encode
from enum import Enum
from typing import NamedTuple, Self

_ADDRESS = re.compile(r"([\w.-]+):(\d+)(?=[/?&]|$)")


def address_of(url: str) -> tuple[str, int]:
    """Host and port of the server that a URL names, be it in an option."""
    found = _ADDRESS.search(url)
    assert found is not None
    return found[1], int(found[2])


class Then(Enum):
    """What happens at the chosen byte."""

    CLOSE = "close"
    """Both connections are closed in good order."""
    RESET = "reset"
    """The client's connection is reset, the server's closed in good order."""
    STALL = "stall"
    """Nothing passes any more, in either direction, but all stays connected."""
    PAUSE = "pause"
    """Nothing passes for ``Fault.pause`` seconds, then everything does: also what a client
    sent that has closed its connection meanwhile, as if it had been long on the way."""


class Part(Enum):
    """What the bytes are counted in."""

    REQUEST = "request"
    REPLY = "reply"


class Fault(NamedTuple):
    """One thing that goes wrong."""

    part: Part
    passing: int
    """So many bytes of it pass. What is shorter passes whole, and nothing goes wrong."""
    then: Then
    containing: bytes = b""
    """Only requests count whose first bytes, as they arrive, contain these, be it in base64."""
    nth: int = 1
    """Which of the requests that count, from now on; 1 is the next."""
    pause: float = 0.0


class Exchange:
    """A request and its reply, in bytes."""

    __slots__ = ("reply", "request")

    def __init__(self) -> None:
        self.request = 0
        self.reply = 0


class Proxy:
    """Forwards loopback connections to one server and counts what passes.

    A context manager; made by :meth:`start`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.target = address_of(url)
        """Host and port of the server."""
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._transports: set[asyncio.BaseTransport] = set()
        self._idle = asyncio.Event()
        self._fault: Fault | None = None
        self._left = 0
        self.fired = 0
        """How many faults have happened."""
        self.exchanges: list[Exchange] = []
        """All there were, over all connections. A test may clear it."""

    @classmethod
    async def start(cls, url: str) -> Self:
        """A proxy to the server of a URL, on a free loopback port."""
        proxy = cls(url)
        loop = asyncio.get_running_loop()
        proxy._server = await loop.create_server(lambda: _Client(proxy), "127.0.0.1", 0)
        return proxy

    @property
    def url(self) -> str:
        """The server's URL, with the proxy in its place."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return _ADDRESS.sub(f"{host}:{port}", self._url, count=1)

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    def arm(self, fault: Fault) -> None:
        """Let this go wrong, once. Replaces what was armed before and has not happened."""
        self._fault = fault
        self._left = fault.nth

    def disarm(self) -> None:
        """Let nothing go wrong from now on."""
        self._fault = None

    def cut(self) -> None:
        """Reset all connections now."""
        for connection in list(self._connections):
            connection.end(reset=True)

    async def aclose(self) -> None:
        """Listen no more, and end all connections."""
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._transports:
            await self._idle.wait()
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _faulty(self, request: bytes) -> Fault | None:
        """The fault of the request that begins with these bytes."""
        if self._fault is None or not any(
            form in request for form in _forms(self._fault.containing)
        ):
            return None
        self._left -= 1
        if self._left:
            return None
        fault, self._fault = self._fault, None
        return fault


def _forms(data: bytes) -> list[bytes]:
    """What tells that bytes are in others, be these in base64."""
    forms = [data]
    for before in range(3):  # how they lie in the groups of three bytes
        encoded = b64encode(bytes(before) + data)
        first, last = (0, 2, 3)[before], (before + len(data)) * 4 // 3
        forms.append(encoded[first:last])
    return forms


class _Connection:
    """A client's connection and the one to the server that goes with it."""

    def __init__(self, proxy: Proxy, client: asyncio.Transport) -> None:
        self._proxy = proxy
        self._client = client
        self._server: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._replying = False
        self._fault: Fault | None = None
        self._holds = True  # until the server is connected
        self._held: list[tuple[Part, bytes]] = []
        self._release: asyncio.TimerHandle | None = None
        self._connecting = asyncio.create_task(self._connect())
        proxy._connections.add(self)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        host, port = self._proxy.target
        try:
            self._server, _ = await loop.create_connection(
                lambda: _Server(self._proxy, self), host, port
            )
        except OSError:
            self.end(reset=True)
            return
        if self in self._proxy._connections:
            self._go_on()
        else:
            self._server.close()

    def received(self, part: Part, data: bytes) -> None:
        """Bytes have come from the client or from the server."""
        if part is Part.REPLY:
            self._replying = True
        elif self._replying or self._exchange is None:
            self._replying = False
            self._exchange = Exchange()
            self._proxy.exchanges.append(self._exchange)
            self._fault = self._proxy._faulty(data)
        self._hold_or_pass(part, data)

    def _hold_or_pass(self, part: Part, data: bytes) -> None:
        if self._holds:
            self._held.append((part, data))
        elif self in self._proxy._connections:
            self._pass_on(part, data)

    def _pass_on(self, part: Part, data: bytes) -> None:
        if self._exchange is None:  # a server that speaks first
            self._exchange = Exchange()
            self._proxy.exchanges.append(self._exchange)
        passed = self._exchange.request if part is Part.REQUEST else self._exchange.reply
        fault = self._fault
        if fault is None or fault.part is not part or passed + len(data) < fault.passing:
            self._write(part, data)
            return
        split = fault.passing - passed
        self._write(part, data[:split])
        self._fault = None
        self._proxy.fired += 1
        if fault.then in (Then.CLOSE, Then.RESET):
            self.end(reset=fault.then is Then.RESET)
            return
        self._holds = True
        self._held.append((part, data[split:]))
        if fault.then is Then.PAUSE:
            loop = asyncio.get_running_loop()
            self._release = loop.call_later(fault.pause, self._go_on)

    def _go_on(self) -> None:
        self._release = None
        self._holds = False
        held, self._held = self._held, []
        for part, data in held:
            self._hold_or_pass(part, data)
        if self._client.is_closing():
            self.end(reset=False)

    def client_lost(self) -> None:
        """The client has closed its connection."""
        if self._release is None:
            self.end(reset=False)

    def _write(self, part: Part, data: bytes) -> None:
        assert self._exchange is not None
        assert self._server is not None
        if part is Part.REQUEST:
            self._exchange.request += len(data)
            self._server.write(data)
        elif not self._client.is_closing():
            self._exchange.reply += len(data)
            self._client.write(data)

    def end(self, *, reset: bool) -> None:
        """Close both sides."""
        if self not in self._proxy._connections:
            return
        self._proxy._connections.remove(self)
        if self._release is not None:
            self._release.cancel()
        if reset and not self._client.is_closing():
            # A socket closed with unsent data to be discarded sends RST: socket(7), SO_LINGER.
            client: socket.socket = self._client.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._client.abort()
        else:
            self._client.close()
        if self._server is not None:
            self._server.close()


class _Side(asyncio.Protocol):
    """What a client's and a server's side have in common."""

    connection: _Connection

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.proxy._transports.add(transport)
        self.proxy._idle.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self.proxy._transports.discard(self._transport)
        if not self.proxy._transports:
            self.proxy._idle.set()


class _Client(_Side):
    """The client's side of a new connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self.connection = _Connection(self.proxy, transport)

    def data_received(self, data: bytes) -> None:
        self.connection.received(Part.REQUEST, data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connection.client_lost()


class _Server(_Side):
    """The server's side of a connection."""

    def __init__(self, proxy: Proxy, connection: _Connection) -> None:
        super().__init__(proxy)
        self.connection = connection

    def data_received(self, data: bytes) -> None:
        self.connection.received(Part.REPLY, data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connection.end(reset=False)
