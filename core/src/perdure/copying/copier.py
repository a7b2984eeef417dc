"""Copying one session: look at both sides, write it in one commit, read it back."""

import asyncio
import random
from collections.abc import Callable
from enum import Enum

import msgspec

from perdure.backend import Backend, Capabilities
from perdure.client import new_id, stage_parts
from perdure.codec import Codec
from perdure.copying.marks import Standing, copy_id, origin, standing
from perdure.copying.reading import Changed, Reading
from perdure.errors import (
    Conflict,
    Corrupt,
    OutcomeUnknown,
    SessionDeleted,
    StageMissing,
    TooLarge,
)
from perdure.retry import retrying, send, send_delete
from perdure.types import (
    NEVER,
    At,
    Commit,
    Expect,
    Head,
    KeyRange,
    Restored,
    SessionKey,
    Snapshot,
)

ATTEMPTS = 10
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
"""How often a session that others change is begun at most, and seconds to wait in between."""

EVERYTHING = KeyRange(b"")

Puts = tuple[tuple[bytes, bytes], ...]


class Fate(Enum):
    """What became of one session."""

    COPIED = "copied"
    REPLACED = "replaced"
    """Copied in place of what was there."""
    PRESENT = "present"
    """It was there already."""
    ABSENT = "absent"
    """It was deleted, or has expired, since it was listed."""
    REFUSED = "refused"
    """The target has something else; nothing was done."""
    FAILED = "failed"
    """The target does not have it."""


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about one session."""

    key: SessionKey
    fate: Fate
    version: int | None = None
    """The source's, as of which it was copied or found there."""
    items: int = 0
    size: int = 0
    """Bytes of keys and values. 0, as ``items``, where they were not read."""
    digest: bytes | None = None
    """32 bytes that both have in common, where source and target were compared."""
    reason: str | None = None
    """Why it was refused or has failed, or why a copy was not compared."""


