"""What handles share: the backend, opened late; the codec; reads and commits of any size."""

import asyncio
import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.backend import Backend, Capabilities
from perdure.background import keep_for_ever
from perdure.codec import COMPRESS_SEALED_MIN, Codec
from perdure.commits import check
from perdure.connection import Connection
from perdure.encryption.keys import KeyRing
from perdure.errors import (
    Conflict,
    SessionDeleted,
    StageMissing,
    TooLarge,
    Unavailable,
)
from perdure.events import OnEvent
from perdure.layout import successor
from perdure.manifest import Manifests
from perdure.request import Request, View
from perdure.retry import Deadline, retrying, send
from perdure.types import (
    Append,
    At,
    Commit,
    Committed,
    Expect,
    Get,
    Head,
    Item,
    KeyRange,
    Read,
    Scan,
    SessionKey,
    Snapshot,
    append_key,
    only_grew,
    same_state,
)

if TYPE_CHECKING:
    from perdure.merging import Lane

FIRST_PAGE = 64 << 10
LARGEST_PAGE = 16 << 20
"""Bytes that the pages of a bounded scan grow from and to."""

RESTARTS = 50
"""How often a read of several pages starts at most, if it must start again."""


_encode = msgspec.msgpack.Encoder().encode


def new_id() -> bytes:
    """A random id: of a commit, an incarnation or a stage."""
    return os.urandom(16)


def digest_of(
    deletes: Sequence[bytes | KeyRange],
    puts: Sequence[tuple[bytes, bytes]],
    appends: Sequence[Append],
    stages: Sequence[bytes],
    settings: Sequence[object],
) -> bytes:
    """The digest of a commit's content: what it writes, not what it requires."""
    content = _encode(
        (
            [d if isinstance(d, bytes) else (d.start, d.stop) for d in deletes],
            puts,
            [(a.prefix, a.values) for a in appends],
            stages,
            settings,
        )
    )
    return blake2b(content, digest_size=8).digest()


