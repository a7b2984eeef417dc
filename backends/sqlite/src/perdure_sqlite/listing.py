"""Lists of sessions and tenants: each page is one walk along one index."""

import sqlite3
from collections.abc import Sequence

from perdure.errors import InvalidKey
from perdure.types import HeadEntry, ListQuery, Order, Page, SessionKey

from perdure_sqlite import statements as sql
from perdure_sqlite.reading import Steps
from perdure_sqlite.sessions import head_of

SHORT_PAGE = 128
"""A page of more sessions than this is a long read."""

ABOVE_TEXT = b""
"""Orders after every text: SQLite compares blobs as greater."""

LATEST = 1 << 62


def sessions(
    db: sqlite3.Connection, now: int, tenant: str, kind: str, query: ListQuery
) -> Steps[Page[HeadEntry]]:
    """:meth:`perdure.backend.Backend.list`."""
    scope = (tenant, kind) if query.label is None else (tenant, kind, query.label)
    if query.order is Order.ID:
        statement = sql.LIST_BY_ID if query.label is None else sql.LIST_LABEL_BY_ID
        # No id holds NUL, so that this is the smallest text after the cursor.
        start = query.prefix if query.cursor is None else f"{query.cursor}\0"
        bounds = (start, prefix_stop(query.prefix))
    else:
        statement = sql.LIST_BY_RECENCY if query.label is None else sql.LIST_LABEL_BY_RECENCY
        bounds = (LATEST, "") if query.cursor is None else _recency(query.cursor)
    limit = max(1, query.limit)
    if limit > SHORT_PAGE:
        yield
    rows = db.execute(statement, (*scope, *bounds, now, limit + 1)).fetchall()
    entries = tuple(
        HeadEntry(SessionKey(tenant, kind, row[0]), head_of(row[1:11])) for row in rows[:limit]
    )
    if len(rows) <= limit:
        return Page(entries)
    last = rows[limit - 1]
    return Page(entries, last[0] if query.order is Order.ID else f"{last[11]} {last[0]}")


def tenants(db: sqlite3.Connection, cursor: str | None, limit: int) -> Steps[Page[str]]:
    """:meth:`perdure.backend.Backend.tenants`."""
    limit = max(1, limit)
    if limit > SHORT_PAGE:
        yield
    rows = db.execute(sql.LIST_TENANTS, (cursor or "", cursor or "", limit + 1)).fetchall()
    return _page(rows, limit)


def kinds(
    db: sqlite3.Connection, tenant: str, cursor: str | None, limit: int
) -> Steps[Page[str]]:
    """:meth:`perdure.backend.Backend.kinds`."""
    limit = max(1, limit)
    if limit > SHORT_PAGE:
        yield
    first = (tenant, cursor or "")
    rows = db.execute(sql.LIST_KINDS, (*first, *first, tenant, tenant, limit + 1)).fetchall()
    return _page(rows, limit)


def _page(rows: Sequence[tuple[str]], limit: int) -> Page[str]:
    names = tuple(name for (name,) in rows)
    return Page(names[:limit], names[limit - 1] if len(names) > limit else None)


def prefix_stop(prefix: str) -> str | bytes:
    """The smallest value after every text that starts with ``prefix``.

    UTF-8 orders as code points do, so the last one that has a successor is replaced by it;
    surrogates (U+D800 to U+DFFF) have no UTF-8 form and are passed over.
    """
    trimmed = prefix.rstrip("\U0010ffff")
    if not trimmed:
        return ABOVE_TEXT
    following = ord(trimmed[-1]) + 1
    if following == 0xD800:
        following = 0xE000
    return trimmed[:-1] + chr(following)


def _recency(cursor: str) -> tuple[int, str]:
    recent_at, separator, id = cursor.partition(" ")
    if not separator or not recent_at.isdecimal():
        raise InvalidKey("this cursor is not of a list by recency")
    return int(recent_at), id
