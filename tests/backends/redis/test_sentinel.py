"""Under Sentinel: the primary is found, and followed, be it dead or merely replaced."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure.errors import OutcomeUnknown, Unavailable

from perdure_redis.router import Router
from tests.backends.redis.wire import ALL, ECHO, PUSH, key, routed, until, values
from tests.services.sentinel import NAME, Sentinel, Sentinels
from tests.services.server import free_port
from tests.services.valkey import Valkey

LIST = key(1, "list")


@pytest.fixture
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels.start(tmp_path_factory.mktemp("sentinels")) as sentinels:
        yield sentinels


def port_of(router: Router) -> int:
    """That of the server that calls go to; 0 while there is none."""
    return router.nodes()[0].address.port if router.nodes() else 0


@asynccontextmanager
async def writers(router: Router) -> AsyncGenerator[dict[bytes, bytes]]:
    """Eight of them, each pushing values of its own; yields the acknowledged: value → epoch."""
    acknowledged: dict[bytes, bytes] = {}

    async def write(writer: int) -> None:
        number = 0
        while True:
            value = b"%d.%d" % (writer, number)
            try:
                acknowledged[value] = (await router.call(1, PUSH, LIST, value)).epoch
            except OutcomeUnknown:
                number += 1
            except Unavailable as error:
                assert not error.lasting, error
                await asyncio.sleep(0.02)
            else:
                number += 1

    tasks = [asyncio.create_task(write(n)) for n in range(8)]
    try:
        await until(lambda: len(acknowledged) >= 500)
        yield acknowledged
        reached = len(acknowledged)
        await until(lambda: len(acknowledged) >= reached + 200)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def check(router: Router, acknowledged: dict[bytes, bytes]) -> None:
    """Nothing is there twice, and nothing missing that the server that answers acknowledged.

    Replication is asynchronous: a failover may lose what was acknowledged before, but whoever
    was told so has seen another epoch, and knows that he must look.
    """
    reply = await router.call(1, ALL, LIST)
    stored = values(reply)
    assert len(set(stored)) == len(stored)
    missing = acknowledged.keys() - set(stored)
    assert all(acknowledged[value] != reply.epoch for value in missing)
    assert len(set(acknowledged.values())) == 2


async def test_a_dead_primary(sentinels: Sentinels) -> None:
    first, _, service = sentinels.url.partition("//")[2].partition("/")
    name, _, others = service.partition("?hosts=")
    # The first Sentinel named does not answer.
    url = f"redis+sentinel://127.0.0.1:{free_port()}/{name}?hosts={first},{others}&timeout=2"
    woken = asyncio.Event()
    async with routed(url) as router:
        await router.subscribe(1, key(1, "channel"), woken.set)
        async with writers(router) as acknowledged:
            assert port_of(router) == sentinels.primary.port
            sentinels.primary.kill()
            await until(lambda: port_of(router) == sentinels.replica.port)
        await check(router, acknowledged)
        await until(woken.is_set)  # something may have been missed
        woken.clear()
        await until(lambda: sentinels.replica.call("SPUBLISH", key(1, "channel"), ""))
        await until(woken.is_set)


async def test_a_primary_replaced_while_it_lives(sentinels: Sentinels) -> None:
    """It goes on acknowledging until Sentinel demotes it, seconds later: too late for us."""
    woken = asyncio.Event()
    async with routed(sentinels.url) as router:
        await router.subscribe(1, key(1, "channel"), woken.set)
        async with writers(router) as acknowledged:
            sentinels.sentinels[0].call("SENTINEL", "FAILOVER", NAME)
            await until(lambda: port_of(router) == sentinels.replica.port)
            await until(woken.is_set)
            assert sentinels.primary.fields("INFO", "replication")["role"] == "master"
        await check(router, acknowledged)


async def test_a_sentinel_that_dies_is_replaced_by_another(tmp_path: Path) -> None:
    with (
        Valkey.start(tmp_path / "primary") as primary,
        Sentinel.watch(tmp_path / "one", primary) as one,
        Sentinel.watch(tmp_path / "two", primary) as two,
    ):

        def watched() -> list[Sentinel]:
            """Those that are listened to."""
            running = (sentinel for sentinel in (one, two) if sentinel.running)
            return [s for s in running if "name=perdure" in str(s.call("CLIENT", "LIST"))]

        url = f"redis+sentinel://127.0.0.1:{one.port}/{NAME}?hosts=127.0.0.1:{two.port}"
        async with routed(url) as router:
            await router.call(1, ECHO, LIST, b"v")
            await until(lambda: len(watched()) == 1)
            (first,) = watched()
            first.kill()
            await until(lambda: len(watched()) == 1)
            assert (await router.call(1, ECHO, LIST, b"v")).value == b"v"
        await until(lambda: watched() == [])
