"""Noting what every commit has made, whoever waits for it."""

import asyncio
from abc import abstractmethod

from perdure.backend import Backend
from perdure.testing.faults import Forwarding
from perdure.types import Commit, Committed, SessionKey


class Noting(Forwarding):
    """Makes each commit in a task of its own: none is missed because its writer has left."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._notes: set[asyncio.Task[Committed]] = set()

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        note = asyncio.create_task(self.noted(key, commit))
        self._notes.add(note)
        return await asyncio.shield(note)

    async def settled(self) -> None:
        """Wait for the commits whose writers have gone."""
        await asyncio.gather(*self._notes, return_exceptions=True)
        self._notes.clear()

    @abstractmethod
    async def noted(self, key: SessionKey, commit: Commit) -> Committed:
        """Have the backend make it (:meth:`made`), and note what it has made."""

    async def made(self, key: SessionKey, commit: Commit) -> Committed:
        """What the backend behind makes of it."""
        return await super().commit(key, commit)
