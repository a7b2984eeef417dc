"""The Redis backend: one script for each operation, on the node that has the session."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import msgspec

from perdure.backend import (
    Backend,
    Capabilities,
    Description,
    Durability,
    Expiry,
    Wait,
)
from perdure.commits import check_expect
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    SessionDeleted,
    StageMissing,
    StoreClosed,
    Unavailable,
)
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
    same_state,
)

from perdure_redis import listing, scripts
from perdure_redis.buckets import Buckets
from perdure_redis.encoding import (
    APPLIED,
    CONFLICT,
    DELETED,
    EMPTY,
    FORGOTTEN,
    LONG,
    NO_STAGE,
    REPLAYED,
    REUSED,
    commit_arguments,
    deletion_argument,
    head_command,
    head_of,
    read_argument,
    read_command,
    rows_from,
    rows_of,
    size_of,
    stage_arguments,
)
from perdure_redis.inspection import details_of, durability_of, inspect, refuse_eviction
from perdure_redis.keys import Names, due_name
from perdure_redis.once import Once
from perdure_redis.router import Router
from perdure_redis.settings import Settings

MAX_COMMIT_BYTES = 4 << 20
"""While it runs a script, a server does nothing else: 1 to 3 ms a MB, 7 ms for 1 000 items."""

MAX_READ_BYTES = 16 << 20

SHORT_READ = 128 << 10
"""Bytes that a script reads. What passes through one is copied several times, which takes the
server 0.7 ms a MB: more comes by plain commands, after one more round trip."""

LONG_PAGE = 4 << 20
"""Bytes that a script reads of a session that is longer than ``MAX_READ_BYTES``."""

SWEEP_SHARE = 100
"""How many due things a sweep takes from a bucket at most."""

SLOWEST_POLL = 15.0
"""Seconds after which one who waits looks by himself, whatever he heard."""

_SHORT = b"\1" + SHORT_READ.to_bytes(8, "big")
_LONG = b"\0" + LONG_PAGE.to_bytes(8, "big")
_UNKNOWN = "What the server's settings promise is known once it is connected to."


Answer = tuple[int, int, list[bytes], object]
"""Status, time, a session's h members; rows, if any were asked for; perhaps more."""


