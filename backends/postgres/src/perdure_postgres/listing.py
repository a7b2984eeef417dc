"""Lists of sessions and tenants: each page is one walk along one index."""

from perdure.errors import InvalidKey
from perdure.types import (
    MAX_IDENTIFIER_BYTES,
    HeadEntry,
    ListQuery,
    Order,
    Page,
    SessionKey,
)

from perdure_postgres.connection import Statement
from perdure_postgres.database import Database
from perdure_postgres.reading import at_least_one, head_of
from perdure_postgres.statements import Statements, Template

LATEST = (1 << 63) - 1

LAST_TEXT = "\U0010ffff" * (MAX_IDENTIFIER_BYTES // 4 + 1)
"""Above every id."""


async def sessions(
    database: Database, sql: Statements, tenant: str, kind: str, query: ListQuery
) -> Page[HeadEntry]:
    """:meth:`perdure.backend.Backend.list`."""
    limit = at_least_one(query.limit)
    ask = _by_id if query.order is Order.ID else _by_recency
    (rows,) = await database.run(ask(sql, tenant, kind, query, limit + 1), writes=False)
    entries: list[HeadEntry] = []
    for row in rows[:limit]:
        head = head_of(row[2:])
        assert head is not None
        entries.append(HeadEntry(SessionKey(tenant, kind, row[0]), head))
    if len(rows) <= limit:
        return Page(tuple(entries))
    id, recent_at = rows[limit - 1][:2]
    return Page(tuple(entries), id if query.order is Order.ID else f"{recent_at} {id}")


async def tenants(
    database: Database, sql: Statements, cursor: str | None, limit: int
) -> Page[str]:
    """:meth:`perdure.backend.Backend.tenants`."""
    return await _names(database, sql.list_tenants, "", cursor, limit)


async def kinds(
    database: Database, sql: Statements, tenant: str, cursor: str | None, limit: int
) -> Page[str]:
    """:meth:`perdure.backend.Backend.kinds`."""
    return await _names(database, sql.list_kinds, tenant, cursor, limit)


async def _names(
    database: Database, statement: Template, tenant: str, cursor: str | None, limit: int
) -> Page[str]:
    limit = at_least_one(limit)
    (rows,) = await database.run(
        statement(tenant=tenant, after=cursor or "", most=limit + 1), writes=False
    )
    names = tuple([name for (name,) in rows])
    return Page(names[:limit], names[limit - 1] if len(names) > limit else None)


def prefix_stop(prefix: str) -> str:
    """A text above every id that starts with ``prefix``, and above no other that is above it.

    UTF-8 orders as code points do, so the last one that has a successor is replaced by it;
    surrogates (U+D800 to U+DFFF) have no UTF-8 form and are passed over.
    """
    trimmed = prefix.rstrip("\U0010ffff")
    if not trimmed:
        return LAST_TEXT
    following = ord(trimmed[-1]) + 1
    if following == 0xD800:
        following = 0xE000
    return trimmed[:-1] + chr(following)


def _by_id(sql: Statements, tenant: str, kind: str, query: ListQuery, most: int) -> Statement:
    statement = sql.list_by_id if query.label is None else sql.list_label_by_id
    return statement(
        tenant=tenant,
        kind=kind,
        label=query.label,
        start=query.prefix,
        after=query.cursor or "",
        stop=prefix_stop(query.prefix),
        most=most,
    )


def _by_recency(
    sql: Statements, tenant: str, kind: str, query: ListQuery, most: int
) -> Statement:
    before, after = LATEST, ""
    if query.cursor is not None:
        recent_at, separator, after = query.cursor.partition(" ")
        if not separator or not recent_at.isdecimal():
            raise InvalidKey("this cursor is not of a list by recency")
        before = int(recent_at)
    statement = sql.list_by_recency if query.label is None else sql.list_label_by_recency
    return statement(
        tenant=tenant, kind=kind, label=query.label, before=before, after=after, most=most
    )
