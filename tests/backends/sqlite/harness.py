"""A file for the kit, and a look past the backend."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from perdure.backend import Backend
from perdure.testing import Harness, Process, TestClock
from perdure.types import SessionKey

from perdure_sqlite.backend import SqliteBackend

ITEMS = """
    SELECT items.key, items.value FROM items JOIN sessions USING (sid)
    WHERE tenant = ? AND kind = ? AND id = ?
"""
ORPHANS = """
    SELECT sid || ':' || hex(key), value FROM items
    WHERE sid > 0 AND sid NOT IN (SELECT sid FROM sessions)
"""
PARTS = """
    SELECT sid || ':' || hex(key), value FROM items JOIN stages ON sid = -stage
    WHERE tenant = ? AND kind = ? AND id = ?
"""


class SqliteHarness(Harness):
    def __init__(self, path: Path, clock: TestClock | None) -> None:
        self.path = path
        self.clock = clock
        self.process = Process("perdure_sqlite.backend:SqliteBackend", str(path))

    async def open(self) -> Backend:
        if self.clock is None:
            return SqliteBackend(self.path)
        return SqliteBackend(self.path, clock=self.clock)

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes]:
        return await asyncio.to_thread(self.look, key)

    def look(self, key: SessionKey) -> dict[bytes, bytes]:
        name = (key.tenant, key.kind, key.id)
        with closing(sqlite3.connect(self.path)) as db:
            items: list[tuple[bytes, bytes]] = db.execute(ITEMS, name).fetchall()
            # Items of sessions that are gone have no name any more: each test has its own file.
            rest: list[tuple[str, bytes]] = db.execute(ORPHANS).fetchall()
            rest += db.execute(PARTS, name).fetchall()
        return dict(items) | {name.encode(): value for name, value in rest}
