"""The contract: what a backend author implements. The narrow waist of perdure.

A backend is an ordered map per session with an atomic conditional commit. Conflict handling,
retries, chunking, encoding, caching and forks are written once, above it. ``perdure.testing``
tells an author when a backend is done.

Rules that hold for every method:

* **Linearizable per session.** Once a commit or delete is acknowledged, every later read by
  anyone sees it, and never half of it, for as long as ``capabilities.durability`` promises.
* **Absence.** A session that was never made, was deleted, or has expired is absent. Expiry is
  judged by the backend's clock at each operation, swept or not, and never early.
* **Isolation.** Keys that differ in any byte never touch one another, whatever they contain.
* **Errors.** ``Unavailable`` promises that nothing was applied; after that promise cannot be
  given any more (the request may have arrived), it is ``OutcomeUnknown``. A driver's own
  exceptions never escape.
* **Cancellation.** Cancelling the awaiting task leaves the backend usable and the operation
  whole or not done.
* **Forks.** After a fork the child neither uses, closes nor frees a backend of its parent; it
  makes another one.
* **Threads and loops.** Methods may be awaited from any event loop, unless
  ``capabilities.loop_bound``: then from that of the first call only, and the store sees to it.
"""

import asyncio
from abc import ABC, abstractmethod
from enum import Enum

import msgspec

from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    HeadEntry,
    ListQuery,
    Page,
    Read,
    SessionKey,
    Snapshot,
    same_state,
)

CONTRACT = 1
"""Version of this contract. A plugin states the one it was written for."""

REMEMBERED_COMMITS = 64
"""A resend is recognised while at most this many commits followed its ``base``."""

TOMBSTONE_MS = 24 * 3600 * 1000
"""How long, at least, a deleted session's incarnation and commit ids are remembered."""

STAGE_MS = 24 * 3600 * 1000
"""How long, at least, staged parts wait for a commit to refer to them."""


class Wait(Enum):
    """How :meth:`Backend.wait` learns of a change."""

    PUSH = "push"
    POLL = "poll"


class Expiry(Enum):
    """How expired sessions are removed (they are invisible at once in any case)."""

    NATIVE = "native"
    SWEEP = "sweep"


class Durability(Enum):
    """What an acknowledged commit survives."""

    NONE = "none"
    """Nothing: it is gone with the process."""
    PROCESS = "process"
    """A crash of any process; perhaps not one of the operating system or a power loss."""
    HOST = "host"
    """A crash of the host or a power loss, as far as its disk keeps what it has synced."""
    REPLICATED = "replicated"
    """The loss of a host."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the store must know of a backend. Facts, not switches."""

    max_item_bytes: int
    """Longest value of one item."""
    max_commit_bytes: int
    """Most bytes (keys and values of puts and appends) of one commit; what its stages hold is
    not counted."""
    max_commit_items: int
    """Most items written, deletions, conditions and stages of one commit; what the stages hold
    is not counted."""
    max_read_bytes: int
    """Each scan stops with ``more`` near this many bytes of values."""
    multi_range: bool = True
    """Several reads are one round trip. False: the backend issues them between two equal
    head checks; the result is as consistent, but dearer."""
    returning: bool = True
    """``Commit.returning`` is evaluated. False: results carry no rows."""
    recency_lag: int = 0
    """By how many ms ``Order.RECENCY`` may be behind."""
    list_lag: int = 0
    """Within how many ms after the acknowledgement of its creation a session is listed."""
    clock_error: int = 0
    """By how many ms ``now`` may be wrong where the engine has no clock of its own."""
    wait: Wait = Wait.POLL
    expiry: Expiry = Expiry.SWEEP
    loop_bound: bool = False
    """All methods must be awaited from the event loop of the first call."""
    durability: Durability
    durability_note: str
    """One sentence for people: what exactly an acknowledgement promises."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backend keeps its sessions, for people. Never holds a secret."""

    backend: str
    location: str
    durability: str
    details: dict[str, str] = {}
    """Further facts: versions, modes, sizes."""


