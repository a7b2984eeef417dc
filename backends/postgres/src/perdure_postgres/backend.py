"""The Postgres backend: one schema of a database, shared by all who can reach it."""

import asyncio
from contextlib import suppress
from hashlib import blake2b

from perdure.backend import Backend, Capabilities, Description, Durability, Wait
from perdure.errors import OutcomeUnknown, Unavailable, Unsupported
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

from perdure_postgres import listing, operations, removal
from perdure_postgres.database import Database
from perdure_postgres.reading import (
    MAX_READ_BYTES,
    asking,
    asking_delta,
    delta_of,
    small_delta,
    snapshot,
)
from perdure_postgres.settings import Settings
from perdure_postgres.setup import FORMAT, prepare
from perdure_postgres.statements import CLOCK, Statements

WATCH_MS = 60_000
"""For how long a session counts as waited for."""

MANY_WATCHES = 1024
"""With so many channels on record, those that are over are forgotten."""

LISTENING = 1.0
"""Seconds after which who cannot listen yet polls instead."""

LOOKS = (0.05, 0.25, 1.0)
"""Seconds after which who waits looks again: a commit whose snapshot is older than its watch
does not notify."""

RARELY = 15.0
"""Seconds between looks after those: notifications may be lost with a connection."""


class PostgresBackend(Backend):
    """Sessions in the schema that ``settings`` names.

    ``clock`` is an SQL expression for ms since the epoch, which must be the same for all who
    share the schema. Construction does no I/O; all else belongs to the event loop of the first
    call.
    """

    def __init__(self, settings: Settings, *, clock: str = CLOCK) -> None:
        self._settings = settings
        self._sql = Statements(settings.schema, clock)
        self._database = Database(settings)
        self._opening: asyncio.Lock | None = None
        self._open = False
        self._watched: dict[str, float] = {}  # channels, and until when nobody need say so
        self.capabilities = Capabilities(
            # A statement and its values are in memory as a whole, here and on the server.
            max_item_bytes=16 << 20,
            max_commit_bytes=16 << 20,
            max_commit_items=10_000,
            max_read_bytes=MAX_READ_BYTES,
            recency_lag=60_000,
            loop_bound=True,
            wait=Wait.PUSH if settings.listens_at is not None else Wait.POLL,
            durability=Durability.HOST,
            durability_note="An acknowledged commit is in the server's write-ahead log and "
            "flushed to its disk, unless its settings say otherwise (fsync, "
            "synchronous_commit); with synchronous standbys it is on those too.",
        )

    async def open(self) -> None:
        if not self._open:
            if self._opening is None:
                self._opening = asyncio.Lock()
            async with self._opening:
                if not self._open:
                    await prepare(self._database, self._sql, self._settings)
                    self._open = True

    async def describe(self) -> Description:
        await self.open()
        ((row,),) = await self._database.run(self._sql.describe(), writes=False)
        version, synchronous_commit, fsync, standbys = row
        details = {
            "server": version,
            "schema": self._settings.schema,
            "format": str(FORMAT),
            "synchronous_commit": synchronous_commit,
            "fsync": fsync,
            "synchronous standbys": standbys or "none",
        }
        if fsync == "off":
            details["warning"] = "fsync is off: a crash of the host may corrupt the database"
        elif synchronous_commit == "off":
            details["warning"] = (
                "synchronous_commit is off: a crash of the server may lose the last commits"
            )
        return Description(
            backend="postgres",
            location=f"{self._settings.location}, schema {self._settings.schema}",
            durability=self.capabilities.durability_note,
            details=details,
        )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        if not self._open:
            await self.open()
        scan = delta_of(reads)
        if scan is not None:
            results = await self._database.run(asking_delta(self._sql, key, scan), writes=False)
            small = small_delta(results[0], results.epoch)
            if small is not None:
                return small
        results = await self._database.run(asking(self._sql, key, reads), writes=False)
        return snapshot(reads, results[0], results.epoch)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if not self._open:
            await self.open()
        try:
            return await operations.commit(self._database, self._sql, key, commit)
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
        if not self._open:
            await self.open()
        await operations.stage(self._database, self._sql, key, incarnation, stage, puts)

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
        if not self._open:
            await self.open()
        return await removal.delete(self._database, self._sql, key, id, expect, incarnation)

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        if not self._open:
            await self.open()
        return await listing.sessions(self._database, self._sql, tenant, kind, query)

    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        if not self._open:
            await self.open()
        return await listing.tenants(self._database, self._sql, cursor, limit)

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        if not self._open:
            await self.open()
        return await listing.kinds(self._database, self._sql, tenant, cursor, limit)

    async def sweep(self, *, limit: int = 1000) -> int:
        if not self._open:
            await self.open()
        return await removal.sweep(self._database, self._sql, limit)

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        found = await self.read(key)
        if timeout <= 0 or not same_state(found.head, after):
            return found.head
        changed = asyncio.Event()
        channel = self._channel(key)
        try:
            async with asyncio.timeout(min(LISTENING, deadline - loop.time())):
                subscription = await self._database.listen(channel, changed.set)
        except (Unsupported, Unavailable, TimeoutError):
            left = max(0.0, deadline - loop.time())
            return await super().wait(key, after=after, timeout=left)
        try:
            return await self._watch(key, channel, after, deadline, changed)
        finally:
            subscription.close()

    async def _watch(
        self,
        key: SessionKey,
        channel: str,
        after: Head | None,
        deadline: float,
        changed: asyncio.Event,
    ) -> Head | None:
        """Look at once, then whenever woken, a few times soon, and rarely after that."""
        loop = asyncio.get_running_loop()
        looks = iter(LOOKS)
        while True:
            changed.clear()
            statements = [asking(self._sql, key, ())]
            if self._watched.get(channel, 0.0) < loop.time():
                # First, so that this look is already one at what commits before it made.
                name = operations.name_of(key)
                watch = self._sql.watch(**name, channel=channel, lasting=WATCH_MS)
                statements.insert(0, watch)
            results = await self._database.run(*statements, writes=False)
            if len(results) > 1:
                self._note_watch(channel)
            found = snapshot((), results[-1], results.epoch)
            head = found.head
            left = deadline - loop.time()
            if left <= 0 or not same_state(head, after):
                return head
            pause = min(left, next(looks, RARELY))
            if head is not None and head.expires_at is not None:
                pause = min(pause, max(0.001, (head.expires_at - found.now) / 1000))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await changed.wait()

    def _note_watch(self, channel: str) -> None:
        """The server knows until when this channel is watched: say so again at half time."""
        now = asyncio.get_running_loop().time()
        if len(self._watched) >= MANY_WATCHES:
            self._watched = {c: until for c, until in self._watched.items() if until > now}
        self._watched[channel] = now + WATCH_MS / 2000

    async def aclose(self) -> None:
        self._open = False
        await self._database.aclose()

    def _channel(self, key: SessionKey) -> str:
        """Names of channels are shared by the whole database, and at most 63 bytes long."""
        name = blake2b(key.encode(), key=blake2b(self._settings.schema.encode()).digest()[:16])
        return f"perdure_{name.hexdigest()[:32]}"
