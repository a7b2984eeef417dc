"""Plans that are kept for any values walk indexes, however the sessions are."""

from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from perdure_postgres.settings import Settings
from perdure_postgres.statements import fill, read
from tests.backends.postgres.conftest import Connect

Connection = psycopg.AsyncConnection[Any]

FILL = (
    "INSERT INTO {schema}.sessions (tenant, kind, id, version, first_version, incarnation, "
    "tip, resent_at, last_delete, created_at, updated_at, recent_at, bytes, meta_version, "
    "meta) "
    "SELECT 't' || n %% 5, 'session', n::text, 1, 1, sha256(n::text::bytea), "
    "sha256(n::text::bytea), 0, 0, n, n, n, 0, 0, '' FROM generate_series(1, %s) AS n",
    "INSERT INTO {schema}.items (sid, key, version, value) "
    "SELECT sid, decode(lpad(to_hex(n), 16, '0'), 'hex'), n, sha256(n::text::bytea) "
    "FROM generate_series(1, %s) AS n, {schema}.sessions",
    "INSERT INTO {schema}.commits (sid, slot, version, id, digest, made_at) "
    "SELECT sid, n, n, sha256(n::text::bytea), '', n "
    "FROM generate_series(1, least(64, %s)) AS n, {schema}.sessions",
)


@pytest.fixture(params=[(3, 1000), (100, 100), (2000, 3)], ids=str)
async def filled(
    request: pytest.FixtureRequest, settings: Settings, connect: Connect
) -> AsyncIterator[tuple[Connection, str]]:
    """A schema of so many sessions of so many items, and a connection such as the backend's."""
    schema = f"plans-{uuid4()}"
    await connect(schema=schema).open()
    sessions, items = request.param
    conninfo = settings.connect_string(settings.conninfo, direct=True)
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as db:
        if db.info.server_version < 160000:
            pytest.skip("no EXPLAIN (GENERIC_PLAN)")
        for text, count in zip(FILL, (sessions, items, items), strict=True):
            await db.execute(SQL(text).format(schema=Identifier(schema)), (count,))
        await db.execute("ANALYZE")
        yield db, schema
        await db.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))


async def plan(db: Connection, name: str, schema: str) -> list[str]:
    """The lines of the plan for a statement whatever its values."""
    text, _ = fill(read(name), schema)
    cursor = psycopg.AsyncRawCursor(db)
    await cursor.execute(f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {text}".encode())
    return [line.strip() for (line,) in await cursor.fetchall()]


async def test_nothing_is_read_but_by_an_index(filled: tuple[Connection, str]) -> None:
    db, schema = filled
    texts = files("perdure_postgres").joinpath("sql").iterdir()
    names = {text.name.removesuffix(".sql") for text in texts}
    for name in sorted(names - {"schema", "stamp", "format", "describe"}):
        lines = await plan(db, name, schema)
        assert not [line for line in lines if "Seq Scan" in line], name


@pytest.mark.parametrize(("name", "forward", "backward"), [("read", 2, 2), ("delta", 1, 0)])
async def test_items_are_walked_in_order_not_sorted(
    filled: tuple[Connection, str], name: str, forward: int, backward: int
) -> None:
    db, schema = filled
    lines = await plan(db, name, schema)
    assert not [line for line in lines if "Sort" in line or "Bitmap" in line]
    walks = [line for line in lines if "on items" in line]
    assert len(walks) == forward + backward
    assert sum("Index Scan Backward" in line for line in walks) == backward


@pytest.mark.parametrize("filled", [(3, 1000)], indirect=True)
@pytest.mark.parametrize("place", [1, 500, 1000])
async def test_a_delta_passes_by_nothing_outside_its_range(
    filled: tuple[Connection, str], place: int
) -> None:
    """Wherever it lies: one item of a thousand, in the second of three sessions."""
    db, schema = filled
    start, stop = place.to_bytes(8, "big"), (place + 1).to_bytes(8, "big")
    values: dict[str, Any] = {"tenant": "t2", "kind": "session", "id": "2"}
    values |= {"start": start, "stop": stop, "limit": 9, "size": 9, "since": 0}
    text, names = fill(read("delta"), schema)
    cursor = psycopg.AsyncRawCursor(db)
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}"
    await cursor.execute(explain.encode(), [values[name] for name in names])
    row = await cursor.fetchone()
    assert row is not None
    walks = [node for node in nodes(row[0][0]["Plan"]) if node.get("Alias") == "items"]
    assert sum(node["Actual Rows"] for node in walks) == 1
    # The root and a leaf of the index, and a page of the table; not its five leaves or more.
    assert sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in walks) <= 4


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_ranges_are_deleted_one_walk_each(filled: tuple[Connection, str]) -> None:
    db, schema = filled
    lines = await plan(db, "commit", schema)
    conditions = [line for line in lines if "key >= r.start" in line]
    walks = [line for line in conditions if line.startswith("Index Cond")]
    assert ["key < r.stop" in line for line in walks] == [True]
    assert not [line for line in conditions if line.startswith(("Filter", "Join Filter"))]
