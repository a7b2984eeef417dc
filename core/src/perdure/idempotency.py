"""Appends under a key of the caller's: applied once, however often and wherever repeated.

A keyed append writes two items beside its rows, in the same commit. Under ``k`` + key stands a
digest of what was appended, on the condition that nothing was there, or only what has lapsed.
Appended under ``k`` + key + NUL is where the last entry stands, so that the key of this item
holds the version of the commit, and does so in a copy of the session too. Who finds the first
alive is told what the second says. Both lapse a day later by the backend's clock.
"""

from collections.abc import Sequence
from hashlib import blake2b

from perdure.client import new_id
from perdure.errors import (
    CommitIdReused,
    Conflict,
    Corrupt,
    Outcome,
    PerdureError,
    SessionDeleted,
    Unavailable,
)
from perdure.handle import Handle
from perdure.layout import IDEMPOTENCY
from perdure.merging import last_entry
from perdure.position import Position, position_of
from perdure.retry import Deadline
from perdure.types import (
    Append,
    Condition,
    Item,
    Scan,
    append_key,
    appended_version,
    check_identifier,
)

MAX_KEY_BYTES = 400
"""Longest idempotency key, in UTF-8 bytes."""

KEPT_MS = 24 * 3600 * 1000
"""How long a key is remembered at least, by the backend's clock."""

MARGIN_MS = 1000
"""So much longer it is remembered: the time that a commit may take on its way."""


async def append_once(
    handle: Handle, prefix: bytes, entries: Sequence[object], name: str
) -> Position:
    """Append entries to a stream, unless that was done under this name in the last 24 hours;
    either way the position that the last one got.

    Raises ``CommitIdReused`` if other entries, or another stream, had the name.
    """
    return await KeyedAppend(handle, prefix, entries, name).apply()


class KeyedAppend:
    """An append under a key: what it looks for, and what it writes."""

    def __init__(
        self, handle: Handle, prefix: bytes, entries: Sequence[object], name: str
    ) -> None:
        self._handle = handle
        self._prefix = prefix
        self._name = check_identifier("idempotency key", name, MAX_KEY_BYTES)
        self._key = IDEMPOTENCY + self._name.encode()
        self._part = handle.client.codec.encode_entries(entries)
        # No prefix begins another, so the two joined say which is which.
        self._digest = blake2b(prefix + self._part.body, digest_size=16).digest()
        # All that this key has, and nothing that longer ones have: a name holds no NUL.
        self._scan = Scan(self._key, self._key + b"\1")

    async def apply(self) -> Position:
        """One round trip where the backend has told its time before; one more for the first
        call of a client, and for a key in use where commits do not return rows."""
        deadline = Deadline(self._handle.client.deadline)
        found: Sequence[Item] = ()
        now = self._handle.client.now()
        if now is None:
            found, now = await self._look(deadline)
        first = True
        while True:
            position = self._appended(found, now)
            if position is not None:
                return position
            if not first and not await deadline.pause():
                raise Unavailable("others used and left the key each time; nothing was written")
            try:
                return await self._append(self._version(found), now)
            except Conflict as conflict:
                if conflict.rows:
                    found, now = conflict.rows[0].items, conflict.now
                else:
                    found, now = await self._look(deadline)
            first = False

    async def _look(self, deadline: Deadline) -> tuple[Sequence[Item], int]:
        """What the key has, and the backend's time."""
        handle = self._handle
        snapshot = await handle.client.snapshot(handle.key, self._scan, within=deadline)
        return snapshot.rows[0].items, snapshot.now

    def _version(self, found: Sequence[Item]) -> int:
        """The version at which the key was used; 0: never, as far as is known."""
        return found[0].version if found and found[0].key == self._key else 0

    def _appended(self, found: Sequence[Item], now: int) -> Position | None:
        """The position that the entries have got, if they were appended under this key and it
        has not lapsed. Raises ``CommitIdReused``."""
        if not self._version(found):
            return None
        key, codec = self._handle.key, self._handle.client.codec
        expires_at = codec.expires_at(found[0].value)
        if expires_at is not None and expires_at <= now:
            return None
        if codec.open_own(key, found[0], bytes) != self._digest:
            raise CommitIdReused(
                f"other entries were appended under the key {self._name!r} less than 24 hours "
                "ago; nothing was written"
            )
        last = found[-1]  # of the latest use: earlier ones may not have been swept yet
        if last is found[0]:
            raise Corrupt(f"the key {self._name!r} of session {key.id!r} has lost its position")
        ordinal, index = codec.open_own(key, last, tuple[int, int])
        row = append_key(self._prefix, appended_version(last.key), ordinal)
        return position_of(row, index)

    async def _append(self, lapsed: int, now: int) -> Position:
        """Append if the key is still as it was found: absent (0), or lapsed at a version."""
        handle = self._handle
        id = new_id()
        rows = handle.client.codec.rows(id, (self._part,))
        ordinal, index = last_entry(handle.client.codec, rows, self._part.count)
        expires_at = self._expiry(now)
        use, place = self._items(ordinal, index, expires_at)
        result = await handle.commit(
            id=id,
            conditions=(Condition(self._key, lapsed),),
            puts=((self._key, use),),
            appends=(Append(self._prefix, rows), Append(self._key + b"\0", (place,))),
            returning=(self._scan,),
        )
        if expires_at < result.now + KEPT_MS:
            await self._renew(result.version, ordinal, index, result.now)
        return position_of(append_key(self._prefix, result.version, ordinal), index)

    def _items(self, ordinal: int, index: int, expires_at: int) -> tuple[bytes, bytes]:
        """What is kept under the key, and appended under it."""
        key, codec = self._handle.key, self._handle.client.codec
        return (
            codec.seal(key, self._digest, expires_at=expires_at),
            codec.seal(key, (ordinal, index), expires_at=expires_at),
        )

    def _expiry(self, now: int) -> int:
        """When a key lapses that is used now. The clock of who judges it may be ahead of that
        of who uses it by twice the backend's error."""
        error = self._handle.client.backend.capabilities.clock_error
        return now + KEPT_MS + MARGIN_MS + 2 * error

    async def _renew(self, version: int, ordinal: int, index: int, now: int) -> None:
        """Keep the key for as long as promised: the commit took long, or the machine slept
        since the backend told its time."""
        use, place = self._items(ordinal, index, self._expiry(now))
        try:
            await self._handle.commit(
                conditions=(Condition(self._key, version),),
                puts=((self._key, use), (append_key(self._key + b"\0", version, 0), place)),
            )
        except (Conflict, SessionDeleted):
            return  # it is gone, with its session
        except PerdureError as error:
            applied = Unavailable(
                f"the entries are appended, but their key may be forgotten early: {error}"
            )
            applied.outcome = Outcome.APPLIED
            raise applied from error
