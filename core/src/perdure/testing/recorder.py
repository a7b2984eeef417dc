"""What clients asked of a backend and were told, noted call by call.

The notes of all clients of a session, put together, are what ``perdure.testing.history``
judges. They are plain structs, so that processes can hand them to one another as JSON.
"""

import time
from collections.abc import Callable

import msgspec

from perdure.backend import Backend
from perdure.errors import (
    CommitIdReused,
    Conflict,
    PerdureError,
    SessionDeleted,
    StageMissing,
    Unavailable,
)
from perdure.testing.faults import Forwarding
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Get,
    Head,
    HeadEntry,
    ListQuery,
    Page,
    Read,
    Rows,
    Scan,
    SessionKey,
    Snapshot,
)

REFUSALS = (CommitIdReused, Conflict, SessionDeleted, StageMissing, Unavailable)
"""Errors that say that nothing was applied."""


class Asked(Commit, frozen=True, gc=False, kw_only=True):
    """A commit as it is noted: with ``returning`` left out."""

    returning: tuple[()] = ()


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """One call by one client. A commit or deletion is noted twice: when it is sent, and when
    it is answered, if ever. What is sent again under its id is noted again. A read or a
    list is noted when it is answered, and what is staged when it is sent."""

    key: SessionKey
    invoked: float
    returned: float | None = None
    """By one clock for all clients (``time.monotonic`` is one within a host); ``None``: no
    answer yet, or none that says whether it was applied."""


class Write(Call, frozen=True, kw_only=True, gc=False, tag=True):
    """A commit."""

    commit: Asked
    version: int | None = None
    """What the acknowledgement said, as ``incarnation`` and ``replayed``; ``None``: none
    came."""
    incarnation: bytes = b""
    replayed: bool = False
    refusal: str = ""
    """The name of the error by which the backend said that it was not applied."""
    head: Head | None = None
    """The session's head, as the acknowledgement or the refusal had it."""

    @property
    def applied(self) -> bool:
        """This call applied it, and said so."""
        return self.version is not None and not self.replayed


class Part(Call, frozen=True, kw_only=True, gc=False, tag=True):
    """Items that were staged, or may have been."""

    incarnation: bytes
    stage: bytes
    puts: tuple[tuple[bytes, bytes], ...]
    head: None = None


class Deletion(Call, frozen=True, kw_only=True, gc=False, tag=True):
    """A deletion. It names what it deletes, by ``incarnation`` or an ``At``."""

    id: bytes
    expect: Expect | At
    incarnation: bytes | None
    deleted: bool | None = None
    """The answer; ``None``: none came, or ``refusal``."""
    refusal: str = ""
    head: Head | None = None


class Sight(Call, frozen=True, kw_only=True, gc=False, tag=True):
    """A read, or what a list showed of a session."""

    scans: tuple[Scan, ...] = ()
    """What was read; a single key as the range that holds but that."""
    rows: tuple[Rows, ...] = ()
    head: Head | None = None


AnyCall = Write | Part | Deletion | Sight


class Recorder(Forwarding):
    """Does what the backend behind it does, and gives a note of every call to ``note``."""

    def __init__(self, backend: Backend, note: Callable[[AnyCall], None]) -> None:
        super().__init__(backend)
        self.note = note

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        invoked = time.monotonic()
        snapshot = await super().read(key, *reads)
        self.note(
            Sight(
                key=key,
                invoked=invoked,
                returned=time.monotonic(),
                scans=tuple(_scan(read) for read in reads),
                rows=snapshot.rows,
                head=snapshot.head,
            )
        )
        return snapshot

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        fields = {name: getattr(commit, name) for name in FIELDS}
        write = Write(key=key, invoked=time.monotonic(), commit=Asked(**fields))
        self.note(write)
        try:
            made = await super().commit(key, commit)
        except REFUSALS as error:
            self.note(msgspec.structs.replace(write, **_refusal(error)))
            raise
        self.note(
            msgspec.structs.replace(
                write,
                returned=time.monotonic(),
                version=made.version,
                incarnation=made.incarnation,
                replayed=made.replayed,
                head=made.head,
            )
        )
        return made

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        now = time.monotonic()
        self.note(Part(key=key, invoked=now, incarnation=incarnation, stage=stage, puts=puts))
        await super().stage(key, incarnation, stage, puts)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        deletion = Deletion(
            key=key, invoked=time.monotonic(), id=id, expect=expect, incarnation=incarnation
        )
        self.note(deletion)
        try:
            deleted = await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        except REFUSALS as error:
            self.note(msgspec.structs.replace(deletion, **_refusal(error)))
            raise
        self.note(msgspec.structs.replace(deletion, returned=time.monotonic(), deleted=deleted))
        return deleted

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        invoked = time.monotonic()
        page = await super().list(tenant, kind, query)
        returned = time.monotonic()
        for entry in page.items:
            sight = Sight(key=entry.key, invoked=invoked, returned=returned, head=entry.head)
            self.note(sight)
        return page


FIELDS = tuple(name for name in Commit.__struct_fields__ if name != "returning")


def _scan(read: Read) -> Scan:
    return Scan(read.key, read.key + b"\0") if isinstance(read, Get) else read


def _refusal(error: PerdureError) -> dict[str, object]:
    head = error.head if isinstance(error, Conflict | SessionDeleted) else None
    return {"returned": time.monotonic(), "refusal": type(error).__name__, "head": head}
