"""Finding a session and burying one: what commits, deletions and the sweep share.

Everything here runs in the writer's transaction and on its connection.
"""

import json
import sqlite3

import msgspec

from perdure.backend import REMEMBERED_COMMITS, TOMBSTONE_MS
from perdure.types import Commit, Head, SessionKey

from perdure_sqlite import statements as sql
from perdure_sqlite.jobs import Transaction

ID = slice(0, 16)
DIGEST = slice(16, 24)
TIME = slice(24, 28)
ENTRY = 28
"""Parts and length of what ``sessions.ids`` holds of a commit."""

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
        at = session.ids.find(id)
        while at > 0 and at % ENTRY:  # found across two entries
            at = session.ids.find(id, at + 1)
        if at >= 0:
            entry = session.ids[at : at + ENTRY]
            version = oldest_version(session) + at // ENTRY
            return Earlier(entry[DIGEST], session.head.incarnation, version)
    if tombstone is not None:
        row = db.execute(sql.FIND_REMEMBERED, (tombstone, id)).fetchone()
        if row is not None:
            return Earlier(*row)
    return None


def may_be_repeated(
    tx: Transaction, key: SessionKey, session: Session | None, commit: Commit
) -> bool:
    """Whether a commit was perhaps sent before: it says so, or its resend may have overtaken
    it on the way. Not if nothing has followed what its writer knew."""
    if commit.resend:
        return True
    if session is not None and (commit.incarnation, commit.base) == (
        session.head.incarnation,
        session.head.version,
    ):
        return False
    row = tx.db.execute(sql.FIND_RESENT, (key.tenant, key.kind, key.id)).fetchone()
    return row is not None and row[0] >= max(told(tx, commit), tx.now - TOMBSTONE_MS)


def told(tx: Transaction, commit: Commit) -> int:
    """Since when, in ms, the commit can have been applied; 0 if that is not known.

    A clock that is behind ``seen`` has been set back, and its times prove nothing.
    """
    return 0 if commit.seen is None or commit.seen > tx.now else commit.seen


def remembers_since(
    tx: Transaction, session: Session | None, tombstone: int | None, commit: Commit
) -> bool:
    """Whether no commit since this one was first sent can have been forgotten.

    An incarnation of which nothing is known never was, or is gone for longer than tombstones
    last. A commit that names none may have been applied to any.
    """
    lives: list[tuple[bytes, int, int]] = []  # incarnation, and of its oldest: version, time
    if tombstone is not None:
        lives += tx.db.execute(sql.OLDEST_REMEMBERED, (tombstone,))
    if session is not None:
        made_at = int.from_bytes(session.ids[TIME], "big")
        lives.append((session.head.incarnation, oldest_version(session), made_at))
    base = commit.base
    if commit.incarnation is None:
        base = 0  # a version means nothing without its incarnation
    else:
        lives = [life for life in lives if life[0] == commit.incarnation]
    seen = told(tx, commit) // 1000
    return all(version <= base + 1 or made_at < seen for _, version, made_at in lives)


def oldest_version(session: Session) -> int:
    """That of the first commit in ``ids``."""
    return session.head.version - len(session.ids) // ENTRY + 1


def remember(ids: bytes, commit: Commit, now: int) -> bytes:
    """``sessions.ids`` with one more commit, the oldest dropped if there are too many."""
    entry = commit.id + commit.digest + (now // 1000).to_bytes(4, "big")
    if len(commit.id) != ID.stop or len(entry) != ENTRY:
        raise ValueError("a commit's id is 16 bytes, its digest 8")
    return (ids + entry)[-REMEMBERED_COMMITS * ENTRY :]


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
    used: list[tuple[int | None, bytes, bytes, bytes, int, int, int]] = []
    for version, at in enumerate(range(0, len(ids), ENTRY), oldest_version(session)):
        entry = ids[at : at + ENTRY]
        made_at = int.from_bytes(entry[TIME], "big")
        used.append((tid, entry[ID], entry[DIGEST], head.incarnation, version, made_at, tx.now))
    if deletion is not None:
        made_at = tx.now // 1000
        used.append((tid, deletion, DELETION, head.incarnation, head.version, made_at, tx.now))
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
    db.execute(sql.DELETE_PARTS, (-stage,))
    db.execute(sql.DELETE_STAGE, (stage,))
