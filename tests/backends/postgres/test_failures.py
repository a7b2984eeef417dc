"""What callers are told when connections and servers fail, and that it goes on afterwards."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from perdure.errors import Corrupt, OutcomeUnknown, PerdureError, TooLarge, Unavailable

from perdure_postgres.connection import Statement
from perdure_postgres.database import Database
from tests.backends.postgres.databases import (
    administer,
    commit,
    connected,
    execute,
    in_schema,
    query,
    until,
)
from tests.backends.postgres.pooler import pooling
from tests.services.postgres import NO_SYNC, Postgres

SCHEMA = "failures"

SLOW_COMMIT = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.t (a text);
CREATE FUNCTION {SCHEMA}.linger() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN IF NEW.a = 'slow' THEN PERFORM pg_sleep(10); END IF; RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON {SCHEMA}.t DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.linger();
"""
"""A table to which a row ``'slow'`` takes ten seconds to commit."""

INSERT = "INSERT INTO t VALUES ($1)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of our own, to be killed."""
    with Postgres.start(tmp_path_factory.mktemp("postgres"), *NO_SYNC) as server:
        yield server


@pytest.fixture
async def database(server: Postgres) -> AsyncIterator[Database]:
    await administer(server.url, SLOW_COMMIT)
    async with connected(in_schema(server.url, SCHEMA), pool=1) as database:
        await query(database, "SELECT 1")
        yield database


async def busy(url: str) -> int:
    """The process that serves the only session that sleeps, once it does."""
    found: list[tuple[int]] = []

    async def sleeps() -> bool:
        found[:] = await administer(
            url,
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
        )
        return len(found) == 1

    await until(sleeps)
    return found[0][0]


async def rows(database: Database) -> list[str]:
    return [a for (a,) in await query(database, "SELECT a FROM t ORDER BY a")]


async def test_an_idle_connection_that_the_server_ends_is_not_used_again(
    server: Postgres, database: Database
) -> None:
    for _ in range(3):
        ((pid,),) = await query(database, "SELECT pg_backend_pid()")
        await administer(server.url, "SELECT pg_terminate_backend(%s, 5000)", pid)
        await commit(database, "", INSERT, "x")
    assert await rows(database) == ["x"] * 3


async def test_a_session_ended_during_a_statement_leaves_the_outcome_unknown(
    server: Postgres, database: Database
) -> None:
    slow = Statement(b"SELECT pg_sleep(10)")
    insert = Statement(INSERT.encode(), ("x",))
    call = asyncio.create_task(database.run(insert, slow, writes=True))
    await administer(
        server.url, "SELECT pg_terminate_backend(%s, 5000)", await busy(server.url)
    )
    with pytest.raises(OutcomeUnknown, match="57P01"):
        await call
    call = asyncio.create_task(database.run(slow, writes=False))
    await administer(
        server.url, "SELECT pg_terminate_backend(%s, 5000)", await busy(server.url)
    )
    with pytest.raises(Unavailable, match="57P01"):
        await call
    assert await rows(database) == []


async def test_a_session_ended_while_it_commits_leaves_the_outcome_unknown(
    server: Postgres, database: Database
) -> None:
    call = asyncio.create_task(commit(database, "", INSERT, "slow"))
    await administer(
        server.url, "SELECT pg_terminate_backend(%s, 5000)", await busy(server.url)
    )
    with pytest.raises(OutcomeUnknown, match="57P01"):
        await call
    assert await rows(database) == []


async def test_a_commit_that_the_server_cancels_has_applied_nothing(
    server: Postgres, database: Database
) -> None:
    call = asyncio.create_task(commit(database, "", INSERT, "slow"))
    await administer(server.url, "SELECT pg_cancel_backend(%s)", await busy(server.url))
    with pytest.raises(Unavailable, match="57014"):
        await call
    assert await rows(database) == []


async def test_a_killed_server_leaves_the_outcome_of_writes_unknown(
    server: Postgres, database: Database
) -> None:
    sleep = Statement(b"SELECT pg_sleep(10)")
    async with connected(server.url) as reader:
        await query(reader, "SELECT 1")
        writing = asyncio.create_task(database.run(sleep, writes=True))
        await busy(server.url)
        reading = asyncio.create_task(reader.run(sleep, writes=False))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(server.kill)
        with pytest.raises(OutcomeUnknown):
            await writing
        with pytest.raises(Unavailable):
            await reading
        with pytest.raises(Unavailable) as raised:  # while nobody listens
            await commit(database, "", INSERT, "x")
        assert not raised.value.lasting
        await asyncio.to_thread(server.restart)
        await commit(database, "", INSERT, "y")
        assert await rows(database) == ["y"]


async def test_a_server_killed_behind_a_pooler_leaves_the_outcome_unknown(
    server: Postgres,
) -> None:
    await administer(server.url, SLOW_COMMIT)
    insert = f"INSERT INTO {SCHEMA}.t VALUES ($1)"
    with pooling(server.url) as (url, _):
        async with connected(url, prepare=False) as database:
            call = asyncio.create_task(commit(database, "", insert, "slow"))
            await busy(server.url)
            await asyncio.to_thread(server.kill)
            with pytest.raises(OutcomeUnknown, match="server conn crashed"):
                await call
            await asyncio.to_thread(server.restart)

            async def accepted() -> bool:
                try:
                    await commit(database, "", insert, "y")
                except (Unavailable, OutcomeUnknown):  # the pooler has stale sessions left
                    return False
                return True

            await until(accepted)


