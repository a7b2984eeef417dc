"""Running the application on uvicorn, in one process and one event loop."""

import os
import signal
import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from perdure import Store
from perdure.protocol.auth import Keys

from perdure_server.app import Application
from perdure_server.connection import Connection

OPENING = 5.0
"""Seconds in which the store must be reached. Whoever starts the server may start it again."""

KEEP_ALIVE = 75
"""Seconds without a request until a connection is closed: longer than clients keep theirs, so
that no request meets a connection that is just being closed."""

GRACE = 30
"""Seconds that requests under way have to finish once the server is told to stop."""


class CannotServe(Exception):
    """The server cannot start. ``str`` is one line for people."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or a name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. Raises :class:`CannotServe`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named, and with it half
    # of all answers would wait 40 ms for an acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # else no restart while old connections linger
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise CannotServe(f"cannot listen on {host}, port {port}: {reason}") from None
    return listening


def tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate chain. Raises :class:`CannotServe`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Asked for the password of a key, OpenSSL gets an empty one and fails.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CannotServe(f"the certificate or its key cannot be used: {error}") from None
    return context


class _Server(uvicorn.Server):
    """uvicorn, told to stop by SIGINT or SIGTERM, and stopping well counts as success."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        # uvicorn's own raises the signals again afterwards, which ends the process by them.
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def configuration(application: Application, context: ssl.SSLContext | None) -> uvicorn.Config:
    """How uvicorn is to run it."""

    def context_factory(
        config: uvicorn.Config, usual: Callable[[], ssl.SSLContext]
    ) -> ssl.SSLContext:
        del config, usual
        assert context is not None
        return context

    return uvicorn.Config(
        application,
        http=Connection,
        ws="websockets-sansio",
        ws_max_size=4096,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        log_level="warning",  # below that it logs paths, which hold ids
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ssl_context_factory=None if context is None else context_factory,
    )


async def serve(
    url: str | None,
    keys: Keys,
    listening: socket.socket,
    context: ssl.SSLContext | None,
    on_start: Callable[[], None],
) -> None:
    """Serve the store at ``url`` until told to stop; then finish what is under way.

    Calls ``on_start`` once requests are answered. Raises ``PerdureError`` if the store cannot
    be opened.
    """
    async with Store(url, deadline=OPENING) as store:
        config = configuration(Application(store.backend, keys), context)
        await _Server(config, on_start).serve([listening])
