"""What a session handle has seen, and how its writes build on that."""

import time
from collections.abc import Sequence
from typing import Any, TypeVar

from perdure.cache import LogCache
from perdure.client import Client, digest_of, new_id
from perdure.errors import SessionDeleted
from perdure.layout import LOG, successor
from perdure.log import Entries, Log
from perdure.request import Request, Stored, View
from perdure.types import (
    Append,
    At,
    Commit,
    Committed,
    Condition,
    Expect,
    Head,
    Item,
    KeyRange,
    Read,
    SessionKey,
    append_key,
    same_state,
)

R = TypeVar("R")

VALID_SECONDS = 3600
"""A handle that has seen nothing of its session for so long looks before it writes: the
backend's memory of deleted sessions and sent commits is limited."""


class Cached(Request[Entries | None]):
    """A read of the log that a cache serves, once it has what it lacks."""

    def __init__(self, log: Log, cache: LogCache) -> None:
        self._log = log
        self._cache = cache

    def compile(self) -> Read:
        return self._cache.delta()

    def answer(self, items: Sequence[Item], view: View) -> Entries | None:
        rows = self._cache.serving(self._log, view.codec)
        return None if rows is None else self._log.select(rows, view)


CACHED_TRIES = 3
"""How often a read tries to build on the cache while other tasks bring it further."""