async def test_a_server_restarted_between_two_calls_is_not_noticed(
    server: Postgres, database: Database
) -> None:
    await commit(database, "", INSERT, "before")
    await asyncio.to_thread(server.restart)
    await commit(database, "", INSERT, "after")
    assert await rows(database) == ["after", "before"]


async def test_a_stalled_server_is_given_up_in_time(server: Postgres) -> None:
    await administer(server.url, SLOW_COMMIT)
    url = in_schema(server.url, SCHEMA)
    async with connected(url, pool=1, timeout=0.5) as database:
        ((pid,),) = await query(database, "SELECT pg_backend_pid()")
        stopped = (pid, server.pid)
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.5 s"):
                await commit(database, "", INSERT, "x")
            # And there is no other connection to be had.
            with pytest.raises(Unavailable, match=r"within 0\.5 s"):
                await commit(database, "", INSERT, "y")
            assert time.monotonic() - began < 3
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)
        await commit(database, "", INSERT, "z")
        assert set(await rows(database)) <= {"x", "z"}


async def test_a_locked_session_is_given_up_in_time_and_holds_nobody_else_up(
    server: Postgres,
) -> None:
    await administer(server.url, SLOW_COMMIT)
    await administer(server.url, f"INSERT INTO {SCHEMA}.t VALUES ('free'), ('locked')")
    url = in_schema(server.url, SCHEMA)
    update = "UPDATE t SET a = a WHERE a = $1 RETURNING a"
    async with connected(url, timeout=1) as database, connected(url) as other:
        lock = Statement(b"SELECT a FROM t WHERE a = 'locked' FOR UPDATE")
        held = asyncio.create_task(
            other.run(lock, Statement(b"SELECT pg_sleep(2)"), writes=True)
        )
        await busy(server.url)
        began = time.monotonic()
        results = await asyncio.gather(
            commit(database, "a", update, "locked"),
            commit(database, "b", update, "free"),
            return_exceptions=True,
        )
        assert time.monotonic() - began < 2
        assert isinstance(results[0], Unavailable)
        assert not results[0].lasting
        assert results[1] == [("free",)]
        await held
        assert await commit(database, "a", update, "locked") == [("locked",)]


async def test_a_statement_that_takes_too_long_is_stopped_by_the_server(
    server: Postgres,
) -> None:
    async with connected(server.url, timeout=0.5) as database:
        with pytest.raises(Unavailable, match="57014"):
            await execute(database, "SELECT pg_sleep(10)")
        assert await query(database, "SELECT 1") == [(1,)]


async def test_a_session_that_has_become_read_only_is_replaced(
    server: Postgres, database: Database
) -> None:
    await query(database, "SELECT set_config('default_transaction_read_only', 'on', false)")
    with pytest.raises(Unavailable, match="25006") as raised:
        await commit(database, "", INSERT, "x")
    assert not raised.value.lasting
    await commit(database, "", INSERT, "y")
    assert await rows(database) == ["y"]


async def test_prepared_statements_that_the_server_has_dropped_are_made_again(
    database: Database,
) -> None:
    await query(database, "SELECT 2")
    await query(database, "DEALLOCATE ALL")
    assert await query(database, "SELECT 2") == [(2,)]


async def test_a_table_may_change_under_a_prepared_statement(
    server: Postgres, database: Database
) -> None:
    await execute(database, INSERT, "x")
    for _ in range(2):
        assert await query(database, "SELECT * FROM t") == [("x",)]
    await administer(server.url, f"ALTER TABLE {SCHEMA}.t ADD COLUMN b integer")
    assert await query(database, "SELECT * FROM t") == [("x", None)]


@pytest.mark.parametrize(
    ("sqlstate", "error", "lasting"),
    [
        ("53100", Unavailable, True),  # disk full
        ("53200", Unavailable, False),  # out of memory
        ("42501", Unavailable, True),  # insufficient privilege
        ("57P03", Unavailable, False),  # starting up
        ("58030", Unavailable, False),  # I/O error
        ("54000", TooLarge, None),
        ("XX001", Corrupt, None),
        ("40003", OutcomeUnknown, None),
        ("08007", OutcomeUnknown, None),
    ],
)
async def test_what_the_server_says_has_a_type(
    database: Database, sqlstate: str, error: type[PerdureError], lasting: bool | None
) -> None:
    await execute(
        database,
        "CREATE OR REPLACE FUNCTION fail(state text) RETURNS void LANGUAGE plpgsql AS $$BEGIN"
        " RAISE EXCEPTION 'for a reason' USING ERRCODE = state, DETAIL = 'hush'; END$$",
    )
    with pytest.raises(error, match="for a reason") as raised:
        await execute(database, "SELECT fail($1)", sqlstate)
    if lasting is not None:
        assert getattr(raised.value, "lasting", None) is lasting
    assert "hush" not in f"{raised.value!r} {raised.value.__cause__!r}"
    assert await query(database, "SELECT 1") == [(1,)]


async def test_a_failure_names_the_database(database: Database) -> None:
    with pytest.raises(Unavailable, match=r"^127\.0\.0\.1:\d+/perdure: "):
        await query(database, "SELECT * FROM nothing_here")
