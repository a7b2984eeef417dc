"""Lists walk an index: what they cost depends on the page, not on the tenant."""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from perdure.errors import InvalidKey
from perdure.testing.shorthand import list_ids, list_pages, new_id, write
from perdure.types import MAX_IDENTIFIER_BYTES, ListQuery, Order, Scan, SessionKey

from perdure_postgres.backend import PostgresBackend
from perdure_postgres.listing import LAST_TEXT, prefix_stop
from perdure_postgres.statements import Statements, Template
from tests.backends.postgres.conftest import SCHEMA

MANY = 3000
Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
async def crowd(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> AsyncIterator[SessionKey]:
    """A tenant with many sessions, as if made one a second; every third has a label."""
    await write(backend, key)
    await db.execute(
        "INSERT INTO sessions (tenant, kind, id, version, first_version, incarnation, tip, "
        "resent_at, last_delete, created_at, updated_at, recent_at, bytes, meta_version, meta, "
        "labels) "
        "SELECT tenant, kind, 'id-' || lpad(n::text, 6, '0'), 1, 1, incarnation, tip, 0, 0, "
        "created_at, updated_at, recent_at + n * 1000, 0, 0, '', "
        "CASE n %% 3 WHEN 0 THEN ARRAY['other', 'third'] END "
        "FROM sessions, generate_series(1, %s) AS n WHERE tenant = %s",
        (MANY, key.tenant),
    )
    yield key
    await db.execute("DELETE FROM sessions WHERE tenant = %s", (key.tenant,))


async def buffers(db: Connection, statement: Template, **values: Any) -> int:
    """How many pages the server looks at, as the backend has it plan."""
    query, parameters = statement(**values)
    async with db.transaction():
        await db.execute("SET LOCAL enable_seqscan = off")
        text = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query
        cursor = psycopg.AsyncRawCursor(db)
        await cursor.execute(text, parameters)
        row = await cursor.fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


async def test_a_page_costs_the_same_wherever_it_is(db: Connection, crowd: SessionKey) -> None:
    sql = Statements(SCHEMA)
    scope = {"tenant": crowd.tenant, "kind": crowd.kind, "label": "third", "most": 11}
    latest = (1 << 62) - 1
    for after in ("", "id-000100", "id-002900", "id-002999"):
        place = {"start": "", "after": after, "stop": LAST_TEXT, "before": latest}
        for statement in (
            sql.list_by_id,
            sql.list_by_recency,
            sql.list_label_by_id,
            sql.list_label_by_recency,
        ):
            assert await buffers(db, statement, **scope, **place) < 120
    for names in (sql.list_tenants, sql.list_kinds):
        assert await buffers(db, names, tenant=crowd.tenant, after="", most=5) < 120


async def test_a_prefix_costs_what_it_finds(db: Connection, crowd: SessionKey) -> None:
    sql = Statements(SCHEMA)
    scope = {"tenant": crowd.tenant, "kind": crowd.kind, "label": "third", "most": 101}
    for prefix in ("id-00012", "nothing", ""):
        bounds = {"start": prefix, "after": "", "stop": prefix_stop(prefix)}
        most = 120 if prefix else 450
        for statement in (sql.list_by_id, sql.list_label_by_id):
            assert await buffers(db, statement, **scope, **bounds) < most, prefix


async def test_paging_through_many_shows_each_once(
    backend: PostgresBackend, crowd: SessionKey
) -> None:
    expected = {"chat", *(f"id-{n:06}" for n in range(1, MANY + 1))}
    by_id = await list_ids(backend, crowd, limit=700)
    assert by_id == sorted(expected)
    by_recency = await list_ids(backend, crowd, order=Order.RECENCY, limit=700)
    assert by_recency[:3] == ["id-003000", "id-002999", "id-002998"]
    assert sorted(by_recency) == by_id
    thirds = [f"id-{n:06}" for n in range(3, MANY + 1, 3)]
    assert await list_ids(backend, crowd, label="third", limit=300) == thirds
    recent = await list_ids(backend, crowd, label="third", order=Order.RECENCY, limit=300)
    assert recent == thirds[::-1]


async def test_a_label_is_found_in_each_of_its_places(
    backend: PostgresBackend, key: SessionKey
) -> None:
    labels = ("a", "b", "c", "d")
    for turn in range(4):
        session = SessionKey(key.tenant, key.kind, f"s{turn}")
        made = await write(backend, session, labels=labels[turn:] + labels[:turn])
        assert made.head is not None
        assert made.head.labels == labels[turn:] + labels[:turn]
    for label in labels:
        for order in Order:
            for limit in (1, 3, 100):
                found = await list_ids(backend, key, label=label, order=order, limit=limit)
                assert sorted(found) == ["s0", "s1", "s2", "s3"]


async def test_a_deleted_session_is_in_no_list_though_its_row_stays(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    await write(backend, key, labels=("l",))
    await backend.delete(key, id=new_id())
    cursor = await db.execute("SELECT version FROM sessions WHERE tenant = %s", (key.tenant,))
    assert await cursor.fetchall() == [(0,)]
    for order in Order:
        assert await list_ids(backend, key, order=order) == []
        assert await list_ids(backend, key, order=order, label="l") == []
    assert key.tenant in (await backend.tenants(cursor=key.tenant[:-1])).items
    assert (await backend.kinds(key.tenant)).items == (key.kind,)


LAST = "\U0010ffff"


@pytest.mark.parametrize("prefix", ["", LAST, LAST * 128, f"a{LAST}", "\ud7ff", "\uffff", "a"])
async def test_prefixes_at_the_end_of_unicode(
    backend: PostgresBackend, key: SessionKey, prefix: str
) -> None:
    candidates = ["a", f"a{LAST}", f"a{LAST}{LAST}", "b", "\ud7ff", "\ue000", "\uffff", LAST]
    candidates += ["\U00010000", LAST * 127, LAST * 128]
    for id in candidates:
        await write(backend, SessionKey.of(key.tenant, key.kind, id))
    expected = sorted((id for id in candidates if id.startswith(prefix)), key=str.encode)
    for limit in (2, 100):
        assert await list_ids(backend, key, prefix=prefix, limit=limit) == expected


def test_the_last_text_is_above_every_id() -> None:
    assert len(LAST_TEXT.encode()) > MAX_IDENTIFIER_BYTES


@pytest.mark.parametrize("cursor", ["", "x", "12", "-1 a", "1.5 a", " a"])
async def test_a_cursor_of_another_kind_of_list_is_refused(
    backend: PostgresBackend, key: SessionKey, cursor: str
) -> None:
    with pytest.raises(InvalidKey):
        await backend.list(key.tenant, key.kind, ListQuery(order=Order.RECENCY, cursor=cursor))


@pytest.mark.parametrize("limit", [sys.maxsize, 1 << 64])
async def test_no_limit_is_too_large(
    backend: PostgresBackend, key: SessionKey, limit: int
) -> None:
    made = await write(backend, key, puts=((b"a", b"1"),))
    page = await backend.list(key.tenant, key.kind, ListQuery(limit=limit))
    assert [entry.head for entry in page.items] == [made.head]
    assert (await backend.kinds(key.tenant, limit=limit)).items == (key.kind,)
    assert key.tenant in (await backend.tenants(limit=limit)).items
    (rows,) = (await backend.read(key, Scan(limit=limit))).rows
    assert [item.key for item in rows.items] == [b"a"]


async def test_pages_are_of_the_length_asked(
    backend: PostgresBackend, crowd: SessionKey
) -> None:
    pages = await list_pages(backend, crowd, limit=1000)
    assert [len(page) for page in pages] == [1000, 1000, 1000, 1]
