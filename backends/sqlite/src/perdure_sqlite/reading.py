"""Reads, as generators that stop where they become long.

A generator is started on the caller's own thread, because most reads take less time than
getting to another thread and back. What it yields means nothing but "this takes longer":
whoever drives it may resume it elsewhere, on the same connection and snapshot.
"""

import sqlite3
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

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

from perdure_sqlite import statements as sql
from perdure_sqlite.sessions import has_expired, head_of

MAX_READ_BYTES = 16 << 20
"""A scan stops with ``more`` once it has returned so much."""

SHORT_BYTES = 256 << 10
SHORT_ROWS = 128
"""What is read beyond this is a long read; up to there it takes some 150 µs."""

BEYOND = b"\xff" * (MAX_ITEM_KEY_BYTES + 1)
"""Above every item key."""

EMPTY = Rows()

T = TypeVar("T")
Steps = Generator[None, None, T]


def finish(steps: Steps[T]) -> T:
    """Run a generator to its end, here and now."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


class _Allowance:
    """How much more may be read before the read is a long one."""

    __slots__ = ("bytes", "rows")

    def __init__(self) -> None:
        self.bytes = SHORT_BYTES
        self.rows = SHORT_ROWS

    def lift(self) -> None:
        """Nobody is kept waiting any more."""
        self.bytes = self.rows = sys.maxsize


def snapshot(
    db: sqlite3.Connection, clock: Callable[[], int], key: SessionKey, reads: Sequence[Read]
) -> Steps[Snapshot]:
    """:meth:`perdure.backend.Backend.read`, in one read transaction."""
    name = (key.tenant, key.kind, key.id)
    if not reads:
        row = db.execute(sql.FIND_HEAD, name).fetchone()  # a transaction by itself
        now = clock()
        return Snapshot(_present(row, now), now)
    db.execute("BEGIN")
    try:
        row = db.execute(sql.FIND_HEAD, name).fetchone()
        now = clock()
        head = _present(row, now)
        if head is None:
            return Snapshot(None, now, (EMPTY,) * len(reads))
        return Snapshot(head, now, (yield from reading(db, row[0], head, row[11], reads)))
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def reading(
    db: sqlite3.Connection, sid: int, head: Head, longest: int, reads: Sequence[Read]
) -> Steps[tuple[Rows, ...]]:
    """The rows of each read of a session that is present, within a transaction."""
    allowance = _Allowance()
    if longest > SHORT_BYTES:  # any row may be more than is to be read here
        allowance.bytes = 0
    found: list[Rows] = []
    for read in reads:
        if isinstance(read, Get):
            if allowance.bytes <= 0 or allowance.rows <= 0:
                yield
                allowance.lift()
            row = db.execute(sql.GET_ITEM, (sid, read.key)).fetchone()
            if row is None:
                found.append(EMPTY)
            else:
                found.append(Rows((Item(*row),)))
                allowance.bytes -= len(row[1])
            allowance.rows -= 1
        elif head.version <= read.since:
            found.append(EMPTY)
        else:
            if read.since and head.version > allowance.rows:
                yield  # may pass over any number of items before it finds one
                allowance.lift()
            found.append((yield from _scan(db, sid, read, allowance)))
    return tuple(found)


def _scan(db: sqlite3.Connection, sid: int, scan: Scan, allowance: _Allowance) -> Steps[Rows]:
    limit, most = scan.limit, MAX_READ_BYTES
    if scan.max_bytes is not None:
        most = min(most, scan.max_bytes)
        if most <= 0:
            limit, most = 1, 1
    if limit is not None and limit <= 0:
        limit = 1  # ``more`` never comes with no items
    stop = BEYOND if scan.stop is None else scan.stop
    if allowance.bytes <= 0:  # not even the first row
        yield
        allowance.lift()
    items: list[Item] = []
    size, rows, pause = 0, allowance.rows, min(allowance.bytes, most)
    for key, value, version in db.execute(
        sql.SCAN_REVERSE if scan.reverse else sql.SCAN,
        # One more than the limit, to know whether there is more.
        (sid, scan.start, stop, scan.since, -1 if limit is None else limit + 1),
    ):
        if size >= pause or len(items) >= rows:
            if size >= most:
                return Rows(items, more=True)
            yield
            allowance.lift()
            rows, pause = allowance.rows, most
        items.append(Item(key, value, version))
        size += len(value)
    allowance.bytes -= size
    allowance.rows -= len(items)
    if limit is not None and len(items) > limit:
        items.pop()
        return Rows(items, more=True)
    return Rows(items)


def _present(row: Any, now: int) -> Head | None:
    if row is None:
        return None
    head = head_of(row[1:11])
    return None if has_expired(head, now) else head
