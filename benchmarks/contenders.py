"""Who does the work: perdure on each of its backends, and bare drivers with msgspec.

A bare contender is a floor. It keeps one value per turn and does nothing else: no versions,
no conditions, no exactly-once, no deletion, no index of sessions. What it shares with perdure
is the server or the durability of the file, the encoding, and that it is awaited.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import perdure

from benchmarks.workload import Turn

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

ITEMS_PER_TURN = 4


def decode_all(bodies: Sequence[bytes]) -> list[Turn]:
    """Turns decoded by one call, as one array of them all."""
    header = b"\xdd" + len(bodies).to_bytes(4, "big")
    return _decode(header + b"".join(bodies))


class Contender(ABC):
    """One way to keep sessions. Session ids are any strings."""

    name: str
    """The column of the table."""
    beside: bool = False
    """It runs elsewhere, and is shown for comparison: nothing is judged by it."""

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        """Append all turns, as fast as may be. Called before ``open``."""

    @abstractmethod
    async def append(self, session: str, turn: Turn) -> None:
        """Append one turn."""

    @abstractmethod
    async def load(self, session: str) -> object:
        """Everything, decoded, by one who has seen nothing of the session."""

    @abstractmethod
    async def load_last(self, session: str, turns: int) -> object:
        """The last turns, decoded, by one who has seen nothing of the session."""


class Perdure(Contender):
    """A store, through its public methods."""

    def __init__(
        self, name: str, url: str, *, fill_url: str | None = None, beside: bool = False
    ) -> None:
        """``fill_url``: the same data, opened with less durability. Without one, what was
        filled is kept open. ``beside``: see :class:`Contender`."""
        self.name = name
        self.beside = beside
        self.url = url
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

    async def change(self, session: str, cells: Mapping[str, object]) -> None:
        """Set several cells in one commit."""
        await self.session(session).cells.update(cells)

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


def sqlite(directory: Path) -> Perdure:
    """perdure on SQLite, on a file in ``directory``."""
    url = f"sqlite:///{directory.absolute()}/perdure.db"
    return Perdure("sqlite", url, fill_url=f"{url}?synchronous=normal")


def memory() -> Perdure:
    """perdure on its memory backend."""
    return Perdure("memory", "memory://")
