"""Backends that answer later, and tasks that wait for them."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from perdure import Store
from perdure.backend import Backend
from perdure.types import Commit, Committed, SessionKey

from tests.core.wrappers import Recorder


class Remote(Recorder):
    """Answers no commit at once, not even if it is only a dict."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        await asyncio.sleep(0)
        return await super().commit(key, commit)


class Held(Recorder):
    """Commits wait, before they are made, until they are let go."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.gate = asyncio.Event()
        self.held = 0
        self.cancelled = 0

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.held += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().commit(key, commit)


def begun(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that have been started, in this order."""
    return [asyncio.create_task(each) for each in work]


async def turns(count: int = 10) -> None:
    """Let the other tasks run until they wait for something."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcomes(work: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


def written(store: Store) -> bool:
    """Whether nothing is kept about appends any more."""
    return not store._client.lanes