class Handle:
    """The state behind a ``Session``: the head last seen and the log rows read so far.

    Reads tell it what there is; writes name the incarnation it has seen, so that they never
    bring a deleted session back. Not for use from several threads at once.
    """

    __slots__ = ("_cache", "_seen_at", "client", "head", "incarnation", "key")

    def __init__(self, client: Client, key: SessionKey) -> None:
        self.client = client
        self.key = key
        self.head: Head | None = None
        self.incarnation: bytes | None = None
        """The one seen last, which writes name."""
        self._seen_at: float | None = None
        self._cache: LogCache | None = None

    @property
    def seen(self) -> bool:
        """Whether this handle has read or written the session at all."""
        return self._seen_at is not None

    def note(self, head: Head | None, known: Head | None) -> None:
        """An operation, begun when ``known`` was the head seen last, has shown ``head``."""
        old = self.head
        # Concurrent operations end in any order: beside other news, only a later version of
        # the same session is certainly newer.
        if old is known or (
            old is not None
            and head is not None
            and head.incarnation == old.incarnation
            and head.version > old.version
        ):
            self.head = head
            self.incarnation = head.incarnation if head else None
        self._seen_at = time.monotonic()

    def forget(self) -> None:
        """The session was deleted by this handle itself."""
        self.head = self.incarnation = None
        self._cache = None

    async def read(self, requests: Sequence[Request[Any]]) -> tuple[View, list[Any]]:
        """Answer requests from one snapshot, and from the cache where that serves."""
        codec = self.client.codec
        for _ in range(CACHED_TRIES):
            cache, known = self._cache, self.head
            if cache is None:
                break
            cached = cache.head
            wanted = [
                Cached(request, cache)
                if isinstance(request, Log) and cache.serving(request, codec) is not None
                else request
                for request in requests
            ]
            deltas = [n for n, request in enumerate(wanted) if isinstance(request, Cached)]
            if not deltas:
                break
            view, found = await self.client.read(self.key, wanted)
            self.note(view.head, known)
            self._take(cache, cached, view, found[deltas[0]])
            if self._cache is not cache:
                break
            if not same_state(cache.head, view.head):
                continue  # another task has brought the cache further: see what it saw
            answers = [
                request.answer(items, view)
                for request, items in zip(wanted, found, strict=True)
            ]
            if any(answers[n] is None for n in deltas):
                break  # rows were cut short: the tail held no longer suffices
            return view, answers

        known = self.head
        view, found = await self.client.read(self.key, requests)
        self.note(view.head, known)
        for request, items in zip(requests, found, strict=True):
            if isinstance(request, Log) and view.head is not None:
                if request.whole:
                    self._cache = LogCache(view.head, view.epoch, LOG, items)
                elif request.tail:  # read to the beginning, unless less was enough
                    low = items[-1].key if request.enough(items, view) else LOG
                    self._cache = LogCache(view.head, view.epoch, low, items[::-1])
        return view, [
            request.answer(items, view) for request, items in zip(requests, found, strict=True)
        ]

    async def entries(self, request: Log) -> tuple[View, Entries]:
        """Entries of the log."""
        view, (entries,) = await self.read([request])
        return view, entries

    async def refresh(self) -> View:
        """See what is new: the head, and the log rows that the cache lacks."""
        cache, known = self._cache, self.head
        if cache is None:
            view, _ = await self.client.read(self.key, ())
            self.note(view.head, known)
            return view
        cached, delta = cache.head, cache.delta()
        snapshot = await self.client.snapshot(self.key, delta)
        if snapshot.rows[0].more:
            view, (items,) = await self.client.read(self.key, [Stored(delta)])
        else:  # nearly always: nothing to put together
            view = View(
                self.key, snapshot.head, snapshot.now, self.client.codec, snapshot.epoch
            )
            items = snapshot.rows[0].items
        self.note(view.head, known)
        self._take(cache, cached, view, items)
        return view

    def _take(self, cache: LogCache, cached: Head, view: View, items: Sequence[Item]) -> None:
        """Bring the cache up to date, or drop it if what was read does not continue it.

        ``cached``: the cache's head when the read was sent.
        """
        mine, head = cache.head, view.head
        if mine is not cached and (
            head and head.incarnation == mine.incarnation and head.version < mine.version
        ):
            return  # another task has brought it further meanwhile
        if head is not None and cache.follows(head, view.epoch):
            cache.update(head, items)
        elif self._cache is cache:
            self._cache = None

    async def commit(
        self,
        *,
        id: bytes | None = None,
        expect: Expect | At = Expect.ANY,
        conditions: tuple[Condition, ...] = (),
        deletes: tuple[bytes | KeyRange, ...] = (),
        puts: tuple[tuple[bytes, bytes], ...] = (),
        entries: tuple[bytes, ...] = (),
        meta: bytes | None = None,
        labels: tuple[str, ...] | None = None,
        expires_at: int | None = None,
        expires_in: int | None = None,
        returning: tuple[Read, ...] = (),
        on: Head | None = None,
    ) -> Committed:
        """Commit on what this handle has seen; ``entries`` are log rows to append.

        ``on``: the head of the read that the change was worked out from, whose incarnation the
        commit then names if this handle names none.
        """
        if self._seen_at is not None and time.monotonic() - self._seen_at > VALID_SECONDS:
            await self._revalidate()
        head = self.head
        basis = head or on
        incarnation = self.incarnation or (on.incarnation if on else None)
        appends = (Append(LOG, entries),) if entries else ()
        settings = (meta, labels, expires_at, expires_in)
        commit = Commit(
            id=id or new_id(),
            digest=digest_of(deletes, puts, appends, settings),
            new_incarnation=incarnation or new_id(),  # unused if it names one: see Commit
            expect=expect,
            incarnation=incarnation,
            conditions=conditions,
            base=basis.version if basis else 0,
            seen=self.client.seen,
            deletes=deletes,
            puts=puts,
            appends=appends,
            meta=meta,
            labels=labels,
            expires_at=expires_at,
            expires_in=expires_in,
            returning=returning,
        )
        return self.committed(commit, await self.client.commit(self.key, commit), head)

    async def _revalidate(self) -> None:
        """Look whether the session that this handle knows is still there."""
        known = self.incarnation
        await self.refresh()
        if known and self.incarnation != known:
            raise SessionDeleted(
                "the session was deleted or has expired; nothing was written", head=self.head
            )

    def committed(self, commit: Commit, result: Committed, known: Head | None) -> Committed:
        """Take in an own commit, begun when ``known`` was the head seen last, so that nothing
        of it need be read back."""
        head = result.head
        if head is None or head.incarnation != result.incarnation:
            if self.head is known and self.incarnation is None:
                self.incarnation = result.incarnation  # gone since: not to be brought back
            return result
        self.note(head, known)
        if head.tip != commit.id or commit.stages:
            return result  # followed by others, or its rows are not in it
        items = [Item(key, value, head.version) for key, value in commit.puts if key >= LOG]
        for append in commit.appends:
            items += [
                Item(append_key(append.prefix, head.version, ordinal), value, head.version)
                for ordinal, value in enumerate(append.values)
            ]
        cache = self._cache
        if head.version == 1:
            self._cache = LogCache(head, result.epoch, LOG, items)
        elif (
            cache is not None
            and cache.epoch == result.epoch
            and cache.head.incarnation == head.incarnation
            and cache.head.version == head.version - 1
        ):
            for target in commit.deletes:
                if isinstance(target, bytes):
                    cache.remove(target, successor(target))
                else:
                    cache.remove(target.start, target.stop)
            cache.update(head, [item for item in items if item.key >= cache.low])
        return result
