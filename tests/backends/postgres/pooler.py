"""A pooler in transaction mode, as PgBouncer is one: for each transaction another session.

It speaks the protocol of https://www.postgresql.org/docs/current/protocol-message-formats.html
between clients and a real server that trusts it. A client has a session of the server from its
first message until the server says that no transaction is open; then another client may have
it. Sessions go round, so that whatever one keeps (prepared statements, settings, LISTEN, …) is
soon somebody else's.
"""

import asyncio
import ssl
import struct
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress

import msgspec

from perdure.uri import URL, parse

_LENGTH = struct.Struct("!i")
_CODE = struct.Struct("!i")
_PROTOCOL = 196608  # 3.0
_CANCEL = 80877102
_TLS = 80877103
_GSSAPI = 80877104

Parameters = dict[str, str]


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message, as it goes over the wire."""
    return kind + _LENGTH.pack(len(body) + 4) + body


def error(sqlstate: str, text: str) -> bytes:
    """An ``ErrorResponse`` that ends a connection, with the fields that PgBouncer sends."""
    fields = f"SFATAL\0C{sqlstate}\0M{text}\0\0"
    return message(b"E", fields.encode())


def parameters(body: bytes) -> Parameters:
    """Of a ``StartupMessage``: names and values."""
    words = body.decode().split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


async def receive(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Kind and body of the next message. Raises ``EOFError``."""
    header = await reader.readexactly(5)
    (length,) = _LENGTH.unpack(header[1:])
    return header[:1], await reader.readexactly(length - 4)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection and wait until it is."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class Session:
    """A session of the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.reports: Parameters = {}

    async def start(self, wanted: Parameters) -> None:
        """Say who we are and wait until the server is ready. It must ask for no password."""
        words = [word for name in ("user", "database") for word in (name, wanted[name])]
        body = _CODE.pack(_PROTOCOL) + "\0".join([*words, "", ""]).encode()
        self.writer.write(_LENGTH.pack(len(body) + 4) + body)
        while True:
            kind, body = await receive(self.reader)
            if kind == b"S":
                self.reports.update(parameters(body))
            elif kind == b"E":
                raise ConnectionError(body.decode(errors="replace"))
            elif kind == b"Z":
                return


class Pooler:
    """Listens on a loopback port.

    ``reports`` replaces what the server says of itself. With ``tls`` it speaks TLS to clients
    that ask for it, which the server of the tests cannot.
    """

    def __init__(
        self, server: URL, size: int, reports: Parameters, tls: ssl.SSLContext | None
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self._server = server
        self._tls = tls
        self._size = size
        self._reports = reports
        self._idle: deque[Session] = deque()
        self._opened = 0
        self._free = asyncio.Semaphore(size)
        self._clients: set[asyncio.Task[None]] = set()
        self.transactions = 0
        """How many it has passed on."""
        self.port = 0

    def redirect(self, port: int) -> None:
        """Pass transactions on to another server from now on. Clients stay connected."""

        async def change() -> None:
            self._server = msgspec.structs.replace(self._server, port=port)
            while self._idle:
                self._opened -= 1
                await hang_up(self._idle.popleft().writer)

        asyncio.run_coroutine_threadsafe(change(), self.loop).result(10)

    async def run(self, started: threading.Event, stop: asyncio.Event) -> None:
        """Serve until ``stop``."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for session in self._idle:
            await hang_up(session.writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(EOFError, ConnectionError):
                wanted = await self._greet(reader, writer)
                while wanted is not None:
                    await self._transaction(reader, writer, wanted)
        finally:
            await hang_up(writer)

    async def _greet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Parameters | None:
        """What the client wants, if it may have it."""
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            (code,) = _CODE.unpack(body[:4])
            if code == _TLS and self._tls is not None:
                writer.write(b"S")
                await writer.start_tls(self._tls)
            elif code in (_TLS, _GSSAPI):
                writer.write(b"N")
            else:
                break
        if code == _CANCEL:
            return None
        wanted = parameters(body[4:])
        if "options" in wanted:  # as PgBouncer does by default
            writer.write(error("08P01", "unsupported startup parameter: options"))
            return None
        session = await self._take(wanted)
        reports = session.reports | self._reports
        self._give_back(session)
        writer.write(message(b"R", _CODE.pack(0)))
        for name, value in reports.items():
            writer.write(message(b"S", f"{name}\0{value}\0".encode()))
        writer.write(message(b"K", bytes(8)) + message(b"Z", b"I"))
        return wanted

    async def _transaction(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wanted: Parameters
    ) -> None:
        """Pass one on, both ways."""
        kind, body = await receive(reader)
        if kind == b"X":
            raise EOFError
        session = await self._take(wanted)
        self.transactions += 1
        idle = False
        try:
            while not idle:
                answer = asyncio.create_task(self._answer(session, writer))
                try:
                    while True:
                        session.writer.write(message(kind, body))
                        if kind in (b"S", b"Q"):  # Sync, Query: an answer to each
                            break
                        kind, body = await receive(reader)
                    idle = await answer
                finally:
                    answer.cancel()
                if not idle:
                    kind, body = await receive(reader)
        finally:
            if idle:
                self._give_back(session)
            else:  # one of them is gone in the middle of it
                self._opened -= 1
                self._free.release()
                await hang_up(session.writer)

    async def _answer(self, session: Session, writer: asyncio.StreamWriter) -> bool:
        """Pass on what the server says until it is ready; whether no transaction is open."""
        while True:
            try:
                kind, body = await receive(session.reader)
            except (EOFError, ConnectionError):
                writer.write(error("08P01", "server conn crashed?"))
                raise
            writer.write(message(kind, body))
            if kind == b"Z":
                return body == b"I"

    async def _take(self, wanted: Parameters) -> Session:
        """The session that has been idle longest, once all have been opened."""
        await self._free.acquire()
        while self._opened == self._size:
            session = self._idle.popleft()
            if not session.reader.at_eof():
                return session
            self._opened -= 1
            await hang_up(session.writer)
        self._opened += 1
        host, port = self._server.host or "127.0.0.1", self._server.port or 5432
        try:
            session = Session(*await asyncio.open_connection(host, port))
            await session.start(wanted)
        except BaseException:
            self._opened -= 1
            self._free.release()
            raise
        return session

    def _give_back(self, session: Session) -> None:
        self._idle.append(session)
        self._free.release()


def moved(url: str, port: int) -> str:
    """``url`` for another port of this host."""
    there = msgspec.structs.replace(parse(url), host="127.0.0.1", port=port)
    return there.render(hide_secrets=False)


@contextmanager
def pooling(
    url: str,
    *,
    size: int = 3,
    reports: Parameters | None = None,
    tls: ssl.SSLContext | None = None,
) -> Generator[tuple[str, Pooler]]:
    """A pooler in front of the server at ``url``, in a thread of its own, and its own URL."""
    pooler = Pooler(parse(url), size, reports or {}, tls)
    loop = pooler.loop
    stop = asyncio.Event()
    started = threading.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(pooler.run(started, stop),))
    thread.start()
    try:
        assert started.wait(10)
        yield moved(url, pooler.port), pooler
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
