"""What changes a database: commits, stages, deletions and the sweep.

Each function is one job for the writer, which calls it inside a transaction. It refuses, by
raising, before it writes, so that the jobs that share the transaction never need undoing. (A
session found to have expired is buried first, which holds whatever comes of the job.)
"""

import sqlite3
from collections.abc import Sequence

from perdure.backend import STAGE_MS, TOMBSTONE_MS
from perdure.commits import check, check_expect, next_head
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    SessionDeleted,
    StageMissing,
)
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    KeyRange,
    Read,
    Rows,
    SessionKey,
    append_key,
)

from perdure_sqlite import statements as sql
from perdure_sqlite.jobs import Transaction
from perdure_sqlite.reading import BEYOND, EMPTY, finish, reading
from perdure_sqlite.sessions import (
    DELETION,
    Session,
    bury,
    drop_stage,
    find,
    find_tombstone,
    labels_text,
    may_be_repeated,
    recall,
    remember,
    remembers_since,
    remove_items,
)

RECENCY_LAG = 60_000
"""By how many ms ``sessions.recent_at`` may be behind ``updated_at``."""


def commit(tx: Transaction, key: SessionKey, commit: Commit) -> Committed:
    """:meth:`perdure.backend.Backend.commit`."""
    db = tx.db
    session = find(tx, key)
    head = session.head if session else None
    tombstone = session.tombstone if session else find_tombstone(db, key)
    earlier = recall(db, session, tombstone, commit.id)
    if earlier is not None:
        if earlier.digest != commit.digest:
            raise CommitIdReused("this commit id was used before for other content")
        return Committed(
            version=earlier.version,
            incarnation=earlier.incarnation,
            head=head,
            now=tx.now,
            replayed=True,
            rows=_answer(tx, session, commit.returning),
        )
    if may_be_repeated(tx, key, session, commit) and not remembers_since(
        tx, session, tombstone, commit
    ):
        raise OutcomeUnknown(
            "too many commits followed to tell whether this one was applied", forgotten=True
        )

    def version_of(item: bytes) -> int:
        assert session is not None  # check asks only then
        row = db.execute(sql.ITEM_VERSION, (session.sid, item)).fetchone()
        return 0 if row is None else row[0]

    try:
        check(head, commit, version_of)
    except (Conflict, SessionDeleted) as error:
        if isinstance(error, Conflict):
            error.now = tx.now
            error.rows = _answer(tx, session, commit.returning)
        raise
    made = next_head(head, commit, tx.now)
    stages = _stages(tx, key, made.incarnation, commit.stages)
    past = session.ids if session and not commit.restored else b""
    ids = remember(past, commit, tx.now)
    longest = _longest(tx, commit, stages)
    if session is None:
        sid = _create(tx, key, made, longest, ids, tombstone)
    else:
        sid = session.sid
        _update(tx, key, session, made, max(longest, session.longest), ids)
    _write(tx, sid, made.version, commit, stages)
    if commit.resend:
        db.execute(sql.REPLACE_RESENT, (key.tenant, key.kind, key.id, tx.now))
    return Committed(
        version=made.version,
        incarnation=made.incarnation,
        head=made,
        now=tx.now,
        rows=finish(reading(db, sid, made, longest, commit.returning))
        if commit.returning
        else (),
    )


def stage(
    tx: Transaction,
    key: SessionKey,
    incarnation: bytes,
    name: bytes,
    puts: tuple[tuple[bytes, bytes], ...],
) -> None:
    """:meth:`perdure.backend.Backend.stage`."""
    full = (key.tenant, key.kind, key.id, incarnation, name)
    row = tx.db.execute(sql.FIND_STAGE, full).fetchone()
    if row is None:
        number = tx.db.execute(sql.INSERT_STAGE, (*full, tx.now)).lastrowid
        assert number is not None
    else:
        (number,) = row
        tx.db.execute(sql.TOUCH_STAGE, (tx.now, number))
    version = _placeholder(tx, key, incarnation, -number)
    for item, value in puts:
        if tx.db.execute(sql.ITEM_VERSION, (-number, item)).fetchone() is None:
            tx.db.execute(sql.INSERT_PART, (-number, item, version, value))


