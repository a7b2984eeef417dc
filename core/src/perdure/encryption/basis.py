"""What must be known of a session before rows for it can be sealed: its head, and in each log
the row that the next one will be linked to."""

from collections.abc import Mapping, Sequence

import msgspec

from perdure.encryption.rows import (
    ANY_LINK,
    LINK_BYTES,
    NO_LINK,
    is_log_row,
    link_of,
    tail_before,
)
from perdure.types import (
    At,
    Commit,
    Expect,
    Get,
    Head,
    Item,
    KeyRange,
    Read,
    Rows,
    Scan,
    Snapshot,
    append_key,
    appended_version,
    only_grew,
    same_state,
)

MAX_TAILS = 64
"""Of so many logs of a session the last row is remembered."""


class Basis(msgspec.Struct, frozen=True, gc=False):
    """A session as of one version."""

    head: Head | None
    tails: Mapping[bytes, bytes] = {}
    """By the prefix of its keys, of each log that is known: the last 12 bytes of the key of its
    last row, or ``NO_LINK``."""
    links: Mapping[bytes, bytes] = {}
    """Of log rows that are to be written again, by their key."""
    epoch: bytes = b""
    """As of the answer that told of it."""

    def allows(self, commit: Commit) -> bool:
        """Whether a commit's own expectations hold, conditions aside."""
        head = self.head
        if commit.incarnation is not None and (
            head is None or head.incarnation != commit.incarnation
        ):
            return False
        expect = commit.expect
        if isinstance(expect, At):
            return head is not None and (head.version, head.tip) == (
                expect.version,
                expect.tip,
            )
        return expect is Expect.ANY or (head is None) is (expect is Expect.ABSENT)

    def suffices(self, commit: Commit) -> bool:
        """Whether nothing more must be known to seal what a commit writes."""
        if not self.allows(commit):
            return False
        return self.head is None or (
            all(
                prefix in self.tails and not _shortens(commit.deletes, prefix)
                for prefix in logs_of(commit)
            )
            and all(key in self.links for key in rewritten(commit))
        )

    def link(self, prefix: bytes) -> bytes:
        """What the next row of a log is linked to."""
        return NO_LINK if self.head is None else self.tails.get(prefix, ANY_LINK)

    def with_more(self, known: "Basis | None") -> "Basis":
        """This, and what else was known of the same version."""
        if known is None or not same_state(known.head, self.head):
            return self
        tails = _bounded({**known.tails, **self.tails})
        return msgspec.structs.replace(self, tails=tails)


def logs_of(commit: Commit) -> list[bytes]:
    """The prefixes of the logs that a commit appends to."""
    return [
        append.prefix
        for append in commit.appends
        if append.values and is_log_row(append.values[0])
    ]


def rewritten(commit: Commit) -> list[bytes]:
    """The keys of the log rows that a commit writes again, whose links must be looked up."""
    return [
        key
        for key, value in commit.puts
        if is_log_row(value) and len(key) >= LINK_BYTES and tail_before(key) is None
    ]


class Look:
    """The reads that tell what must be known for a commit, and their result.

    One round trip, unless the end of a log has to be found behind much that goes.
    """

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._logs = logs_of(commit)
        self._rewritten = rewritten(commit)
        single = sum(isinstance(target, bytes) for target in commit.deletes)
        self._limit = 1 + single
        self._stops = {
            prefix: _bound(prefix + b"\xff", commit.deletes) for prefix in self._logs
        }

    def reads(self) -> tuple[Read, ...]:
        """The backend reads to be made."""
        scans = [
            Scan(prefix, self._stops[prefix], limit=self._limit, reverse=True)
            for prefix in self._logs
        ]
        return (*scans, *map(Get, self._rewritten))

    def basis(self, head: Head | None, rows: Sequence[Rows]) -> Basis | None:
        """What the reads have found; ``None``: they must be made again, as they reach further
        now."""
        if head is None:
            return Basis(None)
        logs = len(self._logs)
        tails: dict[bytes, bytes] = {}
        for prefix, found in zip(self._logs, rows[:logs], strict=True):
            tail = self._tail(prefix, found)
            if tail is None:
                deletes = (*self._commit.deletes, KeyRange(found.items[-1].key, None))
                self._stops[prefix] = _bound(self._stops[prefix], deletes)
            else:
                tails[prefix] = tail
        if len(tails) < logs:
            return None
        links = {
            key: link_of(found.items[0].value) if found.items else ANY_LINK
            for key, found in zip(self._rewritten, rows[logs:], strict=True)
        }
        return Basis(head, tails, links)

    def _tail(self, prefix: bytes, found: Rows) -> bytes | None:
        """What a row appended after this commit's deletions and puts is linked to."""
        length = len(prefix) + LINK_BYTES
        standing = [
            key
            for key, value in self._commit.puts
            if len(key) == length and key.startswith(prefix) and is_log_row(value)
        ]
        for item in found.items:
            if len(item.key) != length or not is_log_row(item.value):
                continue
            if not _goes(item.key, self._commit.deletes):
                standing.append(item.key)
                break
        else:
            if found.more:
                return None
        return max(standing)[-LINK_BYTES:] if standing else NO_LINK


