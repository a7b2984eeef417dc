"""Notifications reach everybody who waits, over one connection that is made anew when lost."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

import pytest
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGresult

from perdure.errors import StoreClosed, Unavailable

from perdure_postgres import listening
from perdure_postgres.connection import Connection, Encoded, Finished
from perdure_postgres.database import Database
from perdure_postgres.failures import Failure
from tests.backends.postgres.databases import administer, connected, until
from tests.services.postgres import NO_SYNC, Postgres

NAME = "listening-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of our own, to be restarted."""
    with Postgres.start(tmp_path_factory.mktemp("postgres"), *NO_SYNC) as server:
        yield server


@pytest.fixture
async def database(server: Postgres) -> AsyncIterator[Database]:
    async with connected(make_conninfo(server.url, application_name=NAME)) as database:
        yield database


async def sessions(server: Postgres) -> list[int]:
    """The processes that serve connections of ours, while none runs anything but LISTEN."""
    found = await administer(
        server.url, "SELECT pid FROM pg_stat_activity WHERE application_name = %s", NAME
    )
    return [pid for (pid,) in found]


async def notify(server: Postgres, channel: str) -> None:
    await administer(server.url, "SELECT pg_notify(%s, '')", channel)


class Waiter:
    """Counts how often it is woken."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def wake(self) -> None:
        self.count += 1
        self._event.set()

    async def woken(self) -> None:
        """Wait until it is, since the last time."""
        async with asyncio.timeout(10):
            await self._event.wait()
        self._event.clear()


async def test_who_listens_is_woken_and_nobody_else(
    server: Postgres, database: Database
) -> None:
    odd = 'every "name" is a channel; even \\this\' one'
    waiters = [Waiter() for _ in range(3)]
    for waiter, channel in zip(waiters, (odd, odd, "another"), strict=True):
        await database.listen(channel, waiter.wake)
    await notify(server, odd)
    await waiters[0].woken()
    await waiters[1].woken()
    assert waiters[2].count == 0
    await notify(server, "another")
    await waiters[2].woken()
    assert [waiter.count for waiter in waiters] == [1, 1, 1]


async def test_everybody_shares_one_connection(server: Postgres, database: Database) -> None:
    waiters = [Waiter() for _ in range(100)]
    await asyncio.gather(
        *(database.listen(f"channel {n % 50}", waiter.wake) for n, waiter in enumerate(waiters))
    )
    assert len(await sessions(server)) == 1
    await asyncio.gather(*(notify(server, f"channel {n}") for n in range(0, 50, 7)))
    await asyncio.gather(*(w.woken() for n, w in enumerate(waiters) if n % 50 % 7 == 0))


async def test_who_has_left_is_not_woken(server: Postgres, database: Database) -> None:
    gone, here = Waiter(), Waiter()
    subscription = await database.listen("room", gone.wake)
    await database.listen("room", here.wake)
    subscription.close()
    subscription.close()
    await notify(server, "room")
    await here.woken()
    assert gone.count == 0


async def test_a_lost_connection_is_made_anew_and_everybody_woken(
    server: Postgres, database: Database
) -> None:
    waiters = [Waiter(), Waiter()]
    for waiter, channel in zip(waiters, ("one", "two"), strict=True):
        await database.listen(channel, waiter.wake)
    for _ in range(3):
        (pid,) = await sessions(server)
        await administer(server.url, "SELECT pg_terminate_backend(%s, 5000)", pid)
        for waiter in waiters:
            await waiter.woken()
        await notify(server, "two")
        await waiters[1].woken()
    assert waiters[0].count == 3


async def test_a_connection_lost_right_after_its_answer_is_made_anew(
    server: Postgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = iter((True, False))

    class ShortLived(Connection):
        """The first of them breaks before anybody has read its answer."""

        def send(self, statements: Iterable[Encoded], finished: Finished) -> None:
            def then_break(
                connection: Connection, results: list[PGresult], failure: Failure | None
            ) -> None:
                finished(connection, results, failure)
                if next(lives, False):
                    self.close()

            super().send(statements, then_break)

    monkeypatch.setattr(listening, "Connection", ShortLived)
    waiter = Waiter()
    await database.listen("one", waiter.wake)
    await waiter.woken()  # may have missed something
    await notify(server, "one")
    await waiter.woken()


async def test_a_restarted_server_is_listened_to_again(
    server: Postgres, database: Database
) -> None:
    waiter, other = Waiter(), Waiter()
    await database.listen("one", waiter.wake)
    await asyncio.to_thread(server.kill)
    with pytest.raises(Unavailable):
        await database.listen("two", other.wake)
    await asyncio.to_thread(server.restart)
    await waiter.woken()  # may have missed something
    await notify(server, "one")
    await waiter.woken()
    await database.listen("two", other.wake)
    await notify(server, "two")
    await other.woken()


async def test_nobody_listens_for_ever(
    server: Postgres, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LINGER", 0.05)
    subscription = await database.listen("left", Waiter().wake)
    assert len(await sessions(server)) == 1
    subscription.close()

    async def disconnected() -> bool:
        return not await sessions(server)

    await until(disconnected)
    again = Waiter()
    await database.listen("left", again.wake)
    await notify(server, "left")
    await again.woken()


async def test_a_cancelled_listener_leaves_nothing_behind(
    server: Postgres, database: Database
) -> None:
    for pause in (0, 0.001, 0.005, 0.01, 0.02):
        waiter = Waiter()
        task = asyncio.create_task(database.listen(f"c{pause}", waiter.wake))
        await asyncio.sleep(pause)
        if not task.cancel():
            task.result().close()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result().close()
        await notify(server, f"c{pause}")
        assert waiter.count == 0
    woken = Waiter()
    await database.listen("after", woken.wake)
    await notify(server, "after")
    await woken.woken()


async def test_closing_wakes_whoever_waits(server: Postgres, database: Database) -> None:
    waiter = Waiter()
    await database.listen("closing", waiter.wake)
    await database.aclose()
    await waiter.woken()
    with pytest.raises(StoreClosed):
        await database.listen("closing", waiter.wake)
