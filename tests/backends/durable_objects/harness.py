"""The Worker for the kit: its clock is moved, its files are read past it."""

import asyncio
import hashlib
import hmac
import shutil
import sqlite3
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from perdure.backend import Backend
from perdure.plugins import open_backend
from perdure.protocol.paths import encode_part
from perdure.testing import Harness, Process
from perdure.types import SessionKey

from tests.services.worker import Worker

HAS_ITEMS = "SELECT 1 FROM sqlite_master WHERE name = 'items'"
PARTS = "SELECT CAST(hex(incarnation || stage) || ' ' || hex(key) AS BLOB), value FROM parts"

TESTING = Path(__file__).parent / "worker" / "testing.ts"


class MovedWorker(Worker):
    """The Worker with ways to move its clock and to put its objects out of memory."""

    @classmethod
    def begin(cls, directory: Path) -> Self:
        """Raises ``ServerMissing`` or ``ServerFailed``."""
        directory.mkdir(parents=True, exist_ok=True)
        return cls.serve(directory, TESTING)

    def advance(self, ms: int) -> None:
        """Move the clock of all objects on, and have them do what is due by then."""
        self._control(f"advance?ms={ms}")

    def evict(self, key: SessionKey) -> None:
        """Put a session's object out of memory."""
        self._control(f"evict/{name_of(key)}")

    def _control(self, action: str) -> None:
        url = f"http://127.0.0.1:{self.port}/test/{action}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as response:
            response.read()

    def file(self, key: SessionKey) -> Path:
        """Where a session's object keeps its data."""
        return (
            self.directory / "disk" / "Session" / f"{object_id('Session', name_of(key))}.sqlite"
        )

    def items(self, key: SessionKey) -> dict[bytes, bytes]:
        """A session's items, and its staged parts under names of their own."""
        file = self.file(key)
        found: dict[bytes, bytes] = {}
        if not file.exists():
            return found
        # A copy is read, so that no lock of ours is in workerd's way.
        with TemporaryDirectory() as directory:
            for each in (file, file.with_name(file.name + "-wal")):
                if each.exists():
                    shutil.copyfile(each, Path(directory) / each.name)
            with closing(sqlite3.connect(Path(directory) / file.name)) as database:
                if database.execute(HAS_ITEMS).fetchone():
                    found.update(database.execute("SELECT key, value FROM items"))
                    found.update(database.execute(PARTS))
        return found


def name_of(key: SessionKey) -> str:
    """What a session's object is called."""
    return "/".join(map(encode_part, (key.tenant, key.kind, key.id)))


def object_id(namespace: str, name: str) -> str:
    """The id of the object of that name, as workerd's actor-id-impl.c++ derives it."""
    secret = hashlib.sha256(namespace.encode()).digest()
    base = hmac.digest(secret, name.encode(), "sha256")[:16]
    return (base + hmac.digest(secret, base, "sha256")[:16]).hex()


class WorkerHarness(Harness):
    """Shares one Worker with other tests."""

    def __init__(self, server: MovedWorker) -> None:
        self.server = server
        self.process = Process("perdure.plugins:open_backend", server.url)

    async def open(self) -> Backend:
        backend = open_backend(self.server.url)
        await backend.open()
        return backend

    async def advance(self, ms: int) -> None:
        await asyncio.to_thread(self.server.advance, ms)

    @property
    def patience(self) -> int:
        return sys.maxsize

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes]:
        return await asyncio.to_thread(self.server.items, key)
