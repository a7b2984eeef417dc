"""Lists of sessions and tenants: the buckets' indexes, asked at once and merged."""

import asyncio
import math
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import cast

from perdure.errors import InvalidKey
from perdure.types import Head, HeadEntry, ListQuery, Order, Page, SessionKey

from perdure_redis.encoding import head_of, recency_of
from perdure_redis.keys import BUCKETS, Names
from perdure_redis.router import Router
from perdure_redis.scripts import LIST, NAMES, READ

LATEST = 1 << 52
"""Ages, by which an index orders what is recent first, are counted back from this time."""

ABOVE_UTF8 = b"\xff"
"""Orders after every continuation of a prefix."""


class Scope:
    """The part of the indexes that a query is about."""

    def __init__(self, tenant: str, kind: str, query: ListQuery) -> None:
        self.label = query.label
        self.recency = query.order is Order.RECENCY
        self.names = f"{tenant}\0{kind}\0".encode()
        letter = (b"i" if query.label is None else b"l") if not self.recency else None
        if letter is None:
            letter = b"r" if query.label is None else b"s"
        label = b"" if query.label is None else query.label.encode() + b"\0"
        self.start = letter + self.names + label
        self.id_at = len(self.start) + (8 if self.recency else 0)
        prefix = self.start + query.prefix.encode()
        if query.cursor is None:
            self.low = b"[" + prefix
        else:
            self.low = b"(" + self.start + self._from_cursor(query.cursor)
        self.high = b"(" + (prefix + ABOVE_UTF8 if query.prefix else _successor(self.start))

    def id_of(self, member: bytes) -> str:
        return member[self.id_at :].decode()

    def shows(self, member: bytes, head: Head, recent_at: int) -> bool:
        """Whether a member of the index speaks of this head, and not of one before it."""
        if self.label is not None and self.label not in head.labels:
            return False
        return not self.recency or self._age(member) == LATEST - recent_at

    def cursor_at(self, member: bytes) -> str:
        id = self.id_of(member)
        return f"{self._age(member)} {id}" if self.recency else id

    def _age(self, member: bytes) -> int:
        return int.from_bytes(member[self.id_at - 8 : self.id_at], "big")

    def _from_cursor(self, cursor: str) -> bytes:
        if not self.recency:
            return cursor.encode()
        age, separator, id = cursor.partition(" ")
        if not separator or not (age.isascii() and age.isdigit() and int(age) <= LATEST):
            raise InvalidKey("this cursor is not of a list by recency")
        return int(age).to_bytes(8, "big") + id.encode()


class Found:
    """One session of one bucket."""

    __slots__ = ("head", "member", "recent_at")

    def __init__(self, member: bytes, rows: list[bytes], now: int) -> None:
        self.member = member
        head = head_of(rows)
        self.recent_at = recency_of(rows) if rows else 0
        expired = head is not None and head.expires_at is not None and head.expires_at <= now
        self.head = None if expired else head


class Walk:
    """What one bucket holds of a scope, some at a time."""

    def __init__(self, router: Router, names: Names, bucket: int, scope: Scope) -> None:
        self.found: Iterator[Found] = iter(())
        self.ended = False
        self._router = router
        self._index = names.indexes[bucket]
        self._bucket = bucket
        self._scope = scope
        self._low = scope.low

    async def fetch(self, count: int) -> None:
        """Get the next ``count``."""
        scope = self._scope
        reply = await self._router.call(
            self._bucket,
            LIST,
            self._index,
            self._low,
            scope.high,
            b"%d" % count,
            b"%d" % scope.id_at,
            scope.names,
        )
        now, *rest = cast("list[int]", reply.value)
        pairs = cast("list[bytes | list[bytes]]", rest)
        members = cast("list[bytes]", pairs[::2])
        heads = cast("list[list[bytes]]", pairs[1::2])
        if self._router.clustered and not all(heads):
            heads = [heads[n] or await self._elsewhere(m) for n, m in enumerate(members)]
        self.ended = len(members) < count
        if members:
            self._low = b"(" + members[-1]
        self.found = iter([Found(m, heads[n], now) for n, m in enumerate(members)])

    async def _elsewhere(self, member: bytes) -> list[bytes]:
        """The head of a session that its index's node does not have, for the case that the
        slot is being moved key by key."""
        key = b"%b:%b%b" % (self._index, self._scope.names, member[self._scope.id_at :])
        reply = await self._router.call(self._bucket, READ, key, bytes(9))
        return cast("tuple[int, int, list[bytes]]", reply.value)[2]


async def sessions(
    router: Router, names: Names, tenant: str, kind: str, query: ListQuery
) -> Page[HeadEntry]:
    """:meth:`perdure.backend.Backend.list`."""
    scope = Scope(tenant, kind, query)
    limit = max(1, query.limit)
    share = limit / BUCKETS  # so many of the page are to be expected in a bucket, and more
    count = min(limit, math.ceil(share + 3 * math.sqrt(share))) + 1
    empty = [Walk(router, names, bucket, scope) for bucket in range(BUCKETS)]
    waiting: list[tuple[bytes, int, Found, Walk]] = []
    entries: list[HeadEntry] = []
    while True:
        await asyncio.gather(*(walk.fetch(count) for walk in empty))
        for walk in empty:
            _next(waiting, walk)
        empty = list[Walk]()
        while waiting and not empty:
            _, _, found, walk = heappop(waiting)
            if found.head is not None and scope.shows(
                found.member, found.head, found.recent_at
            ):
                key = SessionKey(tenant, kind, scope.id_of(found.member))
                entries.append(HeadEntry(key, found.head))
                if len(entries) == limit:
                    more = bool(waiting) or _next(waiting, walk) or not walk.ended
                    return Page(tuple(entries), scope.cursor_at(found.member) if more else None)
            if not _next(waiting, walk) and not walk.ended:
                empty.append(walk)
        if not empty:
            return Page(tuple(entries))


def _next(waiting: list[tuple[bytes, int, Found, Walk]], walk: Walk) -> bool:
    found = next(walk.found, None)
    if found is None:
        return False
    heappush(waiting, (found.member, id(found), found, walk))
    return True


async def tenants(router: Router, names: Names, cursor: str | None, limit: int) -> Page[str]:
    """:meth:`perdure.backend.Backend.tenants`."""
    return await _distinct(router, names, b"i", cursor, limit)


async def kinds(
    router: Router, names: Names, tenant: str, cursor: str | None, limit: int
) -> Page[str]:
    """:meth:`perdure.backend.Backend.kinds`."""
    return await _distinct(router, names, f"i{tenant}\0".encode(), cursor, limit)


async def _distinct(
    router: Router, names: Names, scope: bytes, cursor: str | None, limit: int
) -> Page[str]:
    limit = max(1, limit)
    behind, most = (cursor or "").encode(), b"%d" % limit
    replies = await asyncio.gather(
        *(
            router.call(bucket, NAMES, index, scope, behind, most)
            for bucket, index in enumerate(names.indexes)
        )
    )
    lists = [cast("list[bytes]", reply.value) for reply in replies]
    merged = sorted({name for found in lists for name in found})
    more = len(merged) > limit or any(len(found) == limit for found in lists)
    page = tuple(name.decode() for name in merged[:limit])
    return Page(page, page[-1] if more else None)


def _successor(start: bytes) -> bytes:
    return start[:-1] + b"\1"  # it ends in NUL
