"""Sealing what is stored anew, with the primary key, while others go on writing.

When it is done everywhere, the other keys can be taken out of the ring.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

import msgspec

from perdure.backend import Backend
from perdure.client import digest_of, new_id
from perdure.codec import Codec
from perdure.encryption.backend import EncryptedBackend
from perdure.encryption.keys import KEYS_VARIABLE
from perdure.encryption.rows import (
    ANY_LINK,
    LINK_BYTES,
    NO_LINK,
    is_log_row,
    is_sealed,
    key_id_of,
    link_of,
    tail_before,
    tail_in,
)
from perdure.errors import Conflict, Corrupt, FormatTooNew, InvalidKeys, SessionDeleted
from perdure.forwarding import Forwarding
from perdure.layout import successor
from perdure.retry import Deadline, retrying, send
from perdure.store import Store
from perdure.types import (
    Commit,
    Committed,
    Condition,
    Expect,
    Head,
    Item,
    Scan,
    SessionKey,
    Snapshot,
)
from perdure.workers import for_each

AT_ONCE = 8
"""Sessions sealed anew at the same time."""

PAGE_ITEMS = 256
PAGE_BYTES = 1 << 20
"""So much is sealed anew by one commit at most."""

PASSES = 5
"""How often a session is gone through at most. The last time it is only looked at; the second
as a rule."""


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one session."""

    key: SessionKey
    items: int = 0
    """Rows it has."""
    sealed: int = 0
    """Rows sealed anew."""
    left: int = 0
    """Rows that still are not sealed with the primary key, as others go on writing such."""
    reason: str | None = None
    """Why it could not be finished."""

    @property
    def done(self) -> bool:
        """Whether every row of it was read back, and is sealed with the primary key."""
        return not self.left and self.reason is None


async def rotate(
    store: Store,
    *,
    tenants: Sequence[str] | None = None,
    deadline: float = 30.0,
    report: Callable[[Rotated], object],
    advance: Callable[[int], object] = int,
) -> None:
    """Seal all sessions of a store (of these tenants) with the primary key, some at a time.

    Rows in plain too, if the key ring accepts them. ``report`` is called once per session as it
    is done, ``advance`` with the number of rows as they are sealed. Any number of writers may
    go on meanwhile; those that do not have the new ring yet leave rows behind, which are
    reported. May be stopped at any moment and run again. What was staged before and becomes
    visible later (within a day) is not seen: run it once more before a key is destroyed.

    A session that is sealed anew counts as changed: its version and ``updated_at`` grow.

    Raises ``InvalidKeys`` if the store has no keys; ``Unavailable``, ``OutcomeUnknown``.
    """
    backend = store.backend
    if not isinstance(backend, EncryptedBackend):
        raise InvalidKeys("this store has no keys: give it some, or set " + KEYS_VARIABLE)

    async def work(key: SessionKey) -> None:
        report(await rotate_session(backend, key, deadline=deadline, advance=advance))

    async with aclosing(_keys(store, tenants)) as keys:
        await for_each(keys, work, at_once=AT_ONCE)


async def _keys(
    store: Store, tenants: Sequence[str] | None
) -> AsyncGenerator[SessionKey, None]:
    names = [tenant async for tenant in store.tenants()] if tenants is None else tenants
    for tenant in dict.fromkeys(names):
        scope = store.tenant(tenant)
        for kind in [kind async for kind in scope.kinds()]:
            async with aclosing(scope.kind(kind).list()) as entries:
                async for entry in entries:
                    yield entry.key


async def rotate_session(
    backend: EncryptedBackend,
    key: SessionKey,
    *,
    deadline: float = 30.0,
    advance: Callable[[int], object] = int,
) -> Rotated:
    """Seal one session with the primary key, in commits of bounded size, and read it back.

    Every row is checked on the way. Raises ``Unavailable``, ``OutcomeUnknown``.
    """
    rotation = _Rotation(backend, key, deadline, advance)
    try:
        for number in range(PASSES):
            await rotation.go_through(last=number == PASSES - 1)
            if not rotation.left:
                break
    except SessionDeleted:
        return Rotated(key=key, sealed=rotation.sealed)
    except (Corrupt, FormatTooNew) as error:
        return Rotated(key=key, items=rotation.items, sealed=rotation.sealed, reason=str(error))
    return Rotated(key=key, items=rotation.items, sealed=rotation.sealed, left=rotation.left)


