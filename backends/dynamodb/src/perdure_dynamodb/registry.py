"""Which tenants and kinds there are, by rows of their own.

==================  ======  =============================
partition           sort    row
==================  ======  =============================
``t`` shard         tenant  ``n`` when it was registered
``k`` tenant        kind    ``n`` when it was registered
==================  ======  =============================

They are written ahead of a creation, and outside of its transaction: creations of one tenant
would get into each other's way there. The last lapse of a tenant's sessions removes them.
"""

import asyncio
from weakref import WeakValueDictionary

from perdure.errors import OutcomeUnknown, Unavailable
from perdure.types import Page, SessionKey

from perdure_dynamodb import index, keys
from perdure_dynamodb.actions import PARTITION, SORT, ConditionFailed, Delete, Put
from perdure_dynamodb.table import Table
from perdure_dynamodb.walking import sort_of

REFRESH_MS = 3_600_000
"""A process registers what it creates under anew when it has not for so long."""

KEPT_MS = 24 * 3_600_000
"""Rows registered later than that are left alone: somebody may be about to create a session
under them and has no need to register."""

REMEMBERED = 10_000
"""Most tenants and kinds that a process remembers to have registered."""

SORT_ONLY = (SORT,)

Name = tuple[str, str]


class Registry:
    """Registers what a process creates sessions under."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._registered: dict[Name, int] = {}
        self._locks: WeakValueDictionary[Name, asyncio.Lock] = WeakValueDictionary()

    async def ensure(self, key: SessionKey) -> None:
        """See that tenant and kind of a session are listed. Before the session is created.

        Idempotent. Raises ``Unavailable``.
        """
        name = key.tenant, key.kind
        if self._known(name):
            return
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        async with lock:
            if self._known(name):
                return
            now = self._table.now()
            tenant, kind = _places(key.tenant, key.kind)
            await asyncio.gather(self._put(tenant, now), self._put(kind, now))
            self._registered.pop(name, None)
            self._registered[name] = now
            if len(self._registered) > REMEMBERED:
                del self._registered[next(iter(self._registered))]

    async def _put(self, place: index.Place, now: int) -> None:
        try:
            await self._table.put(Put({PARTITION: place[0], SORT: place[1], "n": now}))
        except OutcomeUnknown as error:  # it does not matter whether a name is registered
            raise Unavailable(str(error)) from error

    def _known(self, name: Name) -> bool:
        at = self._registered.get(name)
        return at is not None and 0 <= self._table.now() - at < REFRESH_MS


async def forget(table: Table, tenant: str, kind: str) -> None:
    """Remove a kind, and its tenant, that have no sessions left. May be cut short and repeated.

    Whoever creates a session meanwhile has registered within the hour.
    """
    old = table.now() - KEPT_MS
    tenant_place, kind_place = _places(tenant, kind)
    if (row := await table.get(*kind_place, only=("n",))) is not None:
        registered = row.get("n")
        if type(registered) is int and registered > old:
            return
        for shard in range(keys.SHARDS):
            partition = index.partition(bytes((shard,)), tenant, kind, None, recency=False)
            if await _any(table, partition):
                return
        if not await _removed(table, kind_place, old):
            return
    if not await _any(table, _kinds(tenant)):
        await _removed(table, tenant_place, old)


async def tenants(table: Table, cursor: str | None, limit: int) -> Page[str]:
    """:meth:`perdure.backend.Backend.tenants`."""
    partitions = [b"t" + bytes((shard,)) for shard in range(keys.SHARDS)]
    return await _names(table, partitions, cursor, limit)


async def kinds(table: Table, tenant: str, cursor: str | None, limit: int) -> Page[str]:
    """:meth:`perdure.backend.Backend.kinds`."""
    return await _names(table, [_kinds(tenant)], cursor, limit)


async def _names(
    table: Table, partitions: list[bytes], cursor: str | None, limit: int
) -> Page[str]:
    """A page of what is in partitions that have no name in common."""
    limit = max(1, limit)
    low = b"\0" if cursor is None else cursor.encode() + b"\0"
    pages = await asyncio.gather(
        *(
            table.query(partition, low, index.LAST_NAME, limit=limit + 1, only=SORT_ONLY)
            for partition in partitions
        )
    )
    ends = [page.last for page in pages if page.last is not None]
    end = min(ends, default=index.LAST_NAME)  # behind it some partition was not read
    found = sorted(sort for page in pages for sort in map(sort_of, page.rows) if sort <= end)
    names = tuple(sort.decode() for sort in found[:limit])
    return Page(names, names[-1] if ends or len(found) > limit else None)


def _places(tenant: str, kind: str) -> tuple[index.Place, index.Place]:
    """Where a tenant's and a kind's rows are."""
    return (b"t" + keys.shard(tenant), tenant.encode()), (_kinds(tenant), kind.encode())


def _kinds(tenant: str) -> bytes:
    return b"k" + tenant.encode()


async def _any(table: Table, partition: bytes) -> bool:
    found = await table.query(partition, b"\0", index.LAST_NAME, limit=1, only=SORT_ONLY)
    return bool(found.rows)


async def _removed(table: Table, place: index.Place, old: int) -> bool:
    """Remove a row unless it was registered after ``old``."""
    try:
        await table.delete(Delete(*place, condition="n <= :n", values={"n": old}))
    except ConditionFailed as failed:
        return failed.row is None
    return True
