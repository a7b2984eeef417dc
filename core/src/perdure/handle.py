"""What a session handle has seen, and how its writes build on that."""

import time
from collections.abc import Sequence
from typing import Any, TypedDict, TypeVar, Unpack, cast

import msgspec

from perdure import expiry
from perdure.cache import LogCache
from perdure.client import Client, digest_of, new_id
from perdure.errors import SessionDeleted
from perdure.layout import LOG, rows_stop, successor
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
    Rows,
    SessionKey,
    append_key,
    same_state,
)

T = TypeVar("T")

VALID_SECONDS = 3600
"""A handle that has seen nothing of its session for so long looks before it writes: the
backend's memory of deleted sessions and sent commits is limited."""


class Cached(Request[Entries[Any] | None]):
    """A read of a stream that a cache serves, once it has what it lacks."""

    def __init__(self, log: Log[Any], cache: LogCache) -> None:
        self._log = log
        self.cache = cache
        self.head = cache.head
        """The cache's head when the read was sent."""

    def compile(self) -> Read:
        return self.cache.delta()

    def answer(self, items: Sequence[Item], view: View) -> Entries[Any] | None:
        rows = self.cache.serving(self._log, view.codec)
        return None if rows is None else self._log.select(rows, view)


CACHED_TRIES = 3
"""How often a read tries to build on the cache while other tasks bring it further."""


class Change(TypedDict, total=False):
    """What :meth:`Handle.prepared` takes."""

    id: bytes
    expect: Expect | At
    conditions: tuple[Condition, ...]
    deletes: tuple[bytes | KeyRange, ...]
    puts: tuple[tuple[bytes, bytes], ...]
    appends: tuple[Append, ...]
    stages: tuple[bytes, ...]
    new_incarnation: bytes | None
    meta: bytes | None
    labels: tuple[str, ...] | None
    expires_at: int | None
    expires_in: int | None
    returning: tuple[Read, ...]
    on: Head | None


