"""Being woken by what is published, across interruptions, and at no cost when unwatched."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.errors import StoreClosed, Unavailable

from perdure_redis import subscriptions
from tests.backends.redis.wire import ECHO, key, routed, until
from tests.services.valkey import Valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey.start(tmp_path) as server:
        yield server


@pytest.fixture
def brief_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "LINGER", 0.05)


class Listener:
    """Counts how often it was woken."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def connections(server: Valkey) -> int:
    listed = server.call("CLIENT", "LIST")
    assert isinstance(listed, bytes)
    return listed.count(b" name=perdure ")


async def test_what_is_published_wakes_all_who_listen_and_nobody_else(server: Valkey) -> None:
    one, two, other = Listener(), Listener(), Listener()
    async with routed(server.url) as router:
        await router.subscribe(1, key(1, "c"), one)
        await router.subscribe(1, key(1, "c"), two)
        await router.subscribe(2, key(2, "d"), other)
        assert server.call("SPUBLISH", key(1, "c"), "") == 1  # one connection for all
        await until(lambda: one.count == two.count == 1)
        assert server.call("SPUBLISH", key(2, "d"), "") == 1
        await until(lambda: other.count == 1)
        assert (one.count, two.count) == (1, 1)


async def test_nobody_who_does_not_listen_pays(server: Valkey, brief_linger: None) -> None:
    async with routed(server.url) as router:
        await router.open()
        assert connections(server) == 1
        subscription = await router.subscribe(1, key(1, "c"), Listener())
        assert connections(server) == 2
        await subscription.aclose()
        await subscription.aclose()
        await until(lambda: connections(server) == 1)
        assert (await router.call(1, ECHO, key(1, "x"), b"v")).value == b"v"


async def test_one_of_several_channels_ends(server: Valkey, brief_linger: None) -> None:
    stays, goes = Listener(), Listener()
    async with routed(server.url) as router:
        await router.subscribe(1, key(1, "stays"), stays)
        subscription = await router.subscribe(1, key(1, "goes"), goes)
        await subscription.aclose()
        await until(lambda: server.call("SPUBLISH", key(1, "goes"), "") == 0)
        server.call("SPUBLISH", key(1, "stays"), "")
        await until(lambda: stays.count == 1)
        assert goes.count == 0
        await router.subscribe(1, key(1, "goes"), goes)
        server.call("SPUBLISH", key(1, "goes"), "")
        await until(lambda: goes.count == 1)


async def test_waiting_again_and_again_subscribes_once(server: Valkey) -> None:
    async with routed(server.url) as router:
        for _ in range(5):
            subscription = await router.subscribe(1, key(1, "c"), Listener())
            await subscription.aclose()
        statistics = server.fields("INFO", "commandstats")
        assert statistics["cmdstat_ssubscribe"].startswith("calls=1,")


async def test_many_who_subscribe_at_once_share_one_connection(server: Valkey) -> None:
    listeners = [Listener() for _ in range(200)]
    async with routed(server.url) as router:
        await asyncio.gather(
            *(
                router.subscribe(1, key(1, str(n % 20)), listener)
                for n, listener in enumerate(listeners)
            )
        )
        assert connections(server) == 2  # that of the calls, and that of all subscriptions
        for n in range(20):
            assert server.call("SPUBLISH", key(1, str(n)), "") == 1
        await until(lambda: all(listener.count == 1 for listener in listeners))


async def test_a_cancelled_subscriber_is_not_woken(server: Valkey) -> None:
    left, stayed = Listener(), Listener()
    async with routed(server.url) as router:
        leaving = asyncio.create_task(router.subscribe(1, key(1, "c"), left))
        staying = asyncio.create_task(router.subscribe(1, key(1, "c"), stayed))
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
        server.call("SPUBLISH", key(1, "c"), "")
        await until(lambda: stayed.count == 1)
        assert left.count == 0


async def test_a_subscription_outlives_its_connection_and_wakes_on_return(
    server: Valkey,
) -> None:
    listener = Listener()
    async with routed(server.url) as router:
        await router.subscribe(1, key(1, "c"), listener)
        server.call("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: listener.count == 1)  # something may have been missed
        assert server.call("SPUBLISH", key(1, "c"), "") == 1
        await until(lambda: listener.count == 2)


async def test_a_subscription_outlives_its_server(server: Valkey) -> None:
    listener = Listener()
    async with routed(server.url) as router:
        await router.subscribe(1, key(1, "c"), listener)
        server.kill()
        await asyncio.sleep(0.1)
        server.restart()
        await until(lambda: listener.count == 1)
        assert server.call("SPUBLISH", key(1, "c"), "") == 1
        await until(lambda: listener.count == 2)


async def test_a_user_who_may_not_subscribe_is_told_for_good(server: Valkey) -> None:
    server.call("ACL", "SETUSER", "deaf", "on", "nopass", "~*", "+@all", "-ssubscribe")
    async with routed(server.url.replace("//", "//deaf:x@")) as router:
        with pytest.raises(Unavailable, match="does not permit") as caught:
            await router.subscribe(1, key(1, "c"), Listener())
        assert caught.value.lasting
        assert (await router.call(1, ECHO, key(1, "x"), b"v")).value == b"v"


async def test_closing_wakes_who_listens_and_leaves_nothing(server: Valkey) -> None:
    listener = Listener()
    async with routed(server.url) as router:
        subscription = await router.subscribe(1, key(1, "c"), listener)
        await router.aclose()
        assert listener.count == 1
        await subscription.aclose()
        with pytest.raises(StoreClosed):
            await router.subscribe(1, key(1, "c"), listener)
        await asyncio.to_thread(lambda: None)
        assert connections(server) == 0


async def test_closing_while_a_subscription_is_being_restored(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.subscribe(1, key(1, "c"), Listener())
        server.kill()
        await asyncio.sleep(0.1)
