"""Counting what a backend is asked."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from perdure.backend import Backend
from perdure.errors import Conflict, OutcomeUnknown, PerdureError, Unavailable
from perdure.events import Observer, current
from perdure.forwarding import Forwarding
from perdure.types import (
    Commit,
    Committed,
    HeadEntry,
    ListQuery,
    Page,
    Read,
    SessionKey,
    Snapshot,
)

R = TypeVar("R")


class Counted(Forwarding):
    """Counts what the backend behind it is asked, for the operation that asks."""

    def __init__(self, backend: Backend, observer: Observer) -> None:
        super().__init__(backend)
        while isinstance(backend, Forwarding):
            backend = backend.backend
        package = type(backend).__module__.partition(".")[0]
        observer.backend = package.removeprefix("perdure_")

    async def _call(self, work: Coroutine[Any, Any, R]) -> R:
        operation = current()
        if operation is not None:
            operation.round_trips += 1
        answered = False
        try:
            result = await work
            answered = True
            return result
        except (Unavailable, OutcomeUnknown):
            raise
        except PerdureError as error:
            answered = True
            if operation is not None and isinstance(error, Conflict):
                operation.conflicts += 1
                operation.received(error.rows)
            raise
        finally:
            self.capabilities = self.backend.capabilities
            if operation is not None and not answered:
                operation.unanswered += 1

    async def open(self) -> None:
        await self.backend.open()
        self.capabilities = self.backend.capabilities

    async def aclose(self) -> None:
        await self.backend.aclose()

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await self._call(self.backend.read(key, *reads))
        operation = current()
        if operation is not None:
            operation.received(snapshot.rows)
        return snapshot

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        operation = current()
        if operation is None:
            return await super().commit(key, commit)
        operation.wrote = True
        operation.resends += commit.resend
        operation.items_written += len(commit.puts)
        for _, value in commit.puts:
            operation.bytes_sent += len(value)
        for append in commit.appends:
            operation.items_written += len(append.values)
            for value in append.values:
                operation.bytes_sent += len(value)
        committed = await self._call(self.backend.commit(key, commit))
        operation.replayed = operation.replayed or committed.replayed
        operation.received(committed.rows)
        return committed

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        operation = current()
        if operation is not None:
            operation.items_written += len(puts)
            for _, value in puts:
                operation.bytes_sent += len(value)
        await super().stage(key, incarnation, stage, puts)

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        page = await super().list(tenant, kind, query)
        operation = current()
        if operation is not None:
            operation.items_read += len(page.items)
        return page