class Client(Connection):
    """One per store. Does I/O only when awaited."""

    def __init__(
        self,
        source: str | Backend,
        *,
        deadline: float,
        on_event: OnEvent | None = None,
        keys: KeyRing | None = None,
    ) -> None:
        self.codec = Codec() if keys is None else Codec(compress_min=COMPRESS_SEALED_MIN)
        self._told: tuple[int, float] | None = None
        """The backend's time as told last, and when it was asked, by our monotonic clock."""
        self.lanes: dict[tuple[asyncio.AbstractEventLoop, SessionKey], Lane | None] = {}
        """See :mod:`perdure.merging`."""
        self.manifests = Manifests()
        self.idle = 0
        """The idle expiry of sessions written to through this store, in ms; 0: none."""
        super().__init__(source, deadline=deadline, on_event=on_event, keys=keys)

    @property
    def seen(self) -> int | None:
        """The time that the backend told last; see ``Commit.seen``."""
        return None if self._told is None else self._told[0]

    def now(self) -> int | None:
        """The backend's time now, or later: by what it told last and what has passed since it
        was asked. ``None`` if it has told none. Wrong after a pause of the machine."""
        if self._told is None:
            return None
        told, asked = self._told
        return told + int((time.monotonic() - asked) * 1000) + 1

    def leave_to_parent(self) -> None:
        keep_for_ever(self.lanes)
        self.lanes = {}
        self.manifests = Manifests()
        super().leave_to_parent()

    async def snapshot(
        self, key: SessionKey, *reads: Read, within: Deadline | None = None
    ) -> Snapshot:
        """One backend read, repeated until it is answered."""
        backend, asked = self.backend, time.monotonic()
        snapshot = await retrying(lambda: backend.read(key, *reads), within or self.deadline)
        self._told = (snapshot.now, asked)
        return snapshot

    async def read(
        self, key: SessionKey, requests: Sequence[Request[Any]]
    ) -> tuple[View, list[list[Item]]]:
        """The items of several requests as of one version, in one round trip if they fit.

        What does not fit is read on, page by page. If the session changes meanwhile, what
        changed in the part already read comes with the next page, so that the whole is as of
        the last; only deletions, or more changes than a page holds, make it start again.
        """
        reads = [request.compile() for request in requests]
        for _ in range(RESTARTS):
            snapshot = await self.snapshot(key, *reads)
            view = View(key, snapshot.head, snapshot.now, self.codec, snapshot.epoch)
            found = [list(rows.items) for rows in snapshot.rows]
            more = [rows.more for rows in snapshot.rows]
            pages = 0
            while True:
                going_on = [
                    n
                    for n, request in enumerate(requests)
                    if more[n] and not request.enough(found[n], view)
                ]
                if not going_on:
                    return view, found
                pages += 1
                rest = [_rest(reads[n], found[n][-1].key, pages) for n in going_on]
                page = await self.snapshot(key, *rest)
                if page.epoch != view.epoch:
                    break  # the version may not be the one that was read so far
                if view.head and not same_state(page.head, view.head):
                    since = view.head.version
                    covered = [
                        _changes(read, found[n][-1].key if more[n] else None, since)
                        for n, read in enumerate(reads)
                    ]
                    page = await self.snapshot(key, *rest, *covered)
                    if page.epoch != view.epoch or not only_grew(view.head, page.head):
                        break
                    changed = page.rows[len(rest) :]
                    if any(rows.more for rows in changed):
                        break
                    for n, rows in enumerate(changed):
                        found[n] = _merged(reads[n], found[n], rows.items)
                view = View(key, page.head, page.now, self.codec, page.epoch)
                for n, rows in zip(going_on, page.rows, strict=False):
                    found[n] += rows.items
                    more[n] = rows.more
        raise Unavailable("the session changed faster than it could be read; try again")

    async def commit(
        self, key: SessionKey, commit: Commit, *, within: float | None = None
    ) -> Committed:
        """Apply a commit of any size, exactly once, in ``within`` seconds or the deadline.

        One round trip if it is within the backend's limits; else its parts are staged first
        and become visible at once. Raises ``TooLarge`` for a single item over the limit.
        """
        backend, asked = self.backend, time.monotonic()
        seconds = self.deadline if within is None else within
        size = longest = 0
        count = fixed = len(commit.deletes) + len(commit.conditions)
        for item_key, value in commit.puts:
            size += len(item_key) + len(value)
            longest = max(longest, len(value))
            count += 1
        for append in commit.appends:
            count += len(append.values)
            for value in append.values:
                size += len(value) + len(append.prefix) + 12
                longest = max(longest, len(value))
        limits = backend.capabilities
        if longest > limits.max_item_bytes or not _fits(size, count, limits):
            # A backend that has not connected yet may not know how much it can take.
            await retrying(backend.open, seconds)
            limits = backend.capabilities
        if longest > limits.max_item_bytes:
            raise TooLarge(
                f"an item of {longest} bytes; this backend takes {limits.max_item_bytes}"
            )
        if fixed > limits.max_commit_items:
            raise TooLarge(
                f"{fixed} deletions and conditions in one commit; this backend takes "
                f"{limits.max_commit_items}"
            )
        if _fits(size, count, limits):
            result = await send(backend, self.codec, key, commit, seconds)
        else:
            result = await self._commit_staged(key, commit, Deadline(seconds))
        self._told = (result.now, asked)
        return result

    async def _commit_staged(
        self, key: SessionKey, commit: Commit, deadline: Deadline
    ) -> Committed:
        backend = self.backend
        while True:
            required = [c.key for c in commit.conditions if c.key is not None]
            snapshot = await self.snapshot(key, *map(Get, required), within=deadline)
            head = snapshot.head
            found = {item.key: item.version for rows in snapshot.rows for item in rows.items}
            # Nothing is staged in vain where it shows already that it cannot be applied.
            check(head, commit, lambda item, found=found: found.get(item, 0))
            stage = new_id()
            incarnation = head.incarnation if head else commit.new_incarnation
            parts = _placed(commit, head)
            await stage_parts(backend, key, incarnation, stage, parts, deadline)
            # Appended rows carry the version in their keys, so it must be the next one.
            staged = msgspec.structs.replace(
                commit,
                puts=(),
                appends=(),
                stages=(*commit.stages, stage),
                incarnation=head.incarnation if head else None,
                expect=At(head.version, head.tip) if head else Expect.ABSENT,
                base=head.version if head else 0,
            )
            try:
                return await send(backend, self.codec, key, staged, deadline)
            except (Conflict, SessionDeleted, StageMissing) as error:
                if isinstance(error, Conflict) and same_state(error.head, head):
                    raise  # no other writer: a condition does not hold
                if not await deadline.pause():
                    raise Unavailable(
                        "others changed the session each time that this commit was ready; "
                        "nothing was written: try again"
                    ) from error


