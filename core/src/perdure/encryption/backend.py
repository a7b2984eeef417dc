"""A backend that keeps its rows sealed in another one."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from perdure.backend import Backend, Capabilities, Description
from perdure.encryption import Sealing
from perdure.encryption.basis import Basis, Look, after, learnt
from perdure.encryption.keys import KeyRing
from perdure.encryption.queues import Queues
from perdure.encryption.recent import Recent
from perdure.encryption.rows import (
    ANY_LINK,
    LINK_BYTES,
    OVERHEAD,
    UNBOUND,
    Seal,
    is_log_row,
    link_of,
    tail_before,
)
from perdure.errors import (
    CommitIdReused,
    Conflict,
    Corrupt,
    FormatTooNew,
    Outcome,
    OutcomeUnknown,
    Unavailable,
    Undecryptable,
)
from perdure.layout import successor
from perdure.types import (
    Append,
    At,
    Commit,
    Committed,
    Expect,
    Head,
    Item,
    Read,
    Rows,
    Scan,
    SessionKey,
    Snapshot,
    append_key,
    same_state,
)

SESSIONS = 4096
"""Of so many sessions used last the derived keys, and what new rows build on, are kept."""

PAGES = 256
"""Of so many pages read last it is known what the next one must continue."""

TRIES = 64
"""How often a commit is sealed anew at most because others were faster."""

PROMPT_TRIES = 16
LONGEST_PAUSE = 0.02
"""So many of these follow at once: whoever pauses while others do not gets in last of all. From
then on a random while passes before each, of so many seconds at most."""


class _Page(msgspec.Struct, frozen=True, gc=False):
    """Where a scan stopped."""

    incarnation: bytes
    version: int
    prefix: bytes
    """Of the log that it stopped in."""
    continued_by: bytes
    """``Seal.open`` takes it as ``before``."""


class EncryptedBackend(Sealing):
    """Seals the rows that it is given, opens those that it is asked for.

    Whoever uses it sees rows in plain, and a backend's usual behaviour. As a row is bound to
    the version that writes it, the one behind is always told which version is expected: a
    commit that does not care is sealed again, and sent again, when another was faster. What is
    known of the sessions used last makes that one round trip as a rule; else a small read
    comes before it.
    """

    def __init__(self, backend: Backend, ring: KeyRing) -> None:
        super().__init__(backend)
        self.ring = ring
        self._limits = backend.capabilities
        self.capabilities = _lowered(self._limits)
        self._known: Recent[SessionKey, Basis] = Recent(SESSIONS)
        self._seals: Recent[tuple[SessionKey, bytes], Seal] = Recent(SESSIONS)
        self._pages: Recent[tuple[SessionKey, bytes], _Page] = Recent(PAGES)
        self._queues = Queues()
        """Commits of this process to one session come one after another: each is sealed for the
        version that the one before it makes."""

    def _update_capabilities(self) -> None:
        """Connecting may have told more."""
        if self.backend.capabilities is not self._limits:
            self._limits = self.backend.capabilities
            self.capabilities = _lowered(self._limits)

    def seal_for(self, key: SessionKey, incarnation: bytes) -> Seal:
        """What seals and opens the rows of a session."""
        seal = self._seals.get((key, incarnation))
        if seal is None:
            seal = Seal(self.ring, key, incarnation)
            self._seals.put((key, incarnation), seal)
        return seal

    async def open(self) -> None:
        await super().open()
        self._update_capabilities()

    async def describe(self) -> Description:
        description = await super().describe()
        self._update_capabilities()
        how = f"AES-256-GCM, key {self.ring.primary!r}"
        if self.ring.accept_plaintext:
            how += "; rows in plain are accepted"
        details = {**description.details, "encryption": how}
        return msgspec.structs.replace(description, details=details)

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await self.backend.read(key, *reads)
        self._update_capabilities()
        basis = learnt(self._known.get(key), reads, snapshot)
        if basis is not None:
            self._known.put(key, basis)
        if not any(rows.items for rows in snapshot.rows):
            return snapshot
        rows = self._opened(key, snapshot.head, reads, snapshot.rows)
        return msgspec.structs.replace(snapshot, rows=rows)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await self.commit_linked(key, commit, {})

    async def commit_linked(
        self, key: SessionKey, commit: Commit, links: Mapping[bytes, bytes]
    ) -> Committed:
        """A commit, where the ``links`` of the log rows that it writes again are known."""
        digests = self.ring.digests(key, commit.id, commit.digest)
        if self.ring.accept_plaintext:
            digests.append(commit.digest)
        if not commit.resend:
            del digests[1:]
        try:
            for digest in digests[:-1]:
                # It may have been sent first when another key was the primary one.
                with suppress(CommitIdReused):
                    sent = msgspec.structs.replace(commit, digest=digest)
                    return await self._commit(key, sent, links)
            sent = msgspec.structs.replace(commit, digest=digests[-1])
            return await self._commit(key, sent, links)
        except OutcomeUnknown as error:
            error.commit = commit  # and not what it became on its way
            raise

    async def _commit(
        self, key: SessionKey, commit: Commit, links: Mapping[bytes, bytes]
    ) -> Committed:
        if not commit.puts and not commit.appends:
            return await self._sent(key, commit, commit, self._known.get(key))
        async with self._queues.turn(key):
            return await self._commit_sealed(key, commit, links)

    async def _commit_sealed(
        self, key: SessionKey, commit: Commit, links: Mapping[bytes, bytes]
    ) -> Committed:
        known = self._known.get(key)
        basis = msgspec.structs.replace(known, links=links) if known else None
        if basis is None or not basis.suffices(commit):
            basis = await self._looked(key, commit, links)
        returning: tuple[Read, ...] = ()
        for tries in range(1, TRIES + 1):
            look = Look(commit)
            sealed = self._sealed(key, commit, basis)
            sealed = msgspec.structs.replace(sealed, returning=commit.returning + returning)
            try:
                return await self._sent(key, commit, sealed, basis)
            except Conflict as error:
                now = Basis(error.head)
                if same_state(error.head, basis.head) or not now.allows(commit):
                    raise
                found = error.rows[len(commit.returning) :]
                told = found or error.head is None or not look.reads()
                seen = look.basis(error.head, found) if told else None
            if seen is None:
                basis = await self._looked(key, commit, links)
            else:
                basis = msgspec.structs.replace(seen, links={**seen.links, **links})
            if self.backend.capabilities.returning:
                returning = look.reads()  # others write here too: learn all at once
            if tries > PROMPT_TRIES:
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE))
        raise Unavailable(
            "others changed the session each time that this commit was sealed; nothing was "
            "written: try again"
        )

    async def _looked(
        self, key: SessionKey, commit: Commit, links: Mapping[bytes, bytes]
    ) -> Basis:
        """What must be known to seal a commit, from the backend."""
        look = Look(commit)
        while True:
            snapshot = await self.backend.read(key, *look.reads())
            self._update_capabilities()
            basis = look.basis(snapshot.head, snapshot.rows)
            if basis is not None:
                basis = basis.with_more(self._known.get(key))
                return msgspec.structs.replace(basis, links={**basis.links, **links})

    def _sealed(self, key: SessionKey, commit: Commit, basis: Basis) -> Commit:
        """The commit to be sent: sealed for the version after the one that it is based on."""
        head = basis.head
        if not basis.allows(commit):
            # It cannot be applied, but it may have been: then the backend knows its id. It
            # never was the first one, as no version has the id of a commit that is yet to be.
            return msgspec.structs.replace(
                commit,
                expect=At(1, commit.id),
                restored=None,
                deletes=(),
                puts=(),
                appends=(),
                stages=(),
            )
        version = head.version + 1 if head else 1
        if commit.restored:
            version = commit.restored.version
        seal = self.seal_for(key, head.incarnation if head else commit.new_incarnation).seal
        puts = tuple(
            (item_key, seal(item_key, row, version, self._link(item_key, row, basis)))
            for item_key, row in commit.puts
        )
        appends: list[Append] = []
        for append in commit.appends:
            link = basis.link(append.prefix)
            values: list[bytes] = []
            for ordinal, row in enumerate(append.values):
                item_key = append_key(append.prefix, version, ordinal)
                values.append(seal(item_key, row, version, link))
                link = item_key[-LINK_BYTES:]
            appends.append(Append(append.prefix, tuple(values)))
        return msgspec.structs.replace(
            commit,
            expect=At(head.version, head.tip) if head else Expect.ABSENT,
            puts=puts,
            appends=tuple(appends),
        )

    def _link(self, key: bytes, row: bytes, basis: Basis) -> bytes:
        """The link of a log row that is written under a key of its own."""
        if not is_log_row(row):
            return ANY_LINK
        return tail_before(key) or basis.links.get(key, ANY_LINK)

    async def _sent(
        self, key: SessionKey, commit: Commit, sealed: Commit, basis: Basis | None
    ) -> Committed:
        """Send a commit; ``sealed`` is ``commit`` with other rows."""
        try:
            result = await self.backend.commit(key, sealed)
        except Conflict as error:
            asked = len(commit.returning)
            opened = self._opened(key, error.head, commit.returning, error.rows[:asked])
            error.rows = opened + error.rows[asked:]
            raise
        self._update_capabilities()
        head = result.head
        if (
            basis is not None
            and head is not None
            and head.tip == commit.id
            and not result.replayed
            and head.version == (basis.head.version if basis.head else 0) + 1
            and (basis.head is None or basis.head.incarnation == head.incarnation)
        ):
            self._known.put(key, after(basis, commit, head, result.epoch))
        else:
            self._known.drop(key)
        try:
            rows = self._opened(
                key, head, commit.returning, result.rows[: len(commit.returning)]
            )
        except (Corrupt, FormatTooNew) as error:
            error.outcome = Outcome.APPLIED
            raise
        return msgspec.structs.replace(result, rows=rows)

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        seal = self.seal_for(key, incarnation).seal
        sealed: list[tuple[bytes, bytes]] = []
        for item_key, row in puts:
            # What the first row of a log will follow is up to the commit that adopts it.
            link = (tail_before(item_key) if is_log_row(row) else None) or ANY_LINK
            sealed.append((item_key, seal(item_key, row, UNBOUND, link)))
        await self.backend.stage(key, incarnation, stage, tuple(sealed))
        self._update_capabilities()

    def _opened(
        self,
        key: SessionKey,
        head: Head | None,
        reads: Sequence[Read],
        found: Sequence[Rows],
    ) -> tuple[Rows, ...]:
        """The rows that reads have found, in plain. Raises ``Undecryptable``."""
        if head is None:
            return tuple(found)
        if head.last_delete > head.version:
            raise Undecryptable(f"the head of session {key.id!r} is none that perdure has made")
        seal = self.seal_for(key, head.incarnation)
        opened: list[Rows] = []
        for read, rows in zip(reads, found, strict=False):
            items = rows.items
            if not items:
                opened.append(rows)
            elif not _is_answer(read, items):
                raise Undecryptable(f"items of session {key.id!r} are not those asked for")
            elif isinstance(read, Scan):
                before = self._continued(key, head, read, items)
                plain = seal.open(
                    items,
                    head.last_delete,
                    reverse=read.reverse,
                    since=read.since,
                    before=before,
                    start=items[-1].key if read.reverse and rows.more else read.start,
                )
                if rows.more and not read.since:
                    self._note_page(key, head, read, items[-1])
                opened.append(Rows(plain, rows.more))
            else:
                opened.append(Rows(seal.open(items, head.last_delete), rows.more))
        return tuple(opened)

    def _note_page(self, key: SessionKey, head: Head, scan: Scan, last: Item) -> None:
        """A scan ends here and will be gone on with."""
        if not is_log_row(last.value):
            return
        boundary = last.key if scan.reverse else successor(last.key)
        continued_by = link_of(last.value) if scan.reverse else last.key[-LINK_BYTES:]
        page = _Page(head.incarnation, head.version, last.key[:-LINK_BYTES], continued_by)
        self._pages.put((key, boundary), page)

    def _continued(
        self, key: SessionKey, head: Head, scan: Scan, items: Sequence[Item]
    ) -> bytes | None:
        """What the first row that a scan has found must continue, if that is known."""
        boundary = scan.stop if scan.reverse else scan.start
        if boundary is None or scan.since or not len(self._pages):
            return None
        page = self._pages.get((key, boundary))
        first = next((item for item in items if is_log_row(item.value)), None)
        if (
            page is None
            or first is None
            or first.key[:-LINK_BYTES] != page.prefix
            or page.incarnation != head.incarnation
            or page.version < head.last_delete  # rows between may be gone by right
        ):
            return None
        return page.continued_by


def _is_answer(read: Read, items: Sequence[Item]) -> bool:
    """Whether a read asks for the keys at both ends of what was found."""
    low, high = items[0].key, items[-1].key
    if not isinstance(read, Scan):
        return low == high == read.key
    if read.reverse:
        low, high = high, low
    return read.start <= low and (read.stop is None or high < read.stop)


def _lowered(limits: Capabilities) -> Capabilities:
    """What is left of a backend's limits when every row grows."""
    items = limits.max_commit_items
    if items * OVERHEAD > limits.max_commit_bytes // 2:
        items = max(1, limits.max_commit_bytes // 2 // OVERHEAD)
    return msgspec.structs.replace(
        limits,
        max_item_bytes=limits.max_item_bytes - OVERHEAD,
        max_commit_bytes=limits.max_commit_bytes - items * OVERHEAD,
        max_commit_items=items,
    )
