"""Backends that fail on purpose: wrap a good one and say which calls go wrong.

Commits and deletions are counted together, from 0. ``on`` holds the numbers of those that go
wrong: ``{0, 3}``, ``range(0, 100, 2)``, whatever answers ``in``. Reads and all else pass.
"""

import asyncio
from collections.abc import Container
from contextlib import suppress

from perdure.backend import Backend
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    SessionDeleted,
    StageMissing,
    Unavailable,
)
from perdure.forwarding import Forwarding
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    SessionKey,
)

ALWAYS = range(1 << 60)
"""Every call."""


class Faulty(Forwarding):
    """Counts the writes, and knows which of them go wrong."""

    def __init__(self, backend: Backend, on: Container[int] = ALWAYS) -> None:
        super().__init__(backend)
        self.on = on
        self.calls = 0
        """Commits and deletions so far."""
        self.faults = 0
        """How many of them went wrong."""

    def fails(self) -> bool:
        """Whether the call that now begins goes wrong."""
        call, self.calls = self.calls, self.calls + 1
        if call not in self.on:
            return False
        self.faults += 1
        return True


class LoseReplies(Faulty):
    """The request arrives, the reply does not: ``OutcomeUnknown`` after the fact.

    A refusal's reply is lost like any other, so nothing may have been applied.
    """

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if not self.fails():
            return await super().commit(key, commit)
        with suppress(Conflict, SessionDeleted, CommitIdReused, StageMissing, OutcomeUnknown):
            await super().commit(key, commit)
        raise OutcomeUnknown("the reply was lost, on purpose", commit=commit)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        if not self.fails():
            return await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        with suppress(Conflict, CommitIdReused, OutcomeUnknown):
            await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        raise OutcomeUnknown("the reply was lost, on purpose")


class DropRequests(Faulty):
    """The request never arrives. ``known`` says whether the client can tell:
    ``Unavailable`` if so, ``OutcomeUnknown`` if not."""

    def __init__(
        self, backend: Backend, on: Container[int] = ALWAYS, *, known: bool = True
    ) -> None:
        super().__init__(backend, on)
        self.known = known

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if not self.fails():
            return await super().commit(key, commit)
        if self.known:
            raise Unavailable("the request was dropped, on purpose")
        raise OutcomeUnknown("the request was dropped, on purpose", commit=commit)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        if not self.fails():
            return await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        if self.known:
            raise Unavailable("the request was dropped, on purpose")
        raise OutcomeUnknown("the request was dropped, on purpose")


class Delay(Faulty):
    """Writes that take longer: ``before`` seconds on the way there, ``after`` on the way back.

    Cancelled or timed out meanwhile, a write has not happened or has, respectively.
    """

    def __init__(
        self,
        backend: Backend,
        on: Container[int] = ALWAYS,
        *,
        before: float = 0.0,
        after: float = 0.0,
    ) -> None:
        super().__init__(backend, on)
        self.before = before
        self.after = after

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if not self.fails():
            return await super().commit(key, commit)
        await asyncio.sleep(self.before)
        made = await super().commit(key, commit)
        await asyncio.sleep(self.after)
        return made

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        if not self.fails():
            return await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        await asyncio.sleep(self.before)
        deleted = await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        await asyncio.sleep(self.after)
        return deleted
