"""The backend: every operation is one request to the server."""

from collections.abc import Awaitable, Callable
from math import ceil
from typing import TypeVar

import aiohttp
import msgspec

from perdure.backend import (
    Backend,
    Capabilities,
    Description,
    Durability,
    Expiry,
    Wait,
)
from perdure.errors import OutcomeUnknown, Unavailable
from perdure.protocol import answers, requests
from perdure.protocol.answers import Hello
from perdure.protocol.limits import MAX_INTEGER, MAX_WAIT_MS, VERSION
from perdure.protocol.messages import Malformed
from perdure.protocol.paths import Operation
from perdure.protocol.refusals import RETRY_AFTER
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

from perdure_durable_objects.connection import Connection, NoWebSocket
from perdure_durable_objects.failures import not_understood
from perdure_durable_objects.settings import Settings

T = TypeVar("T")

GRACE = 10.0
"""Seconds that a server may take longer than the time for which it was asked to wait."""

OVERLOADED = 1013
"""Close code of a WebSocket: try again later (IANA's registry)."""

_UNKNOWN = "What the server promises is known once it is connected to."


class HttpBackend(Backend):
    """Sessions on a server that speaks the protocol. Bound to the event loop of its first
    call.

    Until :meth:`open` or :meth:`describe` has asked the server, ``capabilities`` are what any
    server can do.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection = Connection(settings)
        self._opened = False
        self.capabilities = Capabilities(
            max_item_bytes=256 << 10,
            max_commit_bytes=1 << 20,
            max_commit_items=64,
            max_read_bytes=1 << 20,
            recency_lag=60_000,
            list_lag=2_000,
            wait=Wait.PUSH,
            expiry=Expiry.SWEEP,
            loop_bound=True,
            durability=Durability.NONE,
            durability_note=_UNKNOWN,
        )

    async def open(self) -> None:
        if not self._opened:
            await self.hello()

    async def hello(self) -> Hello:
        """Ask the server what it is, and believe what it can do from now on.

        Raises ``Unavailable``, lasting where a key, a clock or a version is to blame.
        """
        hello = await self._ask(answers.decode_hello, Operation.HELLO)
        if hello.protocol != VERSION:
            raise Unavailable(
                f"{self._connection.origin}: speaks version {hello.protocol} of the protocol, "
                f"and this client version {VERSION}",
                lasting=True,
            )
        self.capabilities = msgspec.structs.replace(hello.capabilities, loop_bound=True)
        self._opened = True
        return hello

    async def describe(self) -> Description:
        hello = await self.hello()
        told = hello.description
        return Description(
            backend=told.backend,
            location=f"{self._connection.origin} ({told.location})",
            durability=told.durability,
            details={
                **told.details,
                "server": hello.software,
                "protocol": str(hello.protocol),
            },
        )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        body = requests.encode_read(reads)
        return await self._ask(answers.decode_snapshot, Operation.READ, *_scope(key), body=body)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        body = requests.encode_commit(commit)
        try:
            return await self._ask(
                answers.decode_committed, Operation.COMMIT, *_scope(key), body=body
            )
        except OutcomeUnknown as error:
            error.commit = commit
            raise

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        body = requests.encode_stage(incarnation, stage, puts)
        await self._ask(answers.decode_staged, Operation.STAGE, *_scope(key), body=body)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        if expect is Expect.ABSENT:
            raise ValueError("deleting a session that is expected to be absent")
        body = requests.encode_delete(id, expect, incarnation)
        return await self._ask(
            answers.decode_deleted, Operation.DELETE, *_scope(key), body=body
        )

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        async def page(cursor: str | None, limit: int) -> Page[HeadEntry]:
            asked = msgspec.structs.replace(query, cursor=cursor, limit=limit)
            return await self._ask(
                lambda body: answers.decode_page(body, tenant, kind),
                Operation.LIST,
                tenant,
                kind,
                body=requests.encode_list(asked),
            )

        return await _filled(page, query.cursor, query.limit)

    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        return await self._names(Operation.TENANTS, (), cursor, limit)

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        return await self._names(Operation.KINDS, (tenant,), cursor, limit)

    async def sweep(self, *, limit: int = 1000) -> int:
        body = requests.encode_sweep(limit)
        return await self._ask(answers.decode_count, Operation.SWEEP, body=body)

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        milliseconds = min(ceil(max(timeout, 0) * 1000), MAX_WAIT_MS)
        query = requests.wait_query(after, milliseconds)
        try:
            async with self._connection.listen(_scope(key), query) as socket:
                return self._heard(await socket.receive(milliseconds / 1000 + GRACE))
        except NoWebSocket:
            return await super().wait(key, after=after, timeout=timeout)

    async def aclose(self) -> None:
        await self._connection.aclose()

    def _heard(self, message: aiohttp.WSMessage) -> Head | None:
        """The head in the one message that ends a wait."""
        origin = self._connection.origin
        if message.type is aiohttp.WSMsgType.BINARY:
            try:
                return answers.decode_head(message.data)
            except Malformed as error:
                raise not_understood(error, origin, writes=False) from error
        self._connection.check_open()
        raise Unavailable(
            f"{origin}: the connection was closed while waiting",
            retry_after=RETRY_AFTER if message.data == OVERLOADED else 0.0,
        )

    async def _names(
        self, operation: Operation, scope: tuple[str, ...], cursor: str | None, limit: int
    ) -> Page[str]:
        async def page(cursor: str | None, limit: int) -> Page[str]:
            body = requests.encode_names(cursor, limit)
            return await self._ask(answers.decode_names, operation, *scope, body=body)

        return await _filled(page, cursor, limit)

    async def _ask(
        self,
        decode: Callable[[bytes], T],
        operation: Operation,
        *scope: str,
        body: bytes = b"",
    ) -> T:
        answer = await self._connection.request(operation, *scope, body=body)
        try:
            return decode(answer)
        except Malformed as error:
            origin = self._connection.origin
            raise not_understood(error, origin, writes=operation.writes) from error


def _scope(key: SessionKey) -> tuple[str, str, str]:
    return key.tenant, key.kind, key.id


async def _filled(
    ask: Callable[[str | None, int], Awaitable[Page[T]]], cursor: str | None, limit: int
) -> Page[T]:
    """A page of the length asked for, from a server whose pages may be shorter."""
    items: list[T] = []
    while True:
        page = await ask(cursor, min(limit - len(items), MAX_INTEGER))
        items += page.items
        cursor = page.cursor
        if cursor is None or len(items) >= limit:
            return Page(tuple(items), cursor)
