"""Deletions, and the sweep."""

import secrets
from contextlib import suppress

from perdure.backend import STAGE_MS, TOMBSTONE_MS
from perdure.commits import check_expect
from perdure.errors import CommitIdReused, Conflict, PerdureError
from perdure.types import At, Expect, SessionKey

from perdure_postgres.database import Database
from perdure_postgres.operations import name_of
from perdure_postgres.reading import head_of
from perdure_postgres.statements import Statements

PURGE_STEP = 2_000
"""How many items that nobody can see one transaction removes at most."""


async def delete(
    database: Database,
    sql: Statements,
    key: SessionKey,
    id: bytes,
    expect: Expect | At,
    incarnation: bytes | None,
) -> bool:
    """:meth:`perdure.backend.Backend.delete`.

    The session is gone with the first transaction, and so are its items unless they are very
    many. The rest goes in further ones; what is left if those fail, or if this call is cut
    short, goes with the next sweep.
    """
    name = name_of(key)
    at = expect if isinstance(expect, At) else None
    _, (row,), ((purged,),), _ = await database.run(
        sql.lock(**name),
        sql.delete(
            **name,
            deletion=id,
            incarnation=incarnation,
            version=at and at.version,
            tip=at and at.tip,
        ),
        sql.purge(**name, most=PURGE_STEP),
        sql.purged(**name),
        writes=True,
    )
    now, present, applied, used, digest = row[:5]
    head = head_of(row[5:15]) if present else None
    if used:
        if digest is not None:
            raise CommitIdReused("this id was used by a commit")
        return True
    if applied:
        if purged >= PURGE_STEP:
            with suppress(PerdureError):  # the session is gone, whatever becomes of its items
                await _purge(database, sql, name)
        return True
    if head is None or incarnation not in (None, head.incarnation):
        return False
    try:
        check_expect(head, expect)
    except Conflict as error:
        error.now = now
        raise
    return False


async def sweep(database: Database, sql: Statements, limit: int) -> int:
    """:meth:`perdure.backend.Backend.sweep`."""
    removed = 0
    for statement, kept in (
        (sql.sweep_expired, 0),
        (sql.sweep_tombstones, TOMBSTONE_MS),
        (sql.sweep_stages, STAGE_MS),
        (sql.sweep_watches, 0),
    ):
        if removed < limit:
            ((count,),) = (
                await database.run(
                    statement(most=limit - removed, kept=kept, burial=secrets.token_bytes(16)),
                    writes=True,
                )
            )[0]
            removed += count
    (discarded,) = await database.run(sql.list_discarded(most=limit), writes=False)
    for tenant, kind, id in discarded:
        await _purge(database, sql, {"tenant": tenant, "kind": kind, "id": id})
    return max(removed, len(discarded))


async def _purge(database: Database, sql: Statements, name: dict[str, str]) -> None:
    """Remove the items of a key's discarded owners."""
    purged = PURGE_STEP
    while purged >= PURGE_STEP:
        ((purged,),), _ = await database.run(
            sql.purge(**name, most=PURGE_STEP), sql.purged(**name), writes=True
        )
