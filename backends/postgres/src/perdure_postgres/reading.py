"""Reads: what is asked as parameters of ``read.sql``, and its rows as what was found."""

from collections.abc import Sequence

from perdure.types import (
    MAX_ITEM_KEY_BYTES,
    Get,
    Head,
    Item,
    Read,
    Rows,
    Scan,
    SessionKey,
    Snapshot,
)

from perdure_postgres.connection import Statement
from perdure_postgres.database import Row
from perdure_postgres.statements import Statements

MAX_READ_BYTES = 16 << 20
"""A scan stops with ``more`` once it has returned so much."""

FEW = 32
"""From so many items on, or one of its share of :data:`MAX_READ_BYTES`, a delta is no small one
any more."""

BEYOND = b"\xff" * (MAX_ITEM_KEY_BYTES + 1)
"""Above every item key."""

MOST_ROWS = 1 << 62

EMPTY = Rows()


def asking(statements: Statements, key: SessionKey, reads: Sequence[Read]) -> Statement:
    """The statement that answers ``reads``; :func:`snapshot` takes its rows."""
    if not reads:
        return statements.head(tenant=key.tenant, kind=key.kind, id=key.id)
    starts: list[bytes] = []
    stops: list[bytes] = []
    limits: list[int | None] = []
    sizes: list[int] = []
    since: list[int] = []
    reverse: list[bool] = []
    for read in reads:
        if isinstance(read, Get):
            starts.append(read.key)
            stops.append(read.key + b"\0")
            limits.append(1)
            sizes.append(MAX_READ_BYTES)
            since.append(0)
            reverse.append(False)
        else:
            starts.append(read.start)
            stops.append(BEYOND if read.stop is None else read.stop)
            # One more than the limit, to know whether there is more.
            limits.append(None if read.limit is None else at_least_one(read.limit) + 1)
            sizes.append(_size(read.max_bytes))
            since.append(read.since)
            reverse.append(read.reverse)
    return statements.read(
        tenant=key.tenant,
        kind=key.kind,
        id=key.id,
        starts=starts,
        stops=stops,
        limits=limits,
        sizes=sizes,
        since=since,
        reverse=reverse,
    )


def delta_of(reads: Sequence[Read]) -> Scan | None:
    """The one read of a writer who has read before, which ``delta.sql`` may answer."""
    if len(reads) != 1:
        return None
    (read,) = reads
    if not isinstance(read, Scan) or read.since <= 0 or read.reverse:
        return None
    return read if read.limit is None and read.max_bytes is None else None


def asking_delta(statements: Statements, key: SessionKey, scan: Scan) -> Statement:
    """The statement for such a read; :func:`small_delta` takes its rows."""
    return statements.delta(
        tenant=key.tenant,
        kind=key.kind,
        id=key.id,
        start=scan.start,
        stop=BEYOND if scan.stop is None else scan.stop,
        since=scan.since,
        limit=FEW,
        size=MAX_READ_BYTES // FEW,
    )


def small_delta(rows: list[Row], epoch: bytes) -> Snapshot | None:
    """What the rows of :func:`asking_delta` say. ``None``: it takes :func:`asking`."""
    if len(rows) >= FEW:
        return None
    first = rows[0]  # now, the head's columns, key, value, version
    head = head_of(first[1:11])
    if first[11] is None:
        return Snapshot(head, first[0], (EMPTY,), epoch)
    items = [Item(row[11], row[12], row[13]) for row in rows if row[12] is not None]
    if len(items) < len(rows):
        return None
    return Snapshot(head, first[0], (Rows(items),), epoch)


def snapshot(reads: Sequence[Read], rows: list[Row], epoch: bytes) -> Snapshot:
    """What the rows of :func:`asking` say."""
    if not reads:
        (row,) = rows
        return Snapshot(head_of(row[1:]), row[0], (), epoch)
    first = rows[0]  # key, value, version, place, tip, numbers, labels
    now, held, last_delete, created_at, updated_at, expires_at, meta_version = first[5]
    version = first[2]
    if version is None:
        return Snapshot(None, now, (EMPTY,) * len(reads), epoch)
    head = Head(
        version=version,
        incarnation=first[0],
        tip=first[4],
        last_delete=last_delete,
        created_at=created_at,
        updated_at=updated_at,
        expires_at=expires_at,
        meta=first[1],
        meta_version=meta_version,
        labels=tuple(first[6] or ()),
    )
    found: list[list[Item]]
    if len(reads) == 1:
        found = [[Item(row[0], row[1], row[2]) for row in rows[1:]]]
    else:
        found = [list[Item]() for _ in reads]
        for row in rows[1:]:
            place: int = row[3]
            found[place - 1].append(Item(row[0], row[1], row[2]))
    answers = [_rows(*pair, held) for pair in zip(reads, found, strict=True)]
    return Snapshot(head, now, tuple(answers), epoch)


def head_of(row: Row) -> Head | None:
    """The head that the columns ``version`` … ``labels`` are, in the order of ``head.sql``."""
    if row[0] is None:
        return None
    return Head(
        version=row[0],
        incarnation=row[1],
        tip=row[2],
        last_delete=row[3],
        created_at=row[4],
        updated_at=row[5],
        expires_at=row[6],
        meta=row[7],
        meta_version=row[8],
        labels=tuple(row[9] or ()),
    )


def at_least_one(limit: int) -> int:
    """The limit that a caller means: at least 1, and no more than the server can count."""
    return max(1, min(limit, MOST_ROWS))


def _size(max_bytes: int | None) -> int:
    return MAX_READ_BYTES if max_bytes is None else max(1, min(max_bytes, MAX_READ_BYTES))


def _rows(read: Read, items: list[Item], held: int) -> Rows:
    """What a read found; ``held``: bytes of all values of the session, at most."""
    if not items:
        return EMPTY
    if isinstance(read, Get):
        return Rows(items)
    if read.limit is not None and len(items) > at_least_one(read.limit):
        items.pop()
        return Rows(items, more=True)
    size = _size(read.max_bytes)
    return Rows(items, more=held > size and sum([len(item.value) for item in items]) >= size)
