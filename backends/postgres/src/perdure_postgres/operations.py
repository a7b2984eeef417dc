"""Commits and stages."""

from perdure.commits import check
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    StageMissing,
    Unavailable,
)
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    KeyRange,
    Rows,
    SessionKey,
    Snapshot,
    same_state,
)

from perdure_postgres.connection import Statement
from perdure_postgres.database import Database, Row
from perdure_postgres.parameters import Parameter
from perdure_postgres.reading import BEYOND, asking, head_of, snapshot
from perdure_postgres.statements import Statements

ATTEMPTS = 10
"""How often a commit is tried that was overtaken. From the second time on it holds the lock
on its session's row first, so that only a row made meanwhile can make another one necessary."""


def name_of(key: SessionKey) -> dict[str, str]:
    """The parameters that say which session."""
    return {"tenant": key.tenant, "kind": key.kind, "id": key.id}


async def commit(
    database: Database, sql: Statements, key: SessionKey, commit: Commit
) -> Committed:
    """:meth:`perdure.backend.Backend.commit`."""
    locked = bool(commit.stages)
    if _is_plain(commit):
        made = await _commit_plainly(database, sql, key, commit)
        if made is not None:
            return made
        locked = True
    for _ in range(ATTEMPTS):
        made = await _commit(database, sql, key, commit, locked=locked)
        if made is not None:
            return made
        locked = True
    raise Unavailable(
        f"the session changed too often while a commit tried to reach it ({ATTEMPTS} times); "
        "nothing was applied"
    )


async def stage(
    database: Database,
    sql: Statements,
    key: SessionKey,
    incarnation: bytes,
    stage: bytes,
    puts: tuple[tuple[bytes, bytes], ...],
) -> None:
    """:meth:`perdure.backend.Backend.stage`."""
    await database.run(
        sql.stage(
            **name_of(key),
            incarnation=incarnation,
            stage=stage,
            keys=[item for item, _ in puts],
            values=[value for _, value in puts],
        ),
        writes=True,
    )


def _is_plain(commit: Commit) -> bool:
    """Whether ``plain.sql``, or even ``append.sql``, can apply it."""
    return (
        commit.incarnation is not None
        and commit.base > 0  # so that no earlier life can have used the id
        and commit.expect is not Expect.ABSENT
        and commit.restored is None
        and not (commit.resend or commit.conditions or commit.deletes or commit.stages)
    )


def _is_append(commit: Commit) -> bool:
    """Whether ``append.sql`` can apply it, which is plain."""
    return (
        len(commit.appends) == 1
        and len(commit.appends[0].values) == 1
        and not commit.puts
        and commit.meta is None
        and commit.labels is None
        and commit.expires_at is None
        and commit.expires_in is None
    )


def _append(sql: Statements, key: SessionKey, commit: Commit) -> Statement:
    (append,) = commit.appends
    at = commit.expect if isinstance(commit.expect, At) else None
    return sql.append(
        tenant=key.tenant,
        kind=key.kind,
        id=key.id,
        commit=commit.id,
        digest=commit.digest,
        incarnation=commit.incarnation,
        version=at and at.version,
        tip=at and at.tip,
        base=commit.base,
        told=commit.seen or 0,
        prefix=append.prefix,
        value=append.values[0],
    )


def _plain(sql: Statements, key: SessionKey, commit: Commit) -> Statement:
    return sql.plain(
        **name_of(key),
        **_common(commit),
        incarnation=commit.incarnation,
        base=commit.base,
        told=commit.seen or 0,
    )


async def _commit_plainly(
    database: Database, sql: Statements, key: SessionKey, commit: Commit
) -> Committed | None:
    """``None``: not applied; it takes the other statement to tell why, or to apply it."""
    assert commit.incarnation is not None
    statements = [_append(sql, key, commit) if _is_append(commit) else _plain(sql, key, commit)]
    if commit.returning:
        statements.append(asking(sql, key, commit.returning))
    results = await database.commit(key.encode(), *statements)
    if not results[0]:
        return None
    (row,) = results[0]
    now, version, last_delete, created_at, expires_at, meta, meta_version, labels, _ = row
    head = Head(
        version=version,
        incarnation=commit.incarnation,
        tip=commit.id,
        last_delete=last_delete,
        created_at=created_at,
        updated_at=now,
        expires_at=expires_at,
        meta=meta,
        meta_version=meta_version,
        labels=tuple(labels or ()),
    )
    rows: tuple[Rows, ...] = ()
    if commit.returning:
        rows = snapshot(commit.returning, results[1], results.epoch).rows
    return Committed(
        version=version,
        incarnation=commit.incarnation,
        head=head,
        now=now,
        rows=rows,
        epoch=results.epoch,
    )