class Handle:
    """The state behind a ``Session``: the head last seen, and the rows read of its streams.

    Reads tell it what there is; writes name the incarnation it has seen, so that they never
    bring a deleted session back. Not for use from several threads at once.
    """

    __slots__ = ("_caches", "_seen_at", "client", "head", "idle", "incarnation", "key")

    def __init__(self, client: Client, key: SessionKey, idle: int | None = None) -> None:
        self.client = client
        self.key = key
        self.idle = client.idle if idle is None else idle
        """The session's idle expiry in ms; 0: what is written here does not change when it
        expires."""
        self.head: Head | None = None
        self.incarnation: bytes | None = None
        """The one seen last, which writes name."""
        self._seen_at: float | None = None
        self._caches: dict[bytes, LogCache] = {}  # by the prefixes of the streams

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
        self._caches.clear()

    async def read(self, requests: Sequence[Request[Any]]) -> tuple[View, list[Any]]:
        """Answer requests from one snapshot, and from the caches where they serve."""
        for _ in range(CACHED_TRIES):
            known = self.head
            wanted = [self._cached(request) for request in requests]
            deltas = [request for request in wanted if isinstance(request, Cached)]
            if not deltas:
                break
            view, found = await self.client.read(self.key, wanted)
            self.note(view.head, known)
            taken = {
                request.cache: items
                for request, items in zip(wanted, found, strict=True)
                if isinstance(request, Cached)
            }
            for request in deltas:
                if request.cache in taken:
                    self._take(request.cache, request.head, view, taken.pop(request.cache))
            if any(self._caches.get(each.cache.prefix) is not each.cache for each in deltas):
                break
            if not all(same_state(each.cache.head, view.head) for each in deltas):
                continue  # another task has brought a cache further: see what it saw
            answers = [
                request.answer(items, view)
                for request, items in zip(wanted, found, strict=True)
            ]
            if any(
                answer is None and isinstance(request, Cached)
                for request, answer in zip(wanted, answers, strict=True)
            ):
                break  # rows were cut short: the tail held no longer suffices
            return view, answers

        known = self.head
        view, found = await self.client.read(self.key, requests)
        self.note(view.head, known)
        for request, items in zip(requests, found, strict=True):
            if isinstance(request, Log) and view.head is not None:
                self._fill(cast("Log[Any]", request), view.head, items, view)
        return view, [
            request.answer(items, view) for request, items in zip(requests, found, strict=True)
        ]

    def _cached(self, request: Request[Any]) -> Request[Any]:
        """The request, or one that the cache of its stream serves."""
        if isinstance(request, Log):
            log = cast("Log[Any]", request)
            cache = self._caches.get(log.prefix)
            if cache is not None and cache.serving(log, self.client.codec) is not None:
                return Cached(log, cache)
        return cast("Request[Any]", request)

    def _fill(self, log: Log[Any], head: Head, items: Sequence[Item], view: View) -> None:
        """Keep the rows that were read, if they are all there are from some key on."""
        prefix = log.prefix
        if log.whole:
            self._caches[prefix] = LogCache(prefix, head, view.epoch, prefix, items)
        elif log.tail:  # read to the beginning, unless less was enough
            low = items[-1].key if log.enough(items, view) else prefix
            self._caches[prefix] = LogCache(prefix, head, view.epoch, low, items[::-1])

    async def entries(self, request: Log[T]) -> tuple[View, Entries[T]]:
        """Entries of a stream."""
        view, (entries,) = await self.read([request])
        return view, entries

    def held(self, requests: Sequence[Request[Any]], head: Head | None) -> list[Any] | None:
        """The answers without asking anybody, if the caches hold all of them as of ``head``."""
        wanted = [self._cached(request) for request in requests]
        if head is None or not all(
            isinstance(each, Cached) and same_state(each.cache.head, head) for each in wanted
        ):
            return None
        view = View(self.key, head, 0, self.client.codec)
        return [request.answer((), view) for request in wanted]

    def lacking(self) -> Cached | None:
        """What the main log's cache lacks, for a commit to return: see :meth:`caught_up`."""
        cache = self._caches.get(LOG)
        return None if cache is None else Cached(Log(), cache)

    def caught_up(self, lacking: Cached, result: Committed, rows: Rows) -> None:
        """Take in what a commit has returned of :meth:`lacking`."""
        if result.head is not None and not rows.more:
            view = View(self.key, result.head, result.now, self.client.codec, result.epoch)
            self._take(lacking.cache, lacking.head, view, rows.items)

    async def refresh(self) -> View:
        """See what is new: the head, and the rows that the main log's cache lacks."""
        cache, known = self._caches.get(LOG), self.head
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
        """Bring a cache up to date, or drop it if what was read does not continue it.

        ``cached``: the cache's head when the read was sent.
        """
        mine, head = cache.head, view.head
        if mine is not cached and (
            head and head.incarnation == mine.incarnation and head.version < mine.version
        ):
            return  # another task has brought it further meanwhile
        if head is not None and cache.follows(head, view.epoch):
            cache.update(head, items)
        elif self._caches.get(cache.prefix) is cache:
            del self._caches[cache.prefix]

    @property
    def stale(self) -> bool:
        """Whether this handle has to look before it writes; see :meth:`revalidate`."""
        return self._seen_at is not None and time.monotonic() - self._seen_at > VALID_SECONDS

    async def revalidate(self) -> None:
        """Look whether the session that this handle knows is still there.

        Raises ``SessionDeleted`` if it is not.
        """
        known = self.incarnation
        await self.refresh()
        if known and self.incarnation != known:
            raise SessionDeleted(
                "the session was deleted or has expired; nothing was written", head=self.head
            )

    async def commit(self, **change: Unpack[Change]) -> Committed:
        """Commit on what this handle has seen. Takes what :meth:`prepared` takes."""
        if self.stale:
            await self.revalidate()
        known = self.head
        commit = self.prepared(**change)
        if not self.idle or sets_expiry(commit):
            return self.committed(commit, await self.client.commit(self.key, commit), known)
        result = self.committed(commit, await self.send(commit), known)
        return await self.extend(commit, result)

    async def send(self, commit: Commit, *, within: float | None = None) -> Committed:
        """Have a prepared commit applied; one that creates a session that is to expire when it
        is idle says so."""
        if not self.idle or sets_expiry(commit):
            return await self.client.commit(self.key, commit, within=within)
        absent = self.seen and self.head is None
        return await expiry.send(
            self.client, self.key, commit, self.idle, absent=absent, within=within
        )

    async def extend(self, commit: Commit, result: Committed) -> Committed:
        """After a commit: extend the session's life, if its idle expiry says so. The same
        result, with the head that this has made."""
        if not self.idle or sets_expiry(commit):
            return result
        known = self.head
        extended = await expiry.extend(self.client, self.key, result, self.idle)
        if extended is None:
            return result
        head = self.committed(*extended, known).head
        return msgspec.structs.replace(result, head=head)

    def prepared(
        self,
        *,
        id: bytes | None = None,
        expect: Expect | At = Expect.ANY,
        conditions: tuple[Condition, ...] = (),
        deletes: tuple[bytes | KeyRange, ...] = (),
        puts: tuple[tuple[bytes, bytes], ...] = (),
        appends: tuple[Append, ...] = (),
        stages: tuple[bytes, ...] = (),
        new_incarnation: bytes | None = None,
        meta: bytes | None = None,
        labels: tuple[str, ...] | None = None,
        expires_at: int | None = None,
        expires_in: int | None = None,
        returning: tuple[Read, ...] = (),
        on: Head | None = None,
    ) -> Commit:
        """A commit on what this handle has seen; :meth:`committed` is to be told its result.

        ``new_incarnation``: what the session gets if this creates it, where its stages were
        written for that. ``on``: the head of the read that the change was worked out from,
        whose incarnation the commit then names if this handle names none.
        """
        basis = self.head or on
        incarnation = self.incarnation or (on.incarnation if on else None)
        settings = (meta, labels, expires_at, expires_in)
        return Commit(
            id=id or new_id(),
            digest=digest_of(deletes, puts, appends, stages, settings),
            # Unused if the commit names one: see Commit.
            new_incarnation=incarnation or new_incarnation or new_id(),
            expect=expect,
            incarnation=incarnation,
            conditions=conditions,
            base=basis.version if basis else 0,
            seen=self.client.seen,
            deletes=deletes,
            puts=puts,
            appends=appends,
            stages=stages,
            meta=meta,
            labels=labels,
            expires_at=expires_at,
            expires_in=expires_in,
            returning=returning,
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
        if head.tip != commit.id:
            return result  # followed by others
        self.client.manifests.advance(self.key, head, result.epoch)
        if commit.stages:
            return result  # its rows are not in it
        if head.version == 1:
            rows = _rows_in(LOG, commit, 1)
            self._caches = {LOG: LogCache(LOG, head, result.epoch, LOG, rows)}
            return result
        for cache in self._caches.values():
            if (
                cache.epoch == result.epoch
                and cache.head.incarnation == head.incarnation
                and cache.head.version == head.version - 1
            ):
                for target in commit.deletes:
                    if isinstance(target, bytes):
                        cache.remove(target, successor(target))
                    else:
                        cache.remove(target.start, target.stop)
                rows = _rows_in(cache.prefix, commit, head.version)
                cache.update(head, [item for item in rows if item.key >= cache.low])
        return result


def sets_expiry(commit: Commit) -> bool:
    """Whether a commit says itself when the session expires."""
    return commit.expires_at is not None or commit.expires_in is not None


def _rows_in(prefix: bytes, commit: Commit, version: int) -> list[Item]:
    """The rows that a commit, which made ``version``, has written to a stream."""
    stop = rows_stop(prefix)
    items = [Item(key, value, version) for key, value in commit.puts if prefix <= key < stop]
    for append in commit.appends:
        if append.prefix == prefix:
            items += [
                Item(append_key(prefix, version, ordinal), value, version)
                for ordinal, value in enumerate(append.values)
            ]
    return items
