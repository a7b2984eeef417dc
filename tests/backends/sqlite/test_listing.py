"""Lists, and that each page is one walk along an index."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import InvalidKey
from perdure.testing import TestClock
from perdure.testing.shorthand import list_ids, new_id, write
from perdure.types import ListQuery, Order, SessionKey

from perdure_sqlite import statements as sql
from perdure_sqlite.backend import SqliteBackend
from perdure_sqlite.listing import prefix_stop
from perdure_sqlite.operations import RECENCY_LAG
from tests.backends.sqlite.conftest import Connect

texts = st.text(
    st.one_of(
        st.sampled_from("aÿ\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010fffe\U0010ffff%_"),
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"),
    ),
    min_size=1,
    max_size=4,
)


@given(texts, texts)
def test_a_prefix_is_exactly_a_range(prefix: str, text: str) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        (inside,) = db.execute(
            "SELECT ? >= ? AND ? < ?", (text, prefix, text, prefix_stop(prefix))
        ).fetchone()
    assert bool(inside) == text.startswith(prefix)


PLANS = {
    "by id": (sql.LIST_BY_ID, ("t", "k", "a", "b", 0, 10)),
    "by recency": (sql.LIST_BY_RECENCY, ("t", "k", 1, "a", 0, 10)),
    "by label and id": (sql.LIST_LABEL_BY_ID, ("t", "k", "l", "a", "b", 0, 10)),
    "by label and recency": (sql.LIST_LABEL_BY_RECENCY, ("t", "k", "l", 1, "a", 0, 10)),
    "expired": (sql.EXPIRED, (0, 10)),
    "lapsed": (sql.LAPSED_TOMBSTONES, (0, 10)),
    "forgotten": (sql.FORGOTTEN_STAGES, (0, 10)),
    "scan": (sql.SCAN, (1, b"a", b"b", 0, 10)),
    "reverse scan": (sql.SCAN_REVERSE, (1, b"a", b"b", 0, 10)),
    "head": (sql.FIND_HEAD, ("t", "k", "i")),
    "delete range": (sql.DELETE_ITEMS, (1, b"a", b"b")),
}


@pytest.mark.parametrize("name", PLANS)
async def test_a_page_costs_what_it_shows(
    backend: SqliteBackend, path: Path, name: str
) -> None:
    statement, parameters = PLANS[name]
    await backend.open()
    with closing(sqlite3.connect(path)) as db:
        plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + statement, parameters)]
    assert plan
    for step in plan:
        assert step.startswith("SEARCH"), f"{step!r} looks at everything or sorts"


async def test_tenants_are_found_by_one_seek_each(backend: SqliteBackend, path: Path) -> None:
    """A tenant with many sessions costs no more than one with a single session."""
    for tenant, sessions in (("a", 1), ("b", 300), ("c", 1)):
        for n in range(sessions):
            await write(backend, SessionKey(tenant, "session", f"{n}"))
    assert (await backend.tenants()).items == ("a", "b", "c")
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with closing(sqlite3.connect(path)) as db:
        db.set_progress_handler(count, 1)
        db.execute(sql.LIST_TENANTS, ("", "", 100)).fetchall()
        db.set_progress_handler(None, 0)
    assert steps < 500


async def test_tenants_are_paged_and_include_those_of_deleted_sessions(
    backend: SqliteBackend,
) -> None:
    names = sorted(["a", "a%", "ab", "z", "\U0010ffff", "\ud7ff", "\ue000", "ÿ"])
    for name in names:
        await write(backend, SessionKey(name, "session", "s"))
    await backend.delete(SessionKey("ab", "session", "s"), id=new_id())
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await backend.tenants(cursor=cursor, limit=3)
        assert len(page.items) <= 3
        found += page.items
        if (cursor := page.cursor) is None:
            break
    assert found == names


async def test_recency_is_at_most_its_lag_behind(connect: Connect) -> None:
    clock = TestClock()
    backend = connect(clock=clock)
    assert backend.capabilities.recency_lag == RECENCY_LAG
    one, two = SessionKey("t", "k", "one"), SessionKey("t", "k", "two")
    await write(backend, one, labels=("x",))
    clock.advance(RECENCY_LAG // 2)
    await write(backend, two, labels=("x",))
    for label in (None, "x"):
        assert await list_ids(backend, one, order=Order.RECENCY, label=label) == ["two", "one"]
    clock.advance(RECENCY_LAG // 2)
    await write(backend, one)
    for label in (None, "x"):
        assert await list_ids(backend, one, order=Order.RECENCY, label=label) == ["one", "two"]


async def test_an_ordinary_turn_touches_no_index_of_sessions(
    backend: SqliteBackend, path: Path, key: SessionKey
) -> None:
    await write(backend, key, labels=("l",), expires_in=10**9)

    def positions() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path)) as db:
            return db.execute(
                "SELECT recent_at, expires_at, updated_at > 0 FROM sessions"
            ).fetchall()

    before = positions()
    for _ in range(5):
        await write(backend, key, puts=((b"a", b"1"),))
    assert positions() == before


@pytest.mark.parametrize("cursor", ["", "nonsense", "-1 a", "1"])
async def test_a_cursor_of_another_list_is_refused(backend: SqliteBackend, cursor: str) -> None:
    with pytest.raises(InvalidKey, match="cursor"):
        await backend.list("t", "k", ListQuery(order=Order.RECENCY, cursor=cursor))
