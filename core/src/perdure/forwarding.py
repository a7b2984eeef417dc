"""A backend in front of another."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from perdure.backend import Backend, Description
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    HeadEntry,
    ListQuery,
    Page,
    Read,
    SessionKey,
    Snapshot,
)

R = TypeVar("R")


class Forwarding(Backend):
    """Does what the backend behind it does. Base of those that change something about it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.capabilities = backend.capabilities

    async def _call(self, work: Coroutine[Any, Any, R]) -> R:
        """Have the other backend do what it was asked for."""
        return await work

    async def open(self) -> None:
        await self._call(self.backend.open())

    async def describe(self) -> Description:
        return await self._call(self.backend.describe())

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        return await self._call(self.backend.read(key, *reads))

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await self._call(self.backend.commit(key, commit))

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        await self._call(self.backend.stage(key, incarnation, stage, puts))

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        return await self._call(
            self.backend.delete(key, id=id, expect=expect, incarnation=incarnation)
        )

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        return await self._call(self.backend.list(tenant, kind, query))

    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        return await self._call(self.backend.tenants(cursor=cursor, limit=limit))

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        return await self._call(self.backend.kinds(tenant, cursor=cursor, limit=limit))

    async def sweep(self, *, limit: int = 1000) -> int:
        return await self._call(self.backend.sweep(limit=limit))

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        return await self._call(self.backend.wait(key, after=after, timeout=timeout))

    async def aclose(self) -> None:
        await self._call(self.backend.aclose())
