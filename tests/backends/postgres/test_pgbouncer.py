"""Behind a pooler that gives every transaction another session of the server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.errors import Unavailable, Unsupported
from perdure.testing import TestClock
from perdure.testing.rooms.commits import Commits
from perdure.testing.rooms.concurrency import Concurrency
from perdure.testing.rooms.conditions import Conditions
from perdure.testing.rooms.deletion import Deletion
from perdure.testing.rooms.idempotency import Idempotency
from perdure.testing.rooms.listing import Listing
from perdure.testing.rooms.reads import Reads
from perdure.testing.rooms.stages import Stages
from perdure.testing.rooms.waiting import Waiting

from perdure_postgres.connection import Statement
from perdure_postgres.database import Database
from tests.backends.postgres.databases import commit, connected, query
from tests.backends.postgres.harness import PostgresHarness, with_options
from tests.backends.postgres.pgbouncer import SESSIONS, bouncing, installed
from tests.backends.postgres.pooler import pooling

POOLERS = ["ours", "pgbouncer"] if installed() else ["ours"]


@pytest.fixture(params=POOLERS)
def pooled_url(
    request: pytest.FixtureRequest, direct_url: str, tmp_path: Path
) -> Iterator[str]:
    """A pooler in front of it."""
    if request.param == "ours":
        with pooling(direct_url, size=SESSIONS) as (url, _):
            yield url
    else:
        with bouncing(direct_url, tmp_path) as url:
            yield url


async def test_each_call_may_have_another_session(pooled_url: str) -> None:
    async with connected(pooled_url, prepare=False) as database:
        ask = "SELECT pg_backend_pid(), pg_sleep(0.01)::text"
        calls = [query(database, ask) for _ in range(8)]
        processes = {rows[0][0] for rows in await asyncio.gather(*calls)}
        one_by_one = {(await query(database, ask))[0][0] for _ in range(6)}
    assert len(processes) == SESSIONS
    assert processes == one_by_one


async def test_a_call_is_one_transaction(pooled_url: str) -> None:
    take = Statement(b"SELECT pg_current_xact_id()::text, pg_backend_pid()")
    async with connected(pooled_url, prepare=False) as database:
        for _ in range(3):
            rows = await database.run(take, take, take, writes=True)
            assert rows == [rows[0]] * 3


async def test_a_call_is_one_turn_of_the_pooler(direct_url: str) -> None:
    with pooling(direct_url) as (url, pooler):
        async with connected(url, prepare=False, pool=1) as database:
            await query(database, "SELECT 1")
            before = pooler.transactions
            await database.run(Statement(b"SELECT 1"), Statement(b"SELECT 2"), writes=True)
            assert pooler.transactions == before + 1


async def test_no_setting_reaches_the_next_client(direct_url: str, pooled_url: str) -> None:
    ask = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
    async with connected(pooled_url, prepare=False, timeout=4) as database:
        for _ in range(6):
            assert await query(database, ask) == [("3600ms", "1s")]
    async with connected(pooled_url, prepare=False, timeout=8) as other:
        assert await query(other, ask) == [("7200ms", "2s")]


async def test_statements_need_not_be_prepared(pooled_url: str) -> None:
    async with connected(pooled_url, prepare=False) as database:

        async def work(number: int) -> None:
            for _ in range(10):
                text = f"SELECT $1::bigint + {number}"
                assert await commit(database, f"{number}", text, 1) == [(number + 1,)]

        await asyncio.gather(*(work(number) for number in range(20)))
        left = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
        for _ in range(3):
            assert await query(database, left) == [(0,)]


async def test_what_is_said_to_one_who_does_not_know_of_the_pooler(
    pooled_url: str,
) -> None:
    async with connected(pooled_url) as database:
        with pytest.raises(Unavailable, match=r"add \?prepare=false to the URL") as raised:
            await query(database, "SELECT 1")
        assert raised.value.lasting


async def test_a_statement_that_fails_leaves_the_session_clean(
    pooled_url: str,
) -> None:
    async with connected(pooled_url, prepare=False, pool=2) as database:
        results = await asyncio.gather(
            *(commit(database, f"{n}", f"SELECT 6 / {n}::bigint") for n in (0, 1, 2, 0, 3)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            Unavailable, list, list, Unavailable, list,
        ]  # fmt: skip
        for _ in range(6):
            assert await query(database, "SELECT 1") == [(1,)]


async def test_listening_needs_a_direct_connection(direct_url: str, pooled_url: str) -> None:
    async with connected(pooled_url, prepare=False) as database:
        with pytest.raises(Unsupported, match="listen_url"):
            await database.listen("channel", lambda: None)
    async with connected(pooled_url, prepare=False, listen_conninfo=direct_url) as database:
        await is_woken(database)


async def is_woken(database: Database) -> None:
    """Somebody who listens is told."""
    woken = asyncio.Event()
    await database.listen("pooled", woken.set)
    await commit(database, "", "SELECT pg_notify('pooled', '')")
    async with asyncio.timeout(5):
        await woken.wait()


clock = TestClock()


class TestSessionsBehindAPooler(
    Waiting,
    Concurrency,
    Listing,
    Stages,
    Deletion,
    Idempotency,
    Conditions,
    Commits,
    Reads,
):
    """What the contract promises holds there too, without a direct connection."""

    @pytest.fixture
    def harness(self, pooled_url: str, direct_url: str) -> Iterator[PostgresHarness]:
        schema = "kit behind a pooler"
        harness = PostgresHarness(with_options(direct_url, schema=schema), clock)
        harness.url = with_options(pooled_url, schema=schema, prepare="false")
        yield harness
        harness.close()
