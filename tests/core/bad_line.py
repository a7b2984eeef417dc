"""A line to the backend on which much is slow, lost, or cut short."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from perdure import OutcomeUnknown, Unavailable
from perdure.backend import Backend
from perdure.testing.faults import Forwarding
from perdure.types import At, Commit, Committed, Expect, Read, Scan, SessionKey, Snapshot

R = TypeVar("R")


class BadLine(Forwarding):
    """Takes a while, drops requests, loses replies, and carries little at a time."""

    def __init__(
        self,
        backend: Backend,
        chance: random.Random,
        *,
        faults: float,
        read_bytes: int,
        commit_bytes: int,
    ) -> None:
        super().__init__(backend)
        self.chance = chance
        self.faults = faults
        self.read_bytes = read_bytes
        self.capabilities = msgspec.structs.replace(
            backend.capabilities,
            max_commit_bytes=commit_bytes,
            max_item_bytes=max(commit_bytes, 70_000),
        )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        narrow = [
            msgspec.structs.replace(
                read, max_bytes=min(read.max_bytes or self.read_bytes, self.read_bytes)
            )
            if isinstance(read, Scan)
            else read
            for read in reads
        ]
        return await self._carry(lambda: self.backend.read(key, *narrow))

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        unknown = OutcomeUnknown("lost, on purpose", commit=commit)
        return await self._carry(lambda: self.backend.commit(key, commit), unknown)

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        await self._carry(lambda: self.backend.stage(key, incarnation, stage, puts))

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        return await self._carry(
            lambda: self.backend.delete(key, id=id, expect=expect, incarnation=incarnation),
            OutcomeUnknown("lost, on purpose"),
        )

    async def _carry(
        self, call: Callable[[], Awaitable[R]], unknown: OutcomeUnknown | None = None
    ) -> R:
        await self._pause()
        fate = self.chance.random()
        if fate < self.faults:
            raise Unavailable("dropped, on purpose")
        if unknown is not None and fate < 2 * self.faults:
            raise unknown  # it never arrived
        result = await call()
        await self._pause()
        if unknown is not None and fate < 4 * self.faults:
            raise unknown
        return result

    async def _pause(self) -> None:
        if self.chance.random() < 0.5:
            for _ in range(self.chance.randrange(4)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self.chance.random() * 0.004)
