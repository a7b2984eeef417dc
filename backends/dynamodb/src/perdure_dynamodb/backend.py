"""The DynamoDB backend: one table, shared by all who can reach it."""

from collections.abc import Callable

from perdure.backend import Backend, Capabilities, Description, Durability
from perdure.errors import OutcomeUnknown, StoreClosed
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    HeadEntry,
    ListQuery,
    Page,
    Read,
    SessionKey,
    Snapshot,
)

from perdure_dynamodb import inspection, listing, registry
from perdure_dynamodb.background import Background
from perdure_dynamodb.capacity import Consumption
from perdure_dynamodb.chain import Chain
from perdure_dynamodb.changes import MOST_ROWS
from perdure_dynamodb.clock import ERROR_MS
from perdure_dynamodb.commit import Writer
from perdure_dynamodb.index import RECENCY_LAG
from perdure_dynamodb.parts import MAX_READ_BYTES
from perdure_dynamodb.reading import Reader
from perdure_dynamodb.settings import Settings
from perdure_dynamodb.staging import Stages
from perdure_dynamodb.sweep import sweep
from perdure_dynamodb.table import Table


class DynamoDBBackend(Backend):
    """Sessions in the table that ``settings`` names.

    ``clock`` gives ms since the epoch, the same for all who share the table; without one the
    time is DynamoDB's, as well as it can be known. Construction does no I/O; all else belongs
    to the event loop of the first call.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], int] | None = None) -> None:
        self._table = Table(settings, clock)
        self._background = Background()
        self._chain = Chain(self._table)
        self._reader = Reader(self._chain)
        self._stages = Stages(self._chain)
        self._writer = Writer(self._chain, self._reader, self._stages, self._background)
        self._closed = False
        self.capabilities = Capabilities(
            # A row holds 400 KB with its keys, a transaction 4 MB and 100 rows.
            max_item_bytes=384 << 10,
            max_commit_bytes=3_000_000,
            max_commit_items=MOST_ROWS,
            max_read_bytes=MAX_READ_BYTES,
            multi_range=False,
            returning=False,
            recency_lag=RECENCY_LAG,
            clock_error=ERROR_MS if clock is None else 0,
            loop_bound=True,
            durability=Durability.REPLICATED,
            durability_note="An acknowledged commit is on the disks of at least two of the "
            "three availability zones that hold each row of the table.",
        )

    @property
    def consumption(self) -> Consumption:
        """What this backend's requests have cost; see also
        :func:`perdure_dynamodb.capacity.measured`."""
        return self._table.consumption

    async def open(self) -> None:
        self._check_open()
        await self._table.open()

    async def describe(self) -> Description:
        self._check_open()
        await self._table.open()
        return Description(
            backend="dynamodb",
            location=f"table {self._table.name} in {self._table.client.region}",
            durability=self.capabilities.durability_note,
            details=await inspection.details(self._table),
        )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self._check_open()
        return await self._reader.read(key, reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self._check_open()
        try:
            return await self._writer.commit(key, commit)
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
        self._check_open()
        await self._stages.stage(key, incarnation, stage, puts)

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
        self._check_open()
        return await self._writer.delete(key, id, expect, incarnation)

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        self._check_open()
        return await listing.sessions(self._table, self._chain.head, tenant, kind, query)

    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        self._check_open()
        return await registry.tenants(self._table, cursor, limit)

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        self._check_open()
        return await registry.kinds(self._table, tenant, cursor, limit)

    async def sweep(self, *, limit: int = 1000) -> int:
        self._check_open()
        return await sweep(self._table, self._chain.newest, limit)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._background.finish()
        await self._table.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("this DynamoDB backend was closed")
