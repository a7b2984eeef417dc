"""The floor of SQLite: sqlite3 and msgspec."""

import asyncio
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.contenders import Contender, decode_all, encode
from benchmarks.workload import Turn


class BareSqlite(Contender):
    """One connection, one INSERT per turn, WAL and ``synchronous=FULL``.

    Its statements run in threads, by ``asyncio.to_thread``; the lock is because two must not
    use a connection at once.
    """

    name = "bare"

    def __init__(self, directory: Path) -> None:
        self._path = directory / "bare.db"
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:")

    async def open(self) -> None:
        self._db = self._connect("PRAGMA synchronous = FULL")

    async def close(self) -> None:
        self._db.close()

    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        self._db = self._connect("PRAGMA synchronous = OFF")
        for session, turns in sessions.items():
            for turn in turns:
                self.insert(session, encode(turn))
        self._db.close()

    async def append(self, session: str, turn: Turn) -> None:
        await asyncio.to_thread(self.insert, session, encode(turn))

    async def load(self, session: str) -> list[Turn]:
        return await asyncio.to_thread(self._load, session)

    async def load_last(self, session: str, turns: int) -> list[Turn]:
        return await asyncio.to_thread(self._load_last, session, turns)

    def insert(self, session: str, body: bytes) -> None:
        """One INSERT, which is one transaction."""
        with self._lock:
            self._db.execute("INSERT INTO turns (session, body) VALUES (?, ?)", (session, body))

    def _load(self, session: str) -> list[Turn]:
        rows = self._db.execute(
            "SELECT body FROM turns WHERE session = ? ORDER BY turn", (session,)
        ).fetchall()
        return decode_all([body for (body,) in rows])

    def _load_last(self, session: str, turns: int) -> list[Turn]:
        rows = self._db.execute(
            "SELECT body FROM turns WHERE session = ? ORDER BY turn DESC LIMIT ?",
            (session, turns),
        ).fetchall()
        return decode_all([body for (body,) in rows[::-1]])

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(synchronous)
        db.execute(
            "CREATE TABLE IF NOT EXISTS turns "
            "(turn INTEGER PRIMARY KEY, session TEXT NOT NULL, body BLOB NOT NULL)"
        )
        db.execute("CREATE INDEX IF NOT EXISTS turns_by_session ON turns (session)")
        return db
