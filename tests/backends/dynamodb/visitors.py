"""Clients that die, or are overtaken, between two requests of theirs."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from perdure.errors import Unavailable
from perdure.testing import TestClock
from perdure.testing.shorthand import new_id
from perdure.types import Commit, Committed, SessionKey

from perdure_dynamodb import due, removal, sweep
from perdure_dynamodb.background import Background
from perdure_dynamodb.chain import SETTLING_MS, Chain
from perdure_dynamodb.commit import Writer
from perdure_dynamodb.due import Due
from perdure_dynamodb.reading import Reader
from perdure_dynamodb.requests import Client
from perdure_dynamodb.settings import Settings
from perdure_dynamodb.staging import Stages
from perdure_dynamodb.table import Table

T = TypeVar("T")


class MortalClient(Client):
    """Can be stopped at any write, or something else done just before one; or its pages be
    short."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.writes_left: int | None = None
        """After so many more writes everything fails. ``None``: it lives."""
        self.interludes: dict[str, Callable[[], Awaitable[object]]] = {}
        """What happens, once, just before the next request of a kind."""
        self.page: int | None = None
        """So many rows are a page, as if they were so large that no more are sent at once."""

    async def ask(
        self,
        operation: str,
        request: dict[str, object],
        decoder: msgspec.json.Decoder[T],
        *,
        writes: bool = False,
    ) -> T:
        if self.writes_left is not None:
            if self.writes_left <= 0:
                raise Unavailable("this client is dead")
            self.writes_left -= writes
        if (interlude := self.interludes.pop(operation, None)) is not None:
            await interlude()
        if operation == "Query" and self.page is not None:
            limit = request.get("Limit")
            whole = limit if isinstance(limit, int) else self.page
            request = {**request, "Limit": min(whole, self.page)}
        return await super().ask(operation, request, decoder, writes=writes)


class Visitor:
    """One client of a table."""

    def __init__(self, settings: Settings, clock: TestClock) -> None:
        self._clock = clock
        self.table = Table(settings, clock)
        self.client = self.table.client = MortalClient(settings)
        self.chain = Chain(self.table)
        self._background = Background()
        self._writer = Writer(
            self.chain, Reader(self.chain), Stages(self.chain), self._background
        )

    async def sweep(self) -> int:
        return await sweep.sweep(self.table, self.chain.newest, 1000)

    async def sweep_all(self) -> int:
        total = 0
        while removed := await self.sweep():
            total += removed
        return total

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await self._writer.commit(key, commit)

    async def commit_and_die(self, key: SessionKey, commit: Commit) -> Committed:
        """Change a session that is there; what follows from that is left to others, to whom
        some seconds later the change shows everywhere."""
        await self.chain.newest(key)
        self.client.writes_left = 1
        made = await self._writer.commit(key, commit)
        await self._background.finish()
        self._clock.advance(SETTLING_MS + 1)
        return made

    async def delete_and_die(self, key: SessionKey) -> Due:
        """End a life, and no more: the thing that is due then."""
        before = await self.chain.newest(key)
        assert before is not None
        seal = removal.sealed(before, new_id(), self.table.now())
        await self.table.transact(removal.actions(key, before, seal))
        self.client.writes_left = 0
        return due.life(key, before, seal)

    async def aclose(self) -> None:
        await self.table.aclose()


async def nothing() -> None:
    pass


async def until_done(
    visitor: Visitor, writes: int, look: Callable[[], Awaitable[None]] = nothing
) -> int:
    """Sweep with clients who die after so many writes each; how many it takes."""
    for clients in range(1, 200):
        visitor.client.writes_left = writes
        try:
            await visitor.sweep_all()
        except Unavailable:
            await look()
            continue
        visitor.client.writes_left = None
        return clients
    raise AssertionError("the sweep does not get on")
