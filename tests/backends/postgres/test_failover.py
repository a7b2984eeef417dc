"""A standby takes the place of a primary that died."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from perdure import Store
from perdure.errors import OutcomeUnknown, Unavailable

from perdure_postgres.connection import Statement
from perdure_postgres.database import Database
from tests.backends.postgres.databases import administer, commit, connected, query, until
from tests.backends.postgres.pooler import pooling
from tests.backends.postgres.standby import Standby
from tests.services.postgres import NO_SYNC, Postgres


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Postgres, Standby]]:
    with (
        Postgres.start(tmp_path / "primary", *NO_SYNC) as primary,
        Standby.of(primary, tmp_path / "standby") as standby,
    ):
        yield primary, standby


def either(primary: Postgres, standby: Standby) -> str:
    """A connection string that names both."""
    return make_conninfo(
        primary.url, host="127.0.0.1,127.0.0.1", port=f"{standby.port},{primary.port}"
    )


async def epoch(database: Database) -> bytes:
    return (await database.run(Statement(b"SELECT 1"), writes=False)).epoch


async def test_writes_go_on_at_the_new_primary(pair: tuple[Postgres, Standby]) -> None:
    primary, standby = pair
    await administer(primary.url, "CREATE TABLE t (a integer)")
    async with connected(either(primary, standby), timeout=5) as database:
        await commit(database, "", "INSERT INTO t VALUES (1)")
        before = await epoch(database)
        await asyncio.to_thread(primary.kill)
        # Only a standby is left.
        with pytest.raises((Unavailable, OutcomeUnknown)) as raised:
            await commit(database, "", "INSERT INTO t VALUES (2)")
        assert not getattr(raised.value, "lasting", False)
        await asyncio.to_thread(standby.promote)

        async def accepted() -> bool:
            try:
                await commit(database, "", "INSERT INTO t VALUES (3)")
            except Unavailable:
                return False
            return True

        await until(accepted)
        assert (3,) in await query(database, "SELECT a FROM t")
        after = await epoch(database)
    assert before
    assert after
    assert before != after


async def test_who_has_seen_what_a_failover_lost_reads_anew(
    pair: tuple[Postgres, Standby],
) -> None:
    primary, standby = pair
    hosts = f"host=127.0.0.1,127.0.0.1&port={standby.port},{primary.port}"
    async with Store(f"postgresql:///perdure?user=perdure&{hosts}") as store:
        session = store.session("chat")
        await session.append("kept")
        await until_replayed(primary, standby)
        await asyncio.to_thread(standby.stop_following)
        await session.append("lost")
        assert await session.entries() == ["kept", "lost"]
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.promote)
        # Versions go on as if nothing had been lost.
        async with Store(standby.url) as other:
            await other.session("chat").append("instead")
            await other.session("chat").append("after it")
        assert await session.entries() == ["kept", "instead", "after it"]


async def until_replayed(primary: Postgres, standby: Standby) -> None:
    ((position,),) = await administer(primary.url, "SELECT pg_current_wal_lsn()::text")

    async def replayed() -> bool:
        replay = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        return (await administer(standby.url, replay, position))[0][0]

    await until(replayed)


async def test_behind_a_pooler_each_answer_says_whose_it_is(
    pair: tuple[Postgres, Standby],
) -> None:
    primary, standby = pair
    with pooling(primary.url) as (url, pooler):
        async with connected(url, prepare=False) as database:
            before = await epoch(database)
            await asyncio.to_thread(standby.promote)
            pooler.redirect(standby.port)
            after = await epoch(database)
    assert len({b"", before, after}) == 3


async def test_a_restart_begins_no_new_epoch(tmp_path: Path) -> None:
    with Postgres.start(tmp_path, *NO_SYNC) as server:
        async with connected(server.url) as database:
            before = await epoch(database)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            assert await epoch(database) == before


async def test_a_restart_that_may_lose_commits_does(tmp_path: Path) -> None:
    with Postgres.start(tmp_path, *NO_SYNC, "synchronous_commit=off") as server:
        async with connected(server.url) as database:
            before = await epoch(database)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            assert await epoch(database) != before