def learnt(known: Basis | None, reads: Sequence[Read], snapshot: Snapshot) -> Basis | None:
    """What is known of a session after a read of it; ``None``: nothing new."""
    head = snapshot.head
    if head is None:
        return Basis(None)
    old = known.head if known else None
    tails: dict[bytes, bytes] = {}
    # In another epoch, what was known may never have been.
    lasting = known is not None and known.epoch == snapshot.epoch
    if known and old:
        if same_state(old, head):
            tails |= known.tails
        elif lasting and old.incarnation == head.incarnation and old.version > head.version:
            return None  # another operation has seen more by now
    for read, rows in zip(reads, snapshot.rows, strict=True):
        if not isinstance(read, Scan):
            continue
        found = _last_row(read, rows)
        if found is not None:
            tails[found.key[:-LINK_BYTES]] = found.key[-LINK_BYTES:]
        elif not rows.items and _to_the_end(read, read.start) and not read.since:
            tails[read.start] = NO_LINK
        elif not rows.items and known and old and lasting and only_grew(old, head):
            prefix = read.start[:-LINK_BYTES]
            tail = known.tails.get(prefix)
            if (
                tail is not None
                and _to_the_end(read, prefix)
                and read.start <= append_key(prefix, old.version + 1, 0)
                and read.since <= old.version
            ):
                tails[prefix] = tail  # nothing was appended since
    return Basis(head, _bounded(tails), epoch=snapshot.epoch)


def after(basis: Basis, commit: Commit, head: Head, epoch: bytes) -> Basis:
    """What is known of a session after a commit that had this basis and made this head."""
    tails: dict[bytes, bytes] = {}
    if not commit.stages:
        tails |= {
            prefix: tail
            for prefix, tail in basis.tails.items()
            if not _shortens(commit.deletes, prefix)
        }
        for key, _ in commit.puts:
            tails.pop(key[:-LINK_BYTES], None)
    for append in commit.appends:
        if append.values and is_log_row(append.values[-1]):
            last = len(append.values) - 1
            tails[append.prefix] = head.version.to_bytes(8, "big") + last.to_bytes(4, "big")
    return Basis(head, _bounded(tails), epoch=epoch)


def _last_row(scan: Scan, rows: Rows) -> Item | None:
    """The last row of a log, if a scan shows that it is that."""
    if rows.more and not scan.reverse:
        return None
    for item in rows.items if scan.reverse else reversed(rows.items):
        if is_log_row(item.value):
            # Rows too old for the scan may be behind one that was written again.
            recent = not scan.since or appended_version(item.key) > scan.since
            return item if recent and _to_the_end(scan, item.key[:-LINK_BYTES]) else None
    return None


def _to_the_end(scan: Scan, prefix: bytes) -> bool:
    """Whether a scan reaches to the end of a log."""
    return prefix[-1:] == b"\0" and (scan.stop is None or scan.stop >= prefix + b"\xff")


def _goes(key: bytes, deletes: Sequence[bytes | KeyRange]) -> bool:
    return any(
        key == target
        if isinstance(target, bytes)
        else target.start <= key and (target.stop is None or key < target.stop)
        for target in deletes
    )


def _shortens(deletes: Sequence[bytes | KeyRange], prefix: bytes) -> bool:
    """Whether deletions may reach into a log."""
    return any(
        target.startswith(prefix)
        if isinstance(target, bytes)
        else target.start < prefix + b"\xff" and (target.stop is None or target.stop > prefix)
        for target in deletes
    )


def _bound(stop: bytes, deletes: Sequence[bytes | KeyRange]) -> bytes:
    """The least key from which on all that is below ``stop`` goes."""
    bounded = stop
    while True:
        for target in deletes:
            if (
                isinstance(target, KeyRange)
                and target.start < bounded
                and (target.stop is None or target.stop >= bounded)
            ):
                bounded = target.start
                break
        else:
            return bounded


def _bounded(tails: dict[bytes, bytes]) -> Mapping[bytes, bytes]:
    """The newest of too many."""
    return dict(list(tails.items())[-MAX_TAILS:]) if len(tails) > MAX_TAILS else tails
