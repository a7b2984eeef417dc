"""Lists of sessions: the shards of an index, asked at once and merged, and the heads read.

The index names sessions; whether one is there, and what it is, its own newest slot says. Those
that are absent, or carry the label no more, are passed over and the page is filled with others.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from perdure.errors import InvalidKey
from perdure.types import Head, HeadEntry, ListQuery, Order, Page, SessionKey

from perdure_dynamodb import index, keys
from perdure_dynamodb.actions import SORT
from perdure_dynamodb.table import Table
from perdure_dynamodb.walking import each, sort_of

HeadOf = Callable[[SessionKey], Awaitable[Head | None]]
"""Reads the head of the session that is there now, if any."""

AGE_BYTES = 8


class _Range:
    """The sort keys that a query is about, the same in all shards."""

    def __init__(self, query: ListQuery) -> None:
        self.recency = query.order is Order.RECENCY
        if self.recency:
            self.low = b"\0" if query.cursor is None else self._behind(query.cursor)
            self.high = b"\xff"  # the first byte of an age is at most 127
        else:
            prefix = query.prefix.encode()
            behind = prefix or b"\0"
            self.low = behind if query.cursor is None else query.cursor.encode() + b"\0"
            self.high = prefix + index.LAST_NAME

    def id_of(self, sort: bytes) -> str:
        return sort[AGE_BYTES if self.recency else 0 :].decode()

    def cursor_at(self, sort: bytes) -> str:
        if not self.recency:
            return self.id_of(sort)
        return f"{int.from_bytes(sort[:AGE_BYTES], 'big')} {self.id_of(sort)}"

    def _behind(self, cursor: str) -> bytes:
        age, separator, id = cursor.partition(" ")
        if not separator or not (age.isascii() and age.isdigit() and int(age) >> 64 == 0):
            raise InvalidKey("this cursor is not of a list by recency")
        return int(age).to_bytes(AGE_BYTES, "big") + id.encode() + b"\0"


class _Walk:
    """One shard, read some rows at a time."""

    def __init__(self, table: Table, partition: bytes, range: _Range) -> None:
        self.found: deque[bytes] = deque()
        """Sort keys that were read and are not yet dealt with."""
        self.ended = range.low > range.high
        """Whether there are no more than those."""
        self._table = table
        self._partition = partition
        self._range = range
        self._behind: bytes | None = None

    async def fetch(self, count: int) -> None:
        page = await self._table.query(
            self._partition,
            self._range.low,
            self._range.high,
            limit=count,
            only=(SORT,),
            start_after=self._behind,
        )
        self.found.extend(map(sort_of, page.rows))
        self._behind = page.last
        self.ended = page.last is None


async def sessions(
    table: Table, head_of: HeadOf, tenant: str, kind: str, query: ListQuery
) -> Page[HeadEntry]:
    """:meth:`perdure.backend.Backend.list`."""
    limit = max(1, query.limit)
    range_ = _Range(query)
    walks = [
        _Walk(
            table,
            index.partition(bytes((shard,)), tenant, kind, query.label, recency=range_.recency),
            range_,
        )
        for shard in range(keys.SHARDS)
    ]
    share = limit / keys.SHARDS  # so many of the page are to be expected in a shard, and more
    count = min(limit, math.ceil(share + 3 * math.sqrt(share))) + 1

    async def read(sort: bytes) -> HeadEntry | None:
        key = SessionKey(tenant, kind, range_.id_of(sort))
        head = await head_of(key)
        if head is None or (query.label is not None and query.label not in head.labels):
            return None
        return HeadEntry(key, head)

    entries: dict[str, HeadEntry] = {}
    """By id: one that is moved while it is read may be met twice."""
    while True:
        await asyncio.gather(
            *(walk.fetch(count) for walk in walks if not walk.found and not walk.ended)
        )
        next_ = _merged(walks, limit - len(entries))
        for sort, entry in zip(next_, await each(read, next_), strict=True):
            if entry is not None:
                entries.setdefault(entry.key.id, entry)
            if len(entries) == limit:
                more = any(walk.found or not walk.ended for walk in walks)
                return Page(tuple(entries.values()), range_.cursor_at(sort) if more else None)
        if all(walk.ended and not walk.found for walk in walks):
            return Page(tuple(entries.values()))


def _merged(walks: Sequence[_Walk], most: int) -> list[bytes]:
    """The next in order of all shards, as far as they were read."""
    merged: list[bytes] = []
    while len(merged) < most and all(walk.found or walk.ended for walk in walks):
        first = min((walk for walk in walks if walk.found), key=_next, default=None)
        if first is None:
            break
        merged.append(first.found.popleft())
    return merged


def _next(walk: _Walk) -> bytes:
    return walk.found[0]