class _Linked(Forwarding):
    """Tells the backend what it would have to look up."""

    def __init__(self, backend: EncryptedBackend, links: Mapping[bytes, bytes]) -> None:
        super().__init__(backend)
        self._sealing = backend
        self._links = links

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await self._sealing.commit_linked(key, commit, self._links)


class _Rotation:
    """The work on one session."""

    def __init__(
        self,
        backend: EncryptedBackend,
        key: SessionKey,
        deadline: float,
        advance: Callable[[int], object],
    ) -> None:
        self._backend = backend
        self._stored: Backend = backend.backend
        self._key = key
        self._deadline = deadline
        self._advance = advance
        self._codec = Codec()
        self.items = self.sealed = self.left = 0

    async def go_through(self, *, last: bool) -> None:
        """Read all rows, and seal those anew that need it, unless it is the last time.

        ``left`` is then how many there were. Raises ``Undecryptable``, ``SessionDeleted``.
        """
        limits = self._backend.capabilities
        items = max(1, min(PAGE_ITEMS, limits.max_commit_items // 2))
        size = min(PAGE_BYTES, limits.max_commit_bytes // 2)
        self.items = self.left = 0
        start = b""
        before: Item | None = None
        deadline = Deadline(self._deadline)
        while True:
            scan = Scan(start, limit=items, max_bytes=size)
            snapshot = await retrying(
                lambda scan=scan: self._stored.read(self._key, scan), self._deadline
            )
            head = snapshot.head
            if head is None:
                self.items = self.left = 0
                return
            rows = snapshot.rows[0]
            plain = self._backend.seal_for(self._key, head.incarnation).open(
                rows.items, head.last_delete, start=start
            )
            stale = [n for n, item in enumerate(rows.items) if self._is_stale(item.value)]
            if stale and not last:
                links = _links(rows.items, before)
                puts = [(plain[n].key, plain[n].value) for n in stale]
                seen = [Condition(rows.items[n].key, rows.items[n].version) for n in stale]
                try:
                    await self._seal(head, snapshot, puts, seen, links)
                except Conflict:
                    if not await deadline.pause():
                        raise
                    continue  # somebody has written one of them meanwhile: look again
                self.sealed += len(stale)
                self._advance(len(stale))
            self.items += len(rows.items)
            self.left += len(stale)
            if not rows.more:
                return
            before = rows.items[-1]
            start = successor(before.key)
            deadline = Deadline(self._deadline)

    def _is_stale(self, value: bytes) -> bool:
        return not is_sealed(value) or key_id_of(value) != self._backend.ring.primary

    async def _seal(
        self,
        head: Head,
        snapshot: Snapshot,
        puts: Sequence[tuple[bytes, bytes]],
        seen: Sequence[Condition],
        links: Mapping[bytes, bytes],
    ) -> None:
        """Write the same rows under the same keys, if nobody has written to them since.

        Without deletions: in plain they are what they were, so that what others keep of them
        stays right.
        """
        commit = Commit(
            id=new_id(),
            digest=digest_of((), puts, (), (), ()),
            new_incarnation=head.incarnation,
            incarnation=head.incarnation,
            expect=Expect.PRESENT,
            conditions=tuple(seen),
            base=head.version,
            seen=snapshot.now,
            puts=tuple(puts),
        )
        backend = _Linked(self._backend, links)
        await send(backend, self._codec, self._key, commit, self._deadline)


def _links(items: Sequence[Item], before: Item | None) -> dict[bytes, bytes]:
    """What the log rows among them are linked to: as they say, and as they stand where they
    were written in plain."""
    links: dict[bytes, bytes] = {}
    for item in items:
        if is_log_row(item.value):
            link = link_of(item.value)
            if link == ANY_LINK and not is_sealed(item.value):
                prefix = item.key[:-LINK_BYTES]
                link = tail_before(item.key) or tail_in(prefix, before) or NO_LINK
            links[item.key] = link
        before = item
    return links