async def _commit(
    database: Database, sql: Statements, key: SessionKey, commit: Commit, *, locked: bool
) -> Committed | None:
    """``None``: allowed by what it saw, and overtaken by others."""
    name = name_of(key)
    restored = commit.restored
    before: list[Statement] = []
    after: list[Statement] = []
    if locked:
        before.append(sql.lock(**name))
    if commit.stages:
        before.append(sql.lock_stages(**name, stages=commit.stages))
        written = [item for item, _ in commit.puts]
        for stage in commit.stages:
            after += [part(**name, stage=stage, keys=written) for part in sql.adopt]
    if commit.returning:
        after.append(asking(sql, key, commit.returning))
    statement = sql.commit(
        **name,
        **_common(commit),
        incarnation=commit.incarnation,
        new_incarnation=commit.new_incarnation,
        present=None if commit.expect is Expect.ANY else commit.expect is not Expect.ABSENT,
        # A version means nothing without its incarnation.
        base=0 if commit.incarnation is None else commit.base,
        resend=commit.resend,
        told=commit.seen or 0,
        conditions=[condition.key for condition in commit.conditions],
        versions=[condition.version for condition in commit.conditions],
        stages=commit.stages,
        starts=[_start(delete) for delete in commit.deletes],
        stops=[_stop(delete) for delete in commit.deletes],
        deletes=bool(commit.deletes),
        restored=restored and restored.version,
        restored_created=restored and restored.created_at,
        restored_updated=restored and restored.updated_at,
    )
    results = await database.commit(key.encode(), *before, statement, *after)
    (row,) = results[len(before)]
    found: Snapshot | None = None
    if commit.returning:
        found = snapshot(commit.returning, results[-1], results.epoch)
    return _conclude(commit, row, found, results.epoch)


def _conclude(
    commit: Commit, row: Row, after: Snapshot | None, epoch: bytes
) -> Committed | None:
    """What a row of ``commit.sql``, and a read after it, mean."""
    now, present, allowed, applied = row[:4]
    head = head_of(row[4:14]) if present or applied else None
    digest, used_incarnation, used_version, complete, versions, _, _ = row[14:]
    rows: tuple[Rows, ...] = () if after is None else after.rows
    if applied:
        assert head is not None
        return Committed(
            version=head.version,
            incarnation=head.incarnation,
            head=head,
            now=now,
            rows=rows,
            epoch=epoch,
        )
    if allowed or (after is not None and not same_state(after.head, head)):
        return None  # another was faster than we, or than the read after us
    if used_version is not None:
        if digest != commit.digest:
            raise CommitIdReused("this commit id was used before for other content")
        return Committed(
            version=used_version,
            incarnation=used_incarnation,
            head=head,
            now=now,
            replayed=True,
            rows=rows,
            epoch=epoch,
        )
    if not complete:
        raise OutcomeUnknown(
            "too many commits followed to tell whether this one was applied", forgotten=True
        )
    keys = [condition.key for condition in commit.conditions]
    actual: dict[bytes | None, int] = dict(zip(keys, versions, strict=True))
    try:
        check(head, commit, lambda item: actual[item])
    except Conflict as error:
        error.now = now
        error.rows = rows
        raise
    raise StageMissing("a stage named by the commit does not exist (any more)")


def _common(commit: Commit) -> dict[str, Parameter]:
    """What both statements want of a commit."""
    at = commit.expect if isinstance(commit.expect, At) else None
    keys = [key for key, _ in commit.puts]
    values = [value for _, value in commit.puts]
    # Keys with an ordinal are completed by the server.
    ordinals: list[int | None] = [None] * len(keys)
    for append in commit.appends:
        keys += [append.prefix] * len(append.values)
        values += append.values
        ordinals += range(len(append.values))
    return {
        "commit": commit.id,
        "digest": commit.digest,
        "version": at and at.version,
        "tip": at and at.tip,
        "keys": keys,
        "ordinals": ordinals,
        "values": values,
        "expires_in": commit.expires_in,
        "expires_at": commit.expires_at,
        "meta": commit.meta,
        "labels": commit.labels,
    }


def _start(delete: bytes | KeyRange) -> bytes:
    return delete.start if isinstance(delete, KeyRange) else delete


def _stop(delete: bytes | KeyRange) -> bytes:
    if isinstance(delete, KeyRange):
        return BEYOND if delete.stop is None else delete.stop
    return delete + b"\0"