LEAST = {0: 0, 1: 2, 2: 1 << 7, 3: 1 << 15, 4: 1 << 23, 6: 1 << 31, 8: 1 << 47}
"""A number that SQLite stores in so many bytes. 0 and 1 take none:
https://www.sqlite.org/fileformat2.html#record_format."""


def _width(number: int) -> int:
    """In how many bytes SQLite stores a number."""
    if number in (0, 1):
        return 0
    bits = (number if number >= 0 else ~number).bit_length() + 1
    return next(width for width in LEAST if bits <= 8 * width)


def _placeholder(tx: Transaction, key: SessionKey, incarnation: bytes, owner: int) -> int:
    """The version under which to store parts, so that adopting them as a rule changes no
    record's length: then SQLite writes but the page that begins it, however long it is."""
    target = (key.tenant, key.kind, key.id, incarnation)
    row: tuple[int, int] | None = tx.db.execute(sql.FIND_TARGET, target).fetchone()
    if row is None:
        last = tx.db.execute(sql.LAST_SID).fetchone()
        row = (1 if last is None else last[0] + 1), 0
    sid, version = row
    return LEAST.get(_width(sid) + _width(version + 1) - _width(owner), 0)


def delete(
    tx: Transaction,
    key: SessionKey,
    id: bytes,
    expect: Expect | At,
    incarnation: bytes | None,
) -> bool:
    """:meth:`perdure.backend.Backend.delete`."""
    session = find(tx, key)
    tombstone = session.tombstone if session else find_tombstone(tx.db, key)
    earlier = recall(tx.db, session, tombstone, id)
    if earlier is not None:
        if earlier.digest != DELETION:
            raise CommitIdReused("this id was used by a commit")
        return True
    if session is None:
        return False
    if incarnation is not None and session.head.incarnation != incarnation:
        return False
    check_expect(session.head, expect)
    bury(tx, key, session, id)
    return True


def sweep(tx: Transaction, limit: int) -> int:
    """Remove up to ``limit`` things that nobody can see; how many it removed."""
    db, removed = tx.db, purge(tx)
    for name in db.execute(sql.EXPIRED, (tx.now, limit)).fetchall():
        if tx.removable <= 0:
            break
        find(tx, SessionKey(*name))
        removed += 1
    lapsed = (tx.now - TOMBSTONE_MS, max(0, limit - removed))
    for (tid,) in db.execute(sql.LAPSED_TOMBSTONES, lapsed).fetchall():
        db.execute(sql.DELETE_REMEMBERED, (tid,))
        db.execute(sql.DELETE_TOMBSTONE, (tid,))
        removed += 1
    forgotten = (tx.now - STAGE_MS, max(0, limit - removed))
    for (number,) in db.execute(sql.FORGOTTEN_STAGES, forgotten).fetchall():
        drop_stage(db, number)
        removed += 1
    old = (tx.now - TOMBSTONE_MS, max(0, limit - removed))
    return removed + db.execute(sql.DELETE_OLD_RESENT, old).rowcount


def purge(tx: Transaction) -> int:
    """Remove items of discarded sessions, as many as one transaction should.

    Returns of how many sessions it removed some. ``tx.discarded`` tells whether more are left.
    """
    sessions = 0
    while (row := tx.db.execute(sql.FIND_DISCARDED).fetchone()) is not None:
        if tx.removable <= 0:
            tx.discarded = True
            break
        sessions += 1
        if remove_items(tx, row[0]):
            tx.db.execute(sql.DELETE_DISCARDED, row)
    return sessions


def _answer(
    tx: Transaction, session: Session | None, reads: tuple[Read, ...]
) -> tuple[Rows, ...]:
    """``Commit.returning`` where nothing was written."""
    if session is None:
        return (EMPTY,) * len(reads)
    return finish(reading(tx.db, session.sid, session.head, session.longest, reads))


