"""Commits that wait go together, and none harms another."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure.errors import OutcomeUnknown, Unavailable

from perdure_postgres.database import GROUP_BYTES, GROUP_COMMITS, Database, Row
from tests.backends.postgres.databases import administer, commit, connected, in_schema, query

TRANSACTION = "SELECT pg_current_xact_id()::text"

SCHEMA = "group_commit"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """One connection, so that what is sent while it is busy waits together."""
    await administer(postgres_url, f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    await administer(postgres_url, f"CREATE SCHEMA {SCHEMA}")
    async with connected(in_schema(postgres_url, SCHEMA), pool=1) as database:
        await query(database, "SELECT 1")
        yield database


async def together(
    database: Database, *commits: tuple[str, str, *tuple[Any, ...]]
) -> list[list[Row] | BaseException]:
    """The results of commits that have all waited for one connection."""
    held = asyncio.create_task(query(database, "SELECT pg_sleep(0.02)"))
    await asyncio.sleep(0)
    calls = [commit(database, *arguments) for arguments in commits]
    results = await asyncio.gather(*calls, return_exceptions=True)
    await held
    return results


async def test_commits_that_wait_share_a_transaction(database: Database) -> None:
    results = await together(database, *[(f"{n}", TRANSACTION) for n in range(GROUP_COMMITS)])
    assert results == [results[0]] * GROUP_COMMITS


async def test_a_group_has_a_limit(database: Database) -> None:
    results = await together(
        database, *[(f"{n}", TRANSACTION) for n in range(GROUP_COMMITS * 2 + 1)]
    )
    assert len({repr(result) for result in results}) == 3


async def test_large_commits_do_not_keep_others_waiting(database: Database) -> None:
    half, large = bytes(GROUP_BYTES // 2), bytes(GROUP_BYTES)
    sized = f"{TRANSACTION} WHERE $1::bytea IS NOT NULL"
    one, two, three, four = await together(
        database, ("a", sized, half), ("b", sized, half), ("c", sized, b""), ("d", sized, large)
    )
    assert one == two
    assert len({repr(result) for result in (one, three, four)}) == 3


async def test_a_commit_alone_does_not_wait_for_company(database: Database) -> None:
    (first,) = await commit(database, "a", TRANSACTION)
    (second,) = await commit(database, "a", TRANSACTION)
    assert first != second


async def test_two_groups_at_a_time_unless_full_ones_wait(postgres_url: str) -> None:
    async with connected(postgres_url, pool=6) as database:
        await asyncio.gather(*(query(database, "SELECT pg_sleep(0.01)") for _ in range(6)))
        slow = [
            asyncio.create_task(commit(database, f"{n}", "SELECT pg_sleep(0.2)"))
            for n in range(2)
        ]
        await asyncio.sleep(0.01)
        few = [asyncio.create_task(commit(database, "a", TRANSACTION)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(call.done() for call in few)
        enough = [
            asyncio.create_task(commit(database, "b", TRANSACTION))
            for _ in range(GROUP_COMMITS - len(few))
        ]
        first, *others = await asyncio.gather(*few, *enough)
        assert others == [first] * (GROUP_COMMITS - 1)
        assert not any(call.done() for call in slow)
        await asyncio.gather(*slow)


async def test_a_group_is_sent_in_the_order_of_its_sessions(database: Database) -> None:
    await commit(database, "", "CREATE TABLE t (number serial, name text)")
    insert = "INSERT INTO t (name) VALUES ($1) RETURNING number"
    names = ["c1", "a1", "b1", "a2", "c2", "b2"]
    results = await together(database, *[(name[0], insert, name) for name in names])
    assert results == [[(5,)], [(1,)], [(3,)], [(2,)], [(6,)], [(4,)]]
    assert await query(database, "SELECT name FROM t ORDER BY number") == [
        ("a1",), ("a2",), ("b1",), ("b2",), ("c1",), ("c2",),
    ]  # fmt: skip


@pytest.mark.parametrize("position", [0, 2, 4])
async def test_a_commit_that_the_server_refuses_fails_alone(
    database: Database, position: int
) -> None:
    await commit(database, "", "CREATE TABLE t (name text)")
    commits: list[tuple[str, str]] = [
        (f"{n}", f"INSERT INTO t VALUES ('{n}') RETURNING name") for n in range(5)
    ]
    commits[position] = (f"{position}", "INSERT INTO t VALUES (1/0)")
    results = await together(database, *commits)
    assert isinstance(results[position], Unavailable)
    del results[position]
    kept = [f"{n}" for n in range(5) if n != position]
    assert results == [[(name,)] for name in kept]
    rows = await query(database, "SELECT name FROM t ORDER BY name")
    assert rows == [(name,) for name in kept]


async def test_a_commit_refused_at_the_end_of_the_transaction_fails_alone(
    database: Database,
) -> None:
    await commit(
        database, "", "CREATE TABLE t (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    )
    insert = "INSERT INTO t VALUES ($1) RETURNING name"
    await commit(database, "", insert, "taken")
    results = await together(
        database, ("a", insert, "one"), ("b", insert, "taken"), ("c", insert, "two")
    )
    assert [results[0], results[2]] == [[("one",)], [("two",)]]
    assert isinstance(results[1], Unavailable)
    assert results[1].lasting
    names = await query(database, "SELECT name FROM t ORDER BY name")
    assert names == [("one",), ("taken",), ("two",)]


async def test_cancelling_one_of_a_group_leaves_the_others_alone(database: Database) -> None:
    held = asyncio.create_task(query(database, "SELECT pg_sleep(0.02)"))
    await asyncio.sleep(0)
    queued, *others = [
        asyncio.create_task(commit(database, f"{n}", "SELECT pg_sleep(0.02), $1::bigint", n))
        for n in range(4)
    ]
    await asyncio.sleep(0)
    queued.cancel()
    await held
    await asyncio.sleep(0.01)
    others[0].cancel()  # under way
    assert [row for ((_, row),) in await asyncio.gather(*others[1:])] == [2, 3]
    assert await query(database, "SELECT 1") == [(1,)]


async def fails_at_first(url: str, sqlstate: str, times: int) -> None:
    """Make a function that fails so often, and then returns how often it was called."""
    await administer(url, f"CREATE SEQUENCE {SCHEMA}.calls")  # outlives a rollback
    await administer(
        url,
        f"""CREATE FUNCTION {SCHEMA}.attempt() RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE call bigint := nextval('{SCHEMA}.calls');
        BEGIN
            IF call <= {times} THEN
                RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN call;
        END $$""",
    )


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03"])
async def test_what_may_succeed_is_tried_again(
    postgres_url: str, database: Database, sqlstate: str
) -> None:
    await fails_at_first(postgres_url, sqlstate, times=3)
    assert await commit(database, "a", "SELECT attempt()") == [(4,)]
    results = await together(
        database, ("a", TRANSACTION), ("b", "SELECT attempt()"), ("c", TRANSACTION)
    )
    assert results[1] == [(5,)]


async def test_it_is_not_tried_for_ever(postgres_url: str, database: Database) -> None:
    await fails_at_first(postgres_url, "40001", times=1000)
    with pytest.raises(Unavailable, match="40001") as raised:
        await commit(database, "a", "SELECT attempt()")
    assert not raised.value.lasting
    assert (
        await query(database, "SELECT attempt()::bigint > 1000 FROM generate_series(1, 0)")
        == []
    )


async def test_two_processes_never_deadlock(postgres_url: str, database: Database) -> None:
    await commit(database, "", "CREATE TABLE t (name text PRIMARY KEY, value bigint)")
    await commit(database, "", "INSERT INTO t SELECT n, 0 FROM generate_series(0, 7) AS n")
    url = in_schema(postgres_url, SCHEMA)
    add = "UPDATE t SET value = value + 1 WHERE name = $1 RETURNING value"
    (before,) = await administer(
        postgres_url,
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    )
    async with connected(url, pool=4) as one, connected(url, pool=4) as two:

        async def work(shared: Database, name: str) -> None:
            for _ in range(25):
                await commit(shared, name, add, name)

        await asyncio.gather(
            *(work(shared, f"{n}") for n in (3, 1, 7, 0, 5, 2, 6, 4) for shared in (one, two))
        )
    assert await query(database, "SELECT DISTINCT value FROM t") == [(50,)]
    (after,) = await administer(
        postgres_url,
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    )
    assert before == after


async def test_each_of_a_lost_group_is_told_that_its_outcome_is_unknown(
    postgres_url: str, database: Database
) -> None:
    await commit(database, "", "CREATE TABLE t (a integer)")
    await administer(
        postgres_url,
        f"""CREATE FUNCTION {SCHEMA}.linger() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM pg_sleep(10); RETURN NULL; END$$""",
    )
    await commit(
        database, "",
        "CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION linger()",
    )  # fmt: skip
    ((pid,),) = await query(database, "SELECT pg_backend_pid()")
    group = asyncio.create_task(
        together(database, *[(f"{n}", f"INSERT INTO t VALUES ({n})") for n in range(3)])
    )
    await asyncio.sleep(0.1)  # now it is committing
    await administer(postgres_url, "SELECT pg_terminate_backend(%s)", pid)
    assert [type(result) for result in await group] == [OutcomeUnknown] * 3