class Copier:
    """Copies sessions; see :func:`perdure.copying.copy_sessions`."""

    def __init__(
        self,
        source: Backend,
        target: Backend,
        *,
        overwrite: bool,
        verify: bool,
        deadline: float,
        advance: Callable[[int], object],
    ) -> None:
        self._source = source
        self._target = target
        self._overwrite = overwrite
        self._verify = verify
        self._deadline = deadline
        self._advance = advance
        self._codec = Codec()

    async def copy(self, key: SessionKey) -> Copied:
        """Copy one session, and say what became of it.

        Raises ``Unavailable``, ``OutcomeUnknown`` and what else concerns a whole store.
        """
        pause = FIRST_PAUSE
        for _ in range(ATTEMPTS):
            try:
                return await self._copy(key)
            except (Changed, Conflict, SessionDeleted, StageMissing):
                pass
            except OutcomeUnknown as error:
                if not error.forgotten:
                    raise
            except (TooLarge, Corrupt) as error:
                return Copied(key=key, fate=Fate.FAILED, reason=str(error))
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(pause * 2, LONGEST_PAUSE)
        reason = "others changed it faster than it could be copied; try again"
        return Copied(key=key, fate=Fate.FAILED, reason=reason)

    async def _copy(self, key: SessionKey) -> Copied:
        here = (await self._head(self._source, key)).head
        snapshot = await self._head(self._target, key)
        there = snapshot.head
        if here is None or _expired(here, snapshot.now):
            return Copied(key=key, fate=Fate.ABSENT)
        found = standing(here, there)
        if found is Standing.SAME:
            if not self._verify:
                return Copied(key=key, fate=Fate.PRESENT, version=here.version)
            compared = await self._compare(key, here)
            if compared.fate is Fate.PRESENT or not self._overwrite:
                return compared
        elif found not in (Standing.ABSENT, Standing.OLDER) and not self._overwrite:
            return Copied(key=key, fate=Fate.REFUSED, version=here.version, reason=found.value)
        return await self._write(key, here.incarnation, there, snapshot.now)

    async def _compare(self, key: SessionKey, here: Head) -> Copied:
        """Compare a session with what is said to be the same at the target."""
        source = Reading(self._source, key, self._deadline)
        target = Reading(self._target, key, self._deadline)
        for reading in (source, target):
            await reading.finish()
            if reading.head is None or origin(reading.head) != origin(here):
                raise Changed
        self._advance(source.size)
        if source.digest() != target.digest():
            return Copied(
                key=key,
                fate=Fate.REFUSED,
                version=here.version,
                reason="what is there differs, although it claims to be this very version",
            )
        return _done(key, Fate.PRESENT, source, here)

    async def _write(
        self, key: SessionKey, incarnation: bytes, there: Head | None, now: int
    ) -> Copied:
        """Put the source's session in place of what is ``there``, in one commit."""
        limits = self._target.capabilities
        reading = Reading(self._source, key, self._deadline)
        stage = new_id()
        staged = False
        while True:
            page = await reading.page()
            head = reading.head
            if head is None or head.incarnation != incarnation:
                raise Changed
            puts = tuple((item.key, item.value) for item in page)
            self._advance(_size(puts))
            _check_longest(puts, limits)
            if not reading.more and _fits((*puts, *reading.late.items()), limits):
                break
            await stage_parts(self._target, key, incarnation, stage, puts, self._deadline)
            staged, puts = True, ()
            if not reading.more:
                break
        puts += tuple(reading.late.items())
        _check_longest(puts, limits)
        if not _fits(puts, limits):
            raise Changed  # too much did, since it was staged
        present = there if there is not None and there.incarnation == incarnation else None
        # What is replaced may be ahead, and no version may come twice.
        version = head.version if present is None else max(head.version, present.version + 1)
        commit = Commit(
            id=copy_id(head, version),
            digest=reading.digest()[:8],
            new_incarnation=incarnation,
            restored=Restored(version, head.created_at, head.updated_at),
            expect=Expect.ABSENT if present is None else At(present.version, present.tip),
            incarnation=None if present is None else incarnation,
            base=0 if present is None else present.version,
            seen=now,
            # Also where nothing is: who has seen an earlier copy shall read it all anew.
            deletes=(EVERYTHING,),
            stages=(stage,) if staged else (),
            puts=puts,
            meta=head.meta if head.meta_version or present is not None else None,
            labels=head.labels,
            expires_at=NEVER if head.expires_at is None else head.expires_at,
        )
        if there is not None and present is None:
            await self._delete(key, there)
        await send(self._target, self._codec, key, commit, self._deadline)
        fate = Fate.COPIED if there is None else Fate.REPLACED
        return await self._check(key, commit, _done(key, fate, reading, head))

    async def _check(self, key: SessionKey, commit: Commit, copied: Copied) -> Copied:
        """Read a copy back. One that differs is removed, so that no run takes it for good."""
        unchecked = msgspec.structs.replace(
            copied,
            digest=None,
            reason="it was changed at the target before it could be compared",
        )
        back = Reading(self._target, key, self._deadline)
        try:
            await back.finish()
        except Changed:
            return unchecked
        if back.head is None or back.head.tip != commit.id:
            return unchecked
        if back.digest() == copied.digest:
            return copied
        await self._delete(key, back.head)
        return Copied(
            key=key,
            fate=Fate.FAILED,
            version=copied.version,
            reason="what was read back differs from what was written; it was removed again",
        )

    async def _head(self, backend: Backend, key: SessionKey) -> Snapshot:
        return await retrying(lambda: backend.read(key), self._deadline)

    async def _delete(self, key: SessionKey, head: Head) -> None:
        """Delete exactly this from the target. Raises ``Conflict``."""
        target, id, expect = self._target, new_id(), At(head.version, head.tip)
        await send_delete(
            lambda: target.delete(key, id=id, expect=expect, incarnation=head.incarnation),
            self._deadline,
        )


def _done(key: SessionKey, fate: Fate, reading: Reading, head: Head) -> Copied:
    return Copied(
        key=key,
        fate=fate,
        version=head.version,
        items=reading.count,
        size=reading.size,
        digest=reading.digest(),
    )


def _expired(head: Head, now: int) -> bool:
    return head.expires_at is not None and head.expires_at <= now


def _size(puts: Puts) -> int:
    return sum(len(key) + len(value) for key, value in puts)


def _check_longest(puts: Puts, limits: Capabilities) -> None:
    longest = max((len(value) for _, value in puts), default=0)
    if longest > limits.max_item_bytes:
        raise TooLarge(
            f"it has an item of {longest} bytes; the target takes {limits.max_item_bytes}"
        )


def _fits(puts: Puts, limits: Capabilities) -> bool:
    """Whether one commit takes these, and a deletion with them."""
    return _size(puts) <= limits.max_commit_bytes and len(puts) < limits.max_commit_items
