"""Connections are few, shared fairly, and never waited for without end."""

import asyncio
import time

import pytest
from psycopg.conninfo import make_conninfo

from perdure.errors import Unavailable

from perdure_postgres import database as database_module
from perdure_postgres.database import Database
from tests.backends.postgres.databases import administer, commit, connected, query, until

NAME = "pool-test"


async def connections(url: str) -> int:
    """How many of the tests in this module are open."""
    ((count,),) = await administer(
        url,
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = %s AND pid <> pg_backend_pid()",
        NAME,
    )
    return count


async def until_none_is_open(url: str) -> None:
    async def none_is_open() -> bool:
        return await connections(url) == 0

    await until(none_is_open)


@pytest.fixture
async def url(postgres_url: str) -> str:
    url = make_conninfo(postgres_url, application_name=NAME)
    await until_none_is_open(url)  # of the test before
    return url


async def test_connections_are_made_when_needed_and_no_more_than_allowed(url: str) -> None:
    async with connected(url, pool=3) as database:
        assert await connections(url) == 0
        for _ in range(5):
            await query(database, "SELECT 1")
        assert await connections(url) == 1
        await asyncio.gather(*(query(database, "SELECT pg_sleep(0.01)") for _ in range(20)))
        assert await connections(url) == 3
    await until_none_is_open(url)


async def test_an_exhausted_pool_is_an_error_in_time(url: str) -> None:
    async with connected(url, pool=2, timeout=0.5) as database:
        began = time.monotonic()
        # The server stops the first after 0.45 s.
        calls = [query(database, "SELECT pg_sleep(0.4), 'held'") for _ in range(2)]
        calls += [query(database, "SELECT pg_sleep(0.4), 'late'") for _ in range(2)]
        late = [query(database, "SELECT 1") for _ in range(20)]
        late += [commit(database, "", "SELECT 1") for _ in range(20)]
        results = await asyncio.gather(*calls, *late, return_exceptions=True)
        assert time.monotonic() - began < 2
        refused = [result for result in results if isinstance(result, BaseException)]
        assert len(refused) >= len(late)
        for error in refused:
            assert isinstance(error, Unavailable)
            assert "no connection came free (2 of 2 in use) within 0.5 s" in str(error)
            assert not error.lasting
        assert await query(database, "SELECT 1") == [(1,)]


async def test_reads_and_commits_wait_in_one_line(url: str) -> None:
    order: list[str] = []

    async def noted(name: str, database: Database) -> None:
        if name.startswith("read"):
            await query(database, "SELECT 1")
        else:
            await commit(database, name, "SELECT 1")
        order.append(name)

    async with connected(url, pool=1) as database:
        await query(database, "SELECT 1")
        names = ["read 1", "commit 1", "commit 2", "read 2", "commit 3", "read 3"]
        await asyncio.gather(*(noted(name, database) for name in names))
    # All commits go with the first.
    assert order == ["read 1", "commit 1", "commit 2", "commit 3", "read 2", "read 3"]


async def test_steady_commits_leave_connections_for_reads(url: str) -> None:
    async with connected(url, pool=2) as database:
        writing = True

        async def write(number: int) -> None:
            while writing:
                await commit(database, f"{number}", "SELECT pg_sleep(0.001)")

        writers = [asyncio.create_task(write(number)) for number in range(40)]
        began = time.monotonic()
        for _ in range(20):
            await query(database, "SELECT 1")
        waited = time.monotonic() - began
        writing = False
        await asyncio.gather(*writers)
        assert waited < 2


@pytest.mark.usefixtures("administrator", "direct_url")  # makes a role without a password
async def test_fewer_connections_than_wanted_will_do(url: str) -> None:
    await administer(url, "CREATE ROLE pool_of_two LOGIN CONNECTION LIMIT 2")
    limited = make_conninfo(url, user="pool_of_two")
    async with connected(limited, pool=6) as database:
        for _ in range(3):
            calls = [query(database, "SELECT pg_sleep(0.01), 1") for _ in range(12)]
            assert len(await asyncio.gather(*calls)) == 12
        assert await connections(url) == 2
        async with connected(limited) as another:
            with pytest.raises(Unavailable, match="too many connections") as raised:
                await query(another, "SELECT 1")
            assert not raised.value.lasting
    await administer(url, "DROP ROLE pool_of_two")


async def test_idle_connections_are_closed_in_the_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "IDLE_SECONDS", 0.1)

    async with connected(url, timeout=0.5) as database:
        await asyncio.gather(*(query(database, "SELECT pg_sleep(0.01)") for _ in range(4)))
        assert await connections(url) == 4
        await until_none_is_open(url)
        assert await query(database, "SELECT 1") == [(1,)]


async def test_cancelled_callers_leak_no_connection(url: str) -> None:
    async with connected(url, pool=2) as database:
        for round in range(10):
            tasks = [
                asyncio.create_task(
                    query(database, "SELECT pg_sleep(0.002)")
                    if n % 2
                    else commit(database, f"{n}", "SELECT pg_sleep(0.002)")
                )
                for n in range(20)
            ]
            await asyncio.sleep(round * 0.001)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await query(database, "SELECT 1") == [(1,)]
        assert await connections(url) <= 2


async def test_cancelled_while_connecting(url: str) -> None:
    async with connected(url, pool=1) as database:
        for _ in range(5):
            task = asyncio.create_task(query(database, "SELECT 1"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await query(database, "SELECT 1") == [(1,)]
    async with connected(url) as database:
        task = asyncio.create_task(query(database, "SELECT 1"))
        await asyncio.sleep(0)
        task.cancel()
    await until_none_is_open(url)
