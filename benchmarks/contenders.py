"""Who does the work: bare sqlite3 with msgspec, and perdure on each of its backends.

The bare contender is the floor. It keeps one row per turn and does nothing else: no versions,
no conditions, no exactly-once, no deletion, no second process. What it shares with perdure is
the durability (WAL, ``synchronous=FULL``), the encoding, and that it is awaited.
"""

import asyncio
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import perdure

from benchmarks.workload import Turn

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

ITEMS_PER_TURN = 4


class Contender(ABC):
    """One way to keep sessions. Session ids are any strings."""

    name: str
    """The column of the table."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, with full durability."""

    @abstractmethod
    async def close(self) -> None:
        """Release the files."""

    @abstractmethod
    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        """Append all turns, each as one commit, as fast as may be. Called before ``open``."""

    @abstractmethod
    async def append(self, session: str, turn: Turn) -> None:
        """Append one turn."""

    @abstractmethod
    async def load(self, session: str) -> object:
        """Everything, decoded, by one who has seen nothing of the session."""

    @abstractmethod
    async def load_last(self, session: str, turns: int) -> object:
        """The last turns, decoded, by one who has seen nothing of the session."""


class BareSqlite(Contender):
    """The floor: one connection, one INSERT per turn, in a thread.

    Its statements run in threads, by ``asyncio.to_thread``; the lock is because two must not
    use a connection at once.
    """

    name = "bare"

    def __init__(self, path: Path) -> None:
        self._path = path
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
                self.insert(session, _encode(turn))
        self._db.close()

    async def append(self, session: str, turn: Turn) -> None:
        await asyncio.to_thread(self.insert, session, _encode(turn))

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
        return _decode_all(rows)

    def _load_last(self, session: str, turns: int) -> list[Turn]:
        rows = self._db.execute(
            "SELECT body FROM turns WHERE session = ? ORDER BY turn DESC LIMIT ?",
            (session, turns),
        ).fetchall()
        return _decode_all(rows[::-1])

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


def _decode_all(rows: Sequence[tuple[bytes]]) -> list[Turn]:
    """Bodies decoded by one call, as one array of them all."""
    header = b"\xdd" + len(rows).to_bytes(4, "big")
    return _decode(header + b"".join([body for (body,) in rows]))


class Perdure(Contender):
    """A store, through its public methods."""

    def __init__(self, name: str, url: str, *, fill_url: str | None = None) -> None:
        """``fill_url``: the same data, opened with less durability. Without one, what was
        filled is kept open."""
        self.name = name
        self.store = perdure.Store(url)
        self._fill_url = fill_url
        self._sessions: dict[str, perdure.Session] = {}

    async def open(self) -> None:
        await self.store.__aenter__()

    async def close(self) -> None:
        await self.store.aclose()

    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        store = self.store if self._fill_url is None else perdure.Store(self._fill_url)
        await asyncio.gather(
            *[_append_all(store.session(id), turns) for id, turns in sessions.items()]
        )
        if store is not self.store:
            await store.aclose()

    async def append(self, session: str, turn: Turn) -> None:
        await self.session(session).append(*turn)

    async def load(self, session: str) -> perdure.Entries:
        return await self.store.session(session).entries()

    async def load_last(self, session: str, turns: int) -> perdure.Entries:
        return await self.store.session(session).entries(last=turns * ITEMS_PER_TURN)

    async def turn(self, session: str, turn: Turn) -> None:
        """A whole turn: read what is new, work, commit on that condition."""
        async with self.session(session).turn() as turning:
            turning.append(*turn)

    async def warm(self, session: str) -> None:
        """Let the handle that ``append`` and ``turn`` use read its session."""
        await self.session(session).entries()

    def session(self, id: str) -> perdure.Session:
        """The handle kept for ``append`` and ``turn``."""
        handle = self._sessions.get(id)
        if handle is None:
            handle = self._sessions[id] = self.store.session(id)
        return handle


async def _append_all(session: perdure.Session, turns: Sequence[Turn]) -> None:
    for turn in turns:
        await session.append(*turn)


def bare(directory: Path) -> BareSqlite:
    """The floor, on a file in ``directory``."""
    return BareSqlite(directory / "bare.db")


def sqlite(directory: Path) -> Perdure:
    """perdure on SQLite, on a file in ``directory``."""
    url = f"sqlite:///{directory.absolute()}/perdure.db"
    return Perdure("sqlite", url, fill_url=f"{url}?synchronous=normal")


def memory() -> Perdure:
    """perdure on its memory backend."""
    return Perdure("memory", "memory://")