class Backend(ABC):
    """What a backend implements. Construction does no I/O; :meth:`open` or first use does."""

    capabilities: Capabilities

    async def open(self) -> None:
        """Connect and check the stored format now rather than at first use. Idempotent.

        Raises ``Unavailable``, ``FormatTooNew``, ``Corrupt``.
        """

    @abstractmethod
    async def describe(self) -> Description:
        """Where the data is and how durable. Connects; raises as :meth:`open` does."""

    @abstractmethod
    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        """The head, and any number of items and ranges, in one round trip.

        All rows and the head are of one version. With no ``reads``, the head alone. A scan
        that would exceed ``max_read_bytes`` returns ``more`` and is continued by the caller
        with another read from behind its last key; the caller compares the heads.

        Absent session: ``head is None`` and every ``Rows`` is empty. Writes nothing.
        Raises ``Unavailable``.
        """

    @abstractmethod
    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        """Apply ``commit`` atomically, or raise and apply none of it.

        In this order, and atomically with the change itself:

        1. ``commit.id`` is remembered (without ``resend`` it is enough to look at commits after
           ``base``): the same ``digest`` returns the first result with
           ``replayed=True``, whatever else the commit asks and even if the session has been
           deleted since; another raises ``CommitIdReused``. Deletions' ids count as used.
        2. ``resend`` is set, or some commit with ``resend`` was applied under this key at
           ``seen`` or later and less than ``TOMBSTONE_MS`` ago (perhaps this one, whose own
           resend has overtaken it); and an id from since the commit was first sent may have
           been forgotten: raise ``OutcomeUnknown`` with ``forgotten=True``. At least the last
           ``REMEMBERED_COMMITS`` ids of each incarnation are remembered, across restarts, and
           for ``TOMBSTONE_MS`` after its end. Nothing is missing if all commits after ``base``
           are remembered (of ``incarnation``, if it names one; else of all that the key ever
           had) or, where the backend keeps their times, all that were made at ``seen`` or
           later; a clock behind ``seen`` has been set back, and its times prove nothing.
        3. ``incarnation`` is given and is not that of the session present: ``SessionDeleted``
           (with the successor's head, if any).
        4. ``expect`` does not hold: ``Conflict``. Absent, with ``PRESENT`` or an ``At``:
           ``Conflict`` with ``head=None``.
        5. A condition does not hold: ``Conflict``.
        6. A stage does not exist for this session's (or ``new_``) incarnation:
           ``StageMissing``.
        7. The session is absent: it is created with ``new_incarnation`` at version 1. Else
           its version grows by one. Either way ``restored`` has the last word. ``deletes``,
           then ``stages``, ``puts`` and ``appends`` are applied and stamped with the new
           version; ``tip`` becomes ``commit.id``; ``last_delete`` the new version if there
           are ``deletes``, matching or not.

        A commit that writes nothing is a commit all the same. ``returning`` is evaluated in
        the same atomic step (4 and 5 attach it to the error). Limits are those of
        ``capabilities``; the caller keeps them. Raises also ``Unavailable`` and
        ``OutcomeUnknown`` (see the module's rules).
        """

    @abstractmethod
    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        """Write parts of a large commit ahead of it, invisible until it names ``stage``.

        ``incarnation`` is that of the session, or the one the coming commit will propose: the
        session need not exist. Parts accumulate per (session, incarnation, stage); a key
        staged before under the same stage keeps its first value, so a repeat is harmless.
        No version is made. Each call is atomic by itself and within ``max_commit_bytes`` and
        ``max_commit_items``. Parts no commit has named after ``STAGE_MS`` may be swept;
        deleting an incarnation removes those that wait for it, and no others. Raises
        ``Unavailable`` or ``OutcomeUnknown``; either way it may be repeated.
        """

    @abstractmethod
    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        """Remove the session: its head, items and stages, at once for every reader.

        True if this call, or an earlier one with the same ``id``, deleted it: repeating a
        delete never touches a successor. False if there is nothing to delete: the session is
        absent, or ``incarnation`` names another than the one present. ``Conflict`` if
        ``expect`` is an ``At`` that does not hold (``ANY`` and ``PRESENT`` are alike here;
        ``ABSENT`` makes no sense and raises ``ValueError``). ``CommitIdReused`` if a commit
        had this ``id``.

        The key keeps a tombstone for at least ``TOMBSTONE_MS`` after the end of the session,
        or after an expiry was noticed: incarnation, remembered commit ids, and ``id``. Repeats
        are recognised for as long. Raises also ``Unavailable``, ``OutcomeUnknown``.
        """

    @abstractmethod
    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        """One page of a tenant's sessions of one kind, heads only, no absent ones.

        Costs in proportion to the page, not to the tenant. A session that exists throughout
        the paging is returned exactly once with ``Order.ID``. Raises ``Unavailable``.
        """

    @abstractmethod
    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        """One page of the tenants that have or lately had a session, in UTF-8 byte order."""

    @abstractmethod
    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        """One page of the kinds of a tenant's sessions, as :meth:`tenants` lists tenants."""

    @abstractmethod
    async def sweep(self, *, limit: int = 1000) -> int:
        """Remove what nobody can see: expired sessions, lapsed tombstones, forgotten stages.

        Takes at most about ``limit`` of them and returns how many it removed; 0 means that
        nothing is left to do. Never needed for correctness. Safe to run anywhere, any time.
        """

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        """Return the session's head as soon as it differs from ``after``, or after ``timeout``.

        ``after=None`` waits for the session to exist. ``timeout`` is in seconds. The result is
        a hint to read, not a promise: it may equal ``after``, and several changes may show as
        one. This default polls from 10 ms, backing off to 500 ms.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        pause = 0.01
        while True:
            head = (await self.read(key)).head
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not same_state(head, after):
                return head
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.5)

    @abstractmethod
    async def aclose(self) -> None:
        """Finish what is under way, release everything. Idempotent; later use is an error
        (``StoreClosed``)."""