def _fits(size: int, count: int, limits: Capabilities) -> bool:
    """Whether one commit takes so many bytes and items."""
    return size <= limits.max_commit_bytes and count <= limits.max_commit_items


async def stage_parts(
    backend: Backend,
    key: SessionKey,
    incarnation: bytes,
    stage: bytes,
    puts: Sequence[tuple[bytes, bytes]],
    within: float | Deadline,
) -> None:
    """Stage any number of parts, in as few calls as the backend's limits allow.

    Each is repeated until it is answered. Raises ``Unavailable``.
    """
    limits = backend.capabilities
    batches: list[list[tuple[bytes, bytes]]] = [[]]
    room = limits.max_commit_bytes
    for put in puts:
        size = len(put[0]) + len(put[1])
        if batches[-1] and (size > room or len(batches[-1]) == limits.max_commit_items):
            batches.append([])
            room = limits.max_commit_bytes
        batches[-1].append(put)
        room -= size
    for batch in batches:
        await retrying(
            lambda batch=tuple(batch): backend.stage(key, incarnation, stage, batch), within
        )


def _placed(commit: Commit, head: Head | None) -> list[tuple[bytes, bytes]]:
    """All that a commit writes, under the keys that it will have if it comes next."""
    version = head.version + 1 if head else 1
    puts = list(commit.puts)
    for append in commit.appends:
        puts += [
            (append_key(append.prefix, version, ordinal), value)
            for ordinal, value in enumerate(append.values)
        ]
    return puts


def _rest(read: Read, last: bytes, page: int) -> Read:
    """The part of a scan behind the last key read; each page may be larger than the one
    before, as the estimate that bounded the first was too low."""
    assert isinstance(read, Scan)
    if read.max_bytes is not None:
        larger = min(max(read.max_bytes, FIRST_PAGE) << 2 * page, LARGEST_PAGE)
        read = msgspec.structs.replace(read, max_bytes=larger)
    if read.reverse:
        return msgspec.structs.replace(read, stop=last)
    return msgspec.structs.replace(read, start=successor(last))


def _changes(read: Read, last: bytes | None, since: int) -> Read:
    """What changed since a version in the part of a read up to the last key read."""
    if isinstance(read, Get):
        return read
    read = msgspec.structs.replace(read, since=max(since, read.since), limit=None)
    if last is None:
        return read
    if read.reverse:
        return msgspec.structs.replace(read, start=last)
    return msgspec.structs.replace(read, stop=successor(last))


def _merged(read: Read, old: list[Item], changed: Sequence[Item]) -> list[Item]:
    items = {item.key: item for item in old}
    items.update((item.key, item) for item in changed)
    reverse = isinstance(read, Scan) and read.reverse
    return [items[key] for key in sorted(items, reverse=reverse)]
