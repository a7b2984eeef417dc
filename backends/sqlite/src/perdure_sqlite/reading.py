"""Reads, as generators that stop where they become long.

A generator is started on the caller's own thread, because most reads take less time than
getting to another thread and back. What it yields means nothing but "this takes longer":
whoever drives it may resume it elsewhere, on the same connection and snapshot.
"""

import sqlite3
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
"""A scan that has found more than this is a long one: about 200 µs."""

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


def snapshot(
    db: sqlite3.Connection, clock: Callable[[], int], key: SessionKey, reads: Sequence[Read]
) -> Steps[Snapshot]:
    """:meth:`perdure.backend.Backend.read`, in one read transaction."""
    name = (key.tenant, key.kind, key.id)
    if not reads:
        row = db.execute(sql.FIND_HEAD, name).fetchone()  # a transaction by itself
        return Snapshot(*_present(row, clock()))
    db.execute("BEGIN")
    try:
        row = db.execute(sql.FIND_HEAD, name).fetchone()
        head, now = _present(row, clock())
        rows = yield from reading(db, row[0] if row else 0, head, reads)
        return Snapshot(head, now, rows)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def reading(
    db: sqlite3.Connection, sid: int, head: Head | None, reads: Sequence[Read]
) -> Steps[tuple[Rows, ...]]:
    """The rows of each read, within a transaction of the caller's."""
    if head is None:
        return (EMPTY,) * len(reads)
    found: list[Rows] = []
    for read in reads:
        if isinstance(read, Get):
            row = db.execute(sql.GET_ITEM, (sid, read.key)).fetchone()
            found.append(EMPTY if row is None else Rows((Item(*row),)))
        elif head.version <= read.since:
            found.append(EMPTY)
        else:
            found.append((yield from _scan(db, sid, read)))
    return tuple(found)


def _scan(db: sqlite3.Connection, sid: int, scan: Scan) -> Steps[Rows]:
    if scan.since:
        yield  # may pass over any number of items before it finds one
    limit, most = scan.limit, MAX_READ_BYTES
    if scan.max_bytes is not None:
        most = min(most, scan.max_bytes)
        if most <= 0:
            limit, most = 1, 1
    if limit is not None and limit <= 0:
        limit = 1  # ``more`` never comes with no items
    stop = BEYOND if scan.stop is None else scan.stop
    items: list[Item] = []
    size, pause, short = 0, min(SHORT_BYTES, most), SHORT_ROWS
    for key, value, version in db.execute(
        sql.SCAN_REVERSE if scan.reverse else sql.SCAN,
        # One more than the limit, to know whether there is more.
        (sid, scan.start, stop, scan.since, -1 if limit is None else limit + 1),
    ):
        if size >= pause or len(items) >= short:
            if size >= most:
                return Rows(items, more=True)
            yield
            pause, short = most, 1 << 62
        items.append(Item(key, value, version))
        size += len(value)
    if limit is not None and len(items) > limit:
        items.pop()
        return Rows(items, more=True)
    return Rows(items)


def _present(row: Any, now: int) -> tuple[Head | None, int]:
    if row is None:
        return None, now
    head = head_of(row[1:11])
    return (None if has_expired(head, now) else head), now