def _stages(
    tx: Transaction, key: SessionKey, incarnation: bytes, names: tuple[bytes, ...]
) -> list[int]:
    found: list[int] = []
    for name in names:
        row = tx.db.execute(
            sql.FIND_STAGE, (key.tenant, key.kind, key.id, incarnation, name)
        ).fetchone()
        if row is None:
            raise StageMissing("a stage named by the commit does not exist (any more)")
        found.append(row[0])
    return found


def _longest(tx: Transaction, commit: Commit, stages: Sequence[int]) -> int:
    """Bytes of the longest value that the commit brings."""
    lengths = [len(value) for _, value in commit.puts]
    for append in commit.appends:
        lengths += [len(value) for value in append.values]
    for number in stages:
        lengths += tx.db.execute(sql.LONGEST_PART, (-number,)).fetchone()
    return max(lengths, default=0)


def _create(
    tx: Transaction,
    key: SessionKey,
    head: Head,
    longest: int,
    ids: bytes,
    tombstone: int | None,
) -> int:
    name = (key.tenant, key.kind, key.id)
    sid = tx.db.execute(
        sql.INSERT_SESSION,
        (
            *name,
            head.version,
            head.incarnation,
            head.tip,
            head.last_delete,
            head.created_at,
            head.updated_at,
            head.expires_at,
            head.meta,
            head.meta_version,
            labels_text(head.labels),
            longest,
            ids,
            head.updated_at,
            tombstone,
        ),
    ).lastrowid
    assert sid is not None
    for label in head.labels:
        tx.db.execute(sql.INSERT_LABEL, (*name, label, head.updated_at, sid))
    return sid


def _update(
    tx: Transaction, key: SessionKey, session: Session, head: Head, longest: int, ids: bytes
) -> None:
    db, sid, old = tx.db, session.sid, session.head
    db.execute(
        sql.UPDATE_SESSION,
        (
            head.version,
            head.tip,
            head.last_delete,
            head.updated_at,
            head.meta,
            head.meta_version,
            labels_text(head.labels),
            longest,
            ids,
            sid,
        ),
    )
    if head.expires_at != old.expires_at:
        db.execute(sql.UPDATE_EXPIRY, (head.expires_at, sid))
    stale = abs(head.updated_at - session.recent_at) >= RECENCY_LAG
    recent_at = head.updated_at if stale else session.recent_at
    if stale:
        db.execute(sql.UPDATE_RECENCY, (recent_at, sid))
    if stale or head.labels != old.labels:
        name = (key.tenant, key.kind, key.id)
        for label in old.labels:
            db.execute(sql.DELETE_LABEL, (*name, label))
        for label in head.labels:
            db.execute(sql.INSERT_LABEL, (*name, label, recent_at, sid))


def _write(
    tx: Transaction, sid: int, version: int, commit: Commit, stages: Sequence[int]
) -> None:
    db = tx.db
    for target in commit.deletes:
        if isinstance(target, KeyRange):
            stop = BEYOND if target.stop is None else target.stop
            db.execute(sql.DELETE_ITEMS, (sid, target.start, stop))
        else:
            db.execute(sql.DELETE_ITEM, (sid, target))
    for number in stages:
        db.execute(sql.DELETE_REPLACED, (sid, -number))
        db.execute(sql.ADOPT_PARTS, (sid, version, -number))
        drop_stage(db, number)
    for key, value in commit.puts:
        _put(db, sid, key, version, value)
    for append in commit.appends:
        for ordinal, value in enumerate(append.values):
            _put(db, sid, append_key(append.prefix, version, ordinal), version, value)


def _put(db: sqlite3.Connection, sid: int, key: bytes, version: int, value: bytes) -> None:
    if db.execute(sql.INSERT_ITEM, (sid, key, version, value, sid, key)).rowcount == 0:
        db.execute(sql.REPLACE_ITEM, (version, value, sid, key))
