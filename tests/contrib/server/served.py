"""Servers under test: ``perdure serve`` as a process of its own, and the application in a
thread, on any backend that a test makes."""

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import uvicorn

from perdure.backend import Backend
from perdure.plugins import open_backend
from perdure.protocol.auth import Keys
from perdure.testing import Harness, Process
from perdure.types import SessionKey

from perdure_server.app import Application
from perdure_server.serving import configuration, listen
from tests.services.server import Server, free_port

SECRET = secrets.token_hex(16)
KEYS: list[dict[str, Any]] = [
    {"id": "app", "secret": SECRET},
    {"id": "signer", "secret": SECRET, "mode": "hmac"},
    {"id": "plums", "secret": SECRET, "tenants": ["plums", "figs"]},
]


class PerdureServe(Server):
    """``perdure serve`` as a process."""

    def __init__(self, directory: Path, port: int, url: str, *options: str) -> None:
        super().__init__(directory, port)
        self.store_url = url
        self.options = options

    @classmethod
    def start(cls, directory: Path, url: str, *options: str) -> Self:
        directory.mkdir(parents=True, exist_ok=True)
        server = cls(directory, free_port(), url, *options)
        server.restart()
        return server

    @property
    def url(self) -> str:
        return url_of(self.port)

    def wait(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        assert self._process is not None
        code = self._process.wait(60)
        self._ended(None)
        return code

    def _command(self) -> list[str]:
        words = ["serve", "--url", self.store_url, "--port", str(self.port), *self.options]
        return [sys.executable, "-m", "perdure_cli", *words]

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, sys.path))
        return {"PERDURE_KEYS": json.dumps(KEYS), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}

    def _ready(self, said: str) -> bool:
        return "serving on http" in said


class Thread:
    """The application on uvicorn, in a thread and an event loop of its own."""

    def __init__(
        self,
        make: Callable[[], Awaitable[Backend]],
        keys: Keys | None = None,
        **limits: int,
    ) -> None:
        self._make = make
        self._keys = Keys.parse(json.dumps(KEYS)) if keys is None else keys
        self._limits = limits
        self._socket = listen("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def url(self) -> str:
        return url_of(self.port)

    def start(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _run(self) -> None:
        self.application = Application(await self._make(), self._keys, **self._limits)
        self.server = _Announcing(self.application, self._started)
        await self.server.serve([self._socket])


class _Announcing(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, application: Application, started: threading.Event) -> None:
        super().__init__(configuration(application, None))
        self._event = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._event.set()


class ServedHarness(Harness):
    """Clients of a server, whose backend is that of another harness."""

    def __init__(self, inner: Harness) -> None:
        self.inner = inner
        self.clock = inner.clock
        self.thread = Thread(inner.open).start()
        self.process = Process("perdure.plugins:open_backend", self.thread.url)

    async def open(self) -> Backend:
        backend = open_backend(self.thread.url)
        await backend.open()
        return backend

    async def advance(self, ms: int) -> None:
        await self.inner.advance(ms)

    @property
    def patience(self) -> int:
        return self.inner.patience

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes] | None:
        return await self.inner.raw_items(key)

    def close(self) -> None:
        self.thread.stop()


def url_of(port: int, key: str = "app", **options: str) -> str:
    """What a client connects to."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"http://{key}:{SECRET}@127.0.0.1:{port}{'?' if query else ''}{query}"
