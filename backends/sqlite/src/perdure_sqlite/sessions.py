"""Finding a session and burying one: what commits, deletions and the sweep share.

Everything here runs in the writer's transaction and on its connection.
"""

import json
import sqlite3

import msgspec

from perdure.backend import REMEMBERED_COMMITS, TOMBSTONE_MS
from perdure.types import Head, SessionKey

from perdure_sqlite import statements as sql
from perdure_sqlite.jobs import Transaction

ID = 16
ENTRY = ID + 8
"""Bytes in ``sessions.ids`` per commit: its id and its digest."""

DELETION = b""
"""The digest under which a deletion's id is remembered: no commit has it."""

HeadRow = tuple[int, bytes, bytes, int, int, int, int | None, bytes, int, str]
"""The columns of a head, in the order of ``statements``."""


class Session(msgspec.Struct, gc=False):
    """A session that is present, as the writer needs it."""

    sid: int
    head: Head
    longest: int
    ids: bytes
    recent_at: int
    tombstone: int | None


class Earlier(msgspec.Struct, frozen=True, gc=False):
    """An id that was used before, and for what."""

    digest: bytes
    incarnation: bytes
    version: int


def head_of(row: HeadRow) -> Head:
    """The head that a row's columns are."""
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
        labels=tuple(json.loads(row[9])) if row[9] else (),
    )


def labels_text(labels: tuple[str, ...]) -> str:
    """What ``sessions.labels`` holds."""
    return json.dumps(labels, ensure_ascii=False) if labels else ""


def has_expired(head: Head, now: int) -> bool:
    """Whether the session is absent although its row is there."""
    return head.expires_at is not None and head.expires_at <= now


def find(tx: Transaction, key: SessionKey) -> Session | None:
    """The session, unless it is absent. One found to have expired is buried."""
    row = tx.db.execute(sql.FIND_SESSION, (key.tenant, key.kind, key.id)).fetchone()
    if row is None:
        return None
    session = Session(row[0], head_of(row[1:11]), *row[11:15])
    if has_expired(session.head, tx.now):
        bury(tx, key, session, None)
        return None
    return session


def find_tombstone(db: sqlite3.Connection, key: SessionKey) -> int | None:
    """``tombstones.tid`` of the key, whether a session is present or not."""
    row = db.execute(sql.FIND_TOMBSTONE, (key.tenant, key.kind, key.id)).fetchone()
    return None if row is None else row[0]


def recall(
    db: sqlite3.Connection, session: Session | None, tombstone: int | None, id: bytes
) -> Earlier | None:
    """What ``id`` was used for before, if that is remembered."""
    if session is not None:
        ids = session.ids
        at = ids.find(id)
        while at > 0 and at % ENTRY:  # found across two entries
            at = ids.find(id, at + 1)
        if at >= 0:
            version = session.head.version - len(ids) // ENTRY + at // ENTRY + 1
            return Earlier(ids[at + ID : at + ENTRY], session.head.incarnation, version)
    if tombstone is not None:
        row = db.execute(sql.FIND_REMEMBERED, (tombstone, id)).fetchone()
        if row is not None:
            return Earlier(*row)
    return None


def remembers_since(
    db: sqlite3.Connection,
    session: Session | None,
    tombstone: int | None,
    incarnation: bytes | None,
    base: int,
) -> bool:
    """Whether the id of every commit after ``base`` of ``incarnation`` is remembered.

    An incarnation of which nothing is known never was, or is gone for longer than tombstones
    last. ``None`` means all that are known.
    """
    forgotten = session.head.version - len(session.ids) // ENTRY if session else 0
    if incarnation is None:
        if tombstone is None or forgotten:
            return not forgotten
        return db.execute(sql.INCOMPLETE_LIFE, (tombstone,)).fetchone() is None
    if session is not None and session.head.incarnation == incarnation:
        return forgotten <= base
    if tombstone is None:
        return True
    (first,) = db.execute(sql.FIRST_REMEMBERED, (tombstone, incarnation)).fetchone()
    return first is None or first <= base + 1


def remember(ids: bytes, id: bytes, digest: bytes) -> bytes:
    """``sessions.ids`` with one more commit, the oldest dropped if there are too many."""
    if len(id) != ID or len(digest) != ENTRY - ID:
        raise ValueError("a commit's id is 16 bytes, its digest 8")
    return (ids + id + digest)[-REMEMBERED_COMMITS * ENTRY :]


def bury(tx: Transaction, key: SessionKey, session: Session, deletion: bytes | None) -> None:
    """Remove a session and leave a tombstone. ``deletion``: the id of the delete, if it is one.

    Its items go with it, unless they are very many: then the rest goes later, unseen, since
    nothing refers to their ``sid`` any more.
    """
    name = (key.tenant, key.kind, key.id)
    head, ids, db = session.head, session.ids, tx.db
    tid = find_tombstone(db, key)
    if tid is None:
        tid = db.execute(sql.INSERT_TOMBSTONE, (*name, tx.now)).lastrowid
    else:
        db.execute(sql.DELETE_OLD_REMEMBERED, (tid, tx.now - TOMBSTONE_MS))
        db.execute(sql.UPDATE_TOMBSTONE, (tx.now, tid))
    first = head.version - len(ids) // ENTRY + 1
    used = [
        (tid, ids[at : at + ID], ids[at + ID : at + ENTRY], head.incarnation, version, tx.now)
        for version, at in enumerate(range(0, len(ids), ENTRY), first)
    ]
    if deletion is not None:
        used.append((tid, deletion, DELETION, head.incarnation, head.version, tx.now))
    db.executemany(sql.INSERT_REMEMBERED, used)

    for label in head.labels:
        db.execute(sql.DELETE_LABEL, (*name, label))
    stages = db.execute(sql.STAGES_OF_INCARNATION, (*name, head.incarnation))
    for (stage,) in stages.fetchall():
        drop_stage(db, stage)
    db.execute(sql.DELETE_SESSION, (session.sid,))
    if not remove_items(tx, session.sid):
        db.execute(sql.INSERT_DISCARDED, (session.sid,))
        tx.discarded = True


def remove_items(tx: Transaction, sid: int) -> bool:
    """Remove the items of a session that is gone; False if the transaction had too many."""
    if tx.removable > 0:
        removed = tx.db.execute(sql.DELETE_SOME_ITEMS, (sid, tx.removable)).rowcount
        tx.removable -= removed
    return tx.removable > 0


def drop_stage(db: sqlite3.Connection, stage: int) -> None:
    """Remove a stage and its parts."""
    db.execute(sql.DELETE_PARTS, (stage,))
    db.execute(sql.DELETE_STAGE, (stage,))