class RedisBackend(Backend):
    """Sessions on the servers of ``settings``, under keys that start with ``prefix``.

    ``setup=False`` never begins to use a prefix. ``allow_eviction`` accepts servers that
    drop keys when their memory is full. Bound to the event loop of its first call.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        prefix: str = "perdure",
        setup: bool = True,
        allow_eviction: bool = False,
    ) -> None:
        self._names = Names(prefix)
        self._database = settings.database
        self._router = Router(settings, scripts.SCRIPTS)
        self._call = self._router.call
        self._buckets = Buckets(self._router, self._names, setup=setup)
        self._write = self._buckets.write
        self._allow_eviction = allow_eviction
        self._opening = Once(self._open)
        self._opened = False
        self._closed = False
        self.capabilities = Capabilities(
            max_item_bytes=MAX_COMMIT_BYTES,
            max_commit_bytes=MAX_COMMIT_BYTES,
            max_commit_items=1024,
            max_read_bytes=MAX_READ_BYTES,
            recency_lag=60_000,
            wait=Wait.PUSH,
            expiry=Expiry.NATIVE,
            loop_bound=True,
            durability=Durability.NONE,
            durability_note=_UNKNOWN,
        )

    async def open(self) -> None:
        if not self._opened:
            await self._opening()

    async def describe(self) -> Description:
        await self.open()
        servers = await inspect(self._router)
        _, note = durability_of(servers)
        nodes = ", ".join(sorted(facts.node for facts in servers))
        return Description(
            backend="redis",
            location=f"{nodes}, database {self._database}, keys {self._names.prefix}:*",
            durability=note,
            details=details_of(servers, clustered=self._router.clustered),
        )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        if not self._opened:
            await self.open()
        bucket, name = self._names.session(key)
        arguments = [read_argument(read) for read in reads]
        reply = await self._call(bucket, scripts.READ, name, _SHORT, *arguments)
        status, now, members, *rows = cast("Answer", reply.value)
        if status == LONG:
            if size_of(members) <= MAX_READ_BYTES:
                return await self._read_plainly(bucket, name, reads)
            reply = await self._call(bucket, scripts.READ, name, _LONG, *arguments)
            _, now, members, *rows = cast("Answer", reply.value)
        return Snapshot(
            head_of(members),
            now,
            rows_of(rows[0]) if rows else (EMPTY,) * len(reads),
            reply.epoch,
        )

    async def _read_plainly(self, bucket: int, name: bytes, reads: Sequence[Read]) -> Snapshot:
        """A read past the scripts, in one transaction."""
        reply = await self._router.transact(
            bucket, (b"TIME",), head_command(name), *(read_command(name, r) for r in reads)
        )
        (seconds, micros), members, *rows = cast("list[list[bytes]]", reply.value)
        now = int(seconds) * 1000 + int(micros) // 1000
        head = head_of(members)
        if head is None or (head.expires_at is not None and head.expires_at <= now):
            return Snapshot(None, now, (EMPTY,) * len(reads), reply.epoch)
        found = tuple(rows_from(read, some) for read, some in zip(reads, rows, strict=True))
        return Snapshot(head, now, found, reply.epoch)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if not self._opened:
            await self.open()
        bucket, name = self._names.session(key)
        try:
            reply = await self._write(bucket, scripts.COMMIT, name, *commit_arguments(commit))
        except OutcomeUnknown as error:
            error.commit = commit
            raise
        status, now, members, *rest = cast("Answer", reply.value)
        head = head_of(members)
        if status == APPLIED:
            assert head is not None
            rows = rows_of(rest[0]) if commit.returning else ()
            return Committed(
                version=head.version,
                incarnation=head.incarnation,
                head=head,
                now=now,
                rows=rows,
                epoch=reply.epoch,
            )
        if status == REUSED:
            raise CommitIdReused("this commit id was used before for other content")
        if status == FORGOTTEN:
            raise OutcomeUnknown(
                "too many commits followed to tell whether this one was applied",
                commit=commit,
                forgotten=True,
            )
        if status == DELETED:
            raise SessionDeleted(
                "the session was deleted or has expired; nothing was written", head=head
            )
        if status == NO_STAGE:
            raise StageMissing("a stage named by the commit does not exist (any more)")
        answers, *more = rest
        rows = rows_of(answers) if head is not None else (EMPTY,) * len(commit.returning)
        if status == REPLAYED:
            version, incarnation = cast("tuple[int, bytes]", tuple(more))
            return Committed(
                version=version,
                incarnation=incarnation,
                head=head,
                now=now,
                replayed=True,
                rows=rows,
                epoch=reply.epoch,
            )
        assert status == CONFLICT
        try:
            check_expect(head, commit.expect)
        except Conflict as conflict:
            conflict.now, conflict.rows = now, rows
            raise
        raise Conflict(
            "what this writer requires to be at another version is at version "
            f"{more[0]} (0: absent); nothing was written",
            head=head,
            now=now,
            rows=rows,
        )

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        await self.open()
        bucket, name = self._names.session(key)
        arguments = stage_arguments(incarnation + stage, puts)
        await self._write(bucket, scripts.STAGE, name, *arguments)

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
        await self.open()
        bucket, name = self._names.session(key)
        argument = deletion_argument(id, expect, incarnation)
        reply = await self._write(bucket, scripts.DELETE, name, argument)
        status, now, members = cast("tuple[int, int, list[bytes]]", reply.value)
        if status == REUSED:
            raise CommitIdReused("this id was used by a commit")
        if status == CONFLICT:
            try:
                check_expect(head_of(members), expect)
            except Conflict as conflict:
                conflict.now = now
                raise
        return status == APPLIED

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        await self.open()
        return await listing.sessions(self._router, self._names, tenant, kind, query)

    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        await self.open()
        return await listing.tenants(self._router, self._names, cursor, limit)

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        await self.open()
        return await listing.kinds(self._router, self._names, tenant, cursor, limit)

    async def sweep(self, *, limit: int = 1000) -> int:
        await self.open()
        most = b"%d" % max(1, min(limit, SWEEP_SHARE))
        indexes = self._names.indexes
        found = await asyncio.gather(
            *(
                self._call(bucket, scripts.DUE, index, most)
                for bucket, index in enumerate(indexes)
            )
        )
        due = [
            (bucket, member)
            for bucket, reply in enumerate(found)
            for member in cast("list[bytes]", reply.value)
        ]
        removed = 0
        while due and removed < limit:
            batch, due = due[:SWEEP_SHARE], due[SWEEP_SHARE:]
            replies = await asyncio.gather(
                *(
                    self._call(b, scripts.SWEEP, b"%b:%b" % (indexes[b], due_name(m)), m)
                    for b, m in batch[: limit - removed]
                )
            )
            removed += sum(cast("int", reply.value) for reply in replies)
        return removed

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        await self.open()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        bucket, name = self._names.session(key)
        changed = asyncio.Event()
        try:
            subscription = await self._router.subscribe(bucket, name, changed.set)
        except Unavailable as error:
            if not error.lasting:
                raise
            return await super().wait(key, after=after, timeout=timeout)  # it may not listen
        try:
            while True:
                changed.clear()
                snapshot = await self.read(key)
                head = snapshot.head
                left = deadline - loop.time()
                if left <= 0 or not same_state(head, after):
                    return head
                if head is not None and head.expires_at is not None:
                    left = min(left, (head.expires_at - snapshot.now) / 1000)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, SLOWEST_POLL)):
                        await changed.wait()
        finally:
            await subscription.aclose()

    async def aclose(self) -> None:
        self._opened = False
        self._closed = True
        await self._opening.cancel()
        await self._router.aclose()

    async def _open(self) -> None:
        if self._closed:
            raise StoreClosed("this redis backend was closed")
        await self._router.open()
        servers = await inspect(self._router)
        if not self._allow_eviction:
            refuse_eviction(servers)
        await self._buckets.prepare(0)
        durability, note = durability_of(servers)
        self.capabilities = msgspec.structs.replace(
            self.capabilities, durability=durability, durability_note=note
        )
        self._opened = True
