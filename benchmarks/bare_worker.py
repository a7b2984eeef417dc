"""The floor of Durable Objects: aiohttp, and a Worker that does nothing but store and load."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import aiohttp
import msgspec

from benchmarks.contenders import Contender, encode
from benchmarks.workload import Turn

WORKER = Path(__file__).with_name("bare_worker.js")
OBJECTS = {"TURNS": "Turns"}
"""Its bindings of Durable Objects."""

_decode = msgspec.msgpack.Decoder().decode


class BareWorker(Contender):
    """One POST per turn; one GET for a load. A session is a SQLite-backed object."""

    name = "bare"

    def __init__(self, url: str) -> None:
        """``url``: of a server of ``WORKER``."""
        self._url = url

    async def open(self) -> None:
        self._http = aiohttp.ClientSession()

    async def close(self) -> None:
        await self._http.close()

    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        await self.open()
        await asyncio.gather(
            *[self._append_all(session, turns) for session, turns in sessions.items()]
        )
        await self.close()

    async def append(self, session: str, turn: Turn) -> None:
        await self.append_counted(session, turn)

    async def append_counted(self, session: str, turn: Turn) -> int:
        """Append one turn; how many rows that wrote, as the object says."""
        async with self._http.post(self._address(session), data=encode(turn)) as response:
            response.raise_for_status()
            return int(response.headers["rows-written"])

    async def load(self, session: str) -> list[Turn]:
        return _decode(await self._body(self._address(session)))

    async def load_last(self, session: str, turns: int) -> list[Turn]:
        return _decode(await self._body(f"{self._address(session)}?last={turns}"))

    async def _body(self, url: str) -> bytes:
        async with self._http.get(url) as response:
            response.raise_for_status()
            return await response.read()

    async def _append_all(self, session: str, turns: Sequence[Turn]) -> None:
        for turn in turns:
            await self.append(session, turn)

    def _address(self, session: str) -> str:
        return f"{self._url}/{quote(session, safe='')}"
