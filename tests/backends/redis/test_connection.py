"""One shared connection: order, cancellation, size, silence, loss, closing."""

import asyncio
import gc
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from perdure.errors import Corrupt, OutcomeUnknown, StoreClosed, Unavailable

from perdure_redis.router import Reply, Router
from tests.backends.redis.wire import ALL, ECHO, PUSH, Clock, key, relay, routed, values
from tests.services.valkey import Valkey

MEGABYTE = 1024 * 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    """One of the test's own, to be stopped and killed."""
    with Valkey.start(tmp_path) as server:
        yield server


async def test_every_caller_gets_its_own_reply(valkey_url: str) -> None:
    async with routed(valkey_url) as router:

        async def call(number: int) -> None:
            text = b"%d" % number * (number % 50)
            reply = await router.call(number % 64, ECHO, key(number % 64, "echo"), text)
            assert reply.value == text

        await asyncio.gather(*map(call, range(2000)))


async def test_calls_of_one_turn_travel_together(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()

        def reads() -> int:
            return int(server.fields("INFO", "stats")["total_reads_processed"])

        before = reads()
        probes = reads() - before  # what looking costs
        before = reads()
        await asyncio.gather(*(router.call(1, ECHO, key(1, "x"), b"x") for _ in range(100)))
        assert reads() - before - probes <= 2


async def test_all_callers_share_one_attempt_to_connect(server: Valkey) -> None:
    async with routed(server.url + "?client_name=many") as router:
        await asyncio.gather(*(router.call(n, ECHO, key(n, "x"), b"x") for n in range(64)))
        clients = server.call("CLIENT", "LIST")
        assert isinstance(clients, bytes)
        assert clients.count(b" name=many ") == 1


async def test_a_cancelled_call_takes_no_reply_from_another(valkey_url: str) -> None:
    chance = random.Random(7)

    async def call(router: Router, number: int) -> None:
        text = b"%d" % number
        assert (await router.call(3, ECHO, key(3, "x"), text)).value == text

    async with routed(valkey_url) as router:
        await router.open()
        cancelled = 0
        for turns in range(60):
            calls = [asyncio.create_task(call(router, number)) for number in range(40)]
            for _ in range(turns % 5):
                await asyncio.sleep(0)
            for task in chance.sample(calls, 20):
                task.cancel()
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)
                cancelled += result is not None
        assert cancelled


async def test_a_cancelled_first_caller_does_not_stop_the_connecting(valkey_url: str) -> None:
    async with routed(valkey_url) as router:
        first = asyncio.create_task(router.call(1, ECHO, key(1, "x"), b"first"))
        second = asyncio.create_task(router.call(1, ECHO, key(1, "x"), b"second"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).value == b"second"


async def test_requests_and_replies_of_16_megabytes(server: Valkey) -> None:
    async with routed(server.url) as router:
        value = os.urandom(16 * MEGABYTE)
        await router.call(1, PUSH, key(1, "big"), value)
        small = asyncio.create_task(router.call(1, ECHO, key(1, "x"), b"small"))
        assert (await router.call(1, ALL, key(1, "big"))).value == [value]
        assert (await small).value == b"small"


async def test_a_slow_server_makes_callers_wait_and_not_memory_grow(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        connection = router.nodes()[0].connection
        assert connection is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            value = bytes(MEGABYTE)
            calls = [
                asyncio.create_task(router.call(1, PUSH, key(1, "slow"), value))
                for _ in range(64)
            ]
            await asyncio.sleep(0.2)
            assert connection.congested
            assert connection.unsent_bytes < 8 * MEGABYTE
            for call in calls[32:48]:
                call.cancel()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        results = await asyncio.gather(*calls, return_exceptions=True)
        acknowledged = sum(not isinstance(result, BaseException) for result in results)
        assert acknowledged == 48
        assert server.call("LLEN", key(1, "slow")) == 48


async def test_a_forgotten_script_is_sent_whole(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        server.call("SCRIPT", "FLUSH")
        calls = [router.call(1, PUSH, key(1, "again"), b"%d" % n) for n in range(50)]
        await asyncio.gather(*calls)
        assert server.call("LLEN", key(1, "again")) == 50


async def test_a_transaction_reads_at_one_moment(valkey_url: str) -> None:
    async with routed(valkey_url) as router:
        name = key(5, "transaction")
        await router.call(5, PUSH, name, b"v")
        reply = await router.transact(5, (b"LLEN", name), (b"LRANGE", name, b"0", b"-1"))
        length, stored = cast("tuple[int, list[bytes]]", reply.value)
        assert length == len(stored) >= 1
        with pytest.raises(Unavailable, match="wrong number of arguments"):
            await router.transact(5, (b"LLEN", name), (b"LLEN",))
        with pytest.raises(Corrupt, match="data of another kind"):
            await router.transact(5, (b"LLEN", name), (b"HLEN", name))
        assert (await router.call(5, ECHO, name, b"fine")).value == b"fine"


async def test_a_stalled_server_ends_calls_in_bounded_time(server: Valkey) -> None:
    async with routed(server.url + "?timeout=0.4") as router:
        await router.open()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with Clock() as clock:
                write = asyncio.create_task(router.call(1, PUSH, key(1, "stall"), b"v"))
                later: list[asyncio.Task[Reply]] = []
                while not write.done():  # that others go on asking is no sign of life
                    call = router.call(1, ECHO, key(1, "x"), bytes(1000))
                    later.append(asyncio.create_task(call))
                    await asyncio.sleep(0.01)
                with pytest.raises(OutcomeUnknown, match=r"silent for 0\.4 s"):
                    await write
                with pytest.raises(Unavailable, match=r"silent for 0\.4 s"):
                    await later[0]
            assert 0.4 <= clock.seconds < 2
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await asyncio.gather(*later, return_exceptions=True)
        assert (await router.call(1, ECHO, key(1, "x"), b"back")).value == b"back"


async def test_a_server_that_is_slow_but_sends_is_not_given_up(server: Valkey) -> None:
    async with (
        relay(server.port, trickle=0.05) as port,
        routed(f"redis://127.0.0.1:{port}?timeout=0.2&connect_timeout=30", ECHO) as router,
    ):
        await router.open()
        text = os.urandom(600)
        with Clock() as clock:
            assert (await router.call(1, ECHO, key(1, "x"), text)).value == text
        assert clock.seconds > 0.4


async def test_an_idle_connection_is_not_given_up(server: Valkey) -> None:
    async with routed(server.url + "?timeout=0.1") as router:
        await router.open()
        connection = router.nodes()[0].connection
        await asyncio.sleep(0.5)
        await router.call(1, ECHO, key(1, "x"), b"v")
        assert router.nodes()[0].connection is connection


async def test_losing_the_server_tells_writes_from_reads(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        epoch = (await router.call(1, PUSH, key(1, "lost"), b"v")).epoch
        os.kill(server.pid, signal.SIGSTOP)
        write = asyncio.create_task(router.call(1, PUSH, key(1, "lost"), b"v"))
        read = asyncio.create_task(router.call(1, ECHO, key(1, "x"), b"v"))
        await asyncio.sleep(0.05)
        unsent = asyncio.create_task(router.call(1, PUSH, key(1, "lost"), b"v"))
        server.kill()
        with pytest.raises(OutcomeUnknown):
            await write
        with pytest.raises(Unavailable):
            await read
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await unsent
        with pytest.raises(Unavailable, match="refused the connection"):
            await router.call(1, PUSH, key(1, "lost"), b"v")
        server.restart()
        reply = await router.call(1, PUSH, key(1, "lost"), b"v")
        assert reply.value == 1  # this server kept nothing,
        assert reply.epoch != epoch  # and that can be seen


async def test_a_write_never_sent_was_not_applied(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        connection = router.nodes()[0].connection
        assert connection is not None
        first = asyncio.create_task(router.call(1, PUSH, key(1, "first"), b"v"))
        second = asyncio.create_task(router.call(1, PUSH, key(1, "second"), b"v"))
        await asyncio.sleep(0)  # both asked, the second not yet written to the socket
        connection.abort("the test says so")
        with pytest.raises(OutcomeUnknown, match="the test says so"):
            await first
        with pytest.raises(Unavailable, match="the test says so"):
            await second
        assert server.call("LLEN", key(1, "second")) == 0


async def test_what_callers_are_told_is_true_while_connections_break(server: Valkey) -> None:
    """Acknowledged: there, once. Unavailable: not there. Unknown or cancelled: perhaps."""
    name = key(1, "truth")
    chance = random.Random(11)
    told: dict[bytes, type[BaseException] | None] = {}

    async def call(router: Router, value: bytes) -> None:
        try:
            await router.call(1, PUSH, name, value)
        except (Unavailable, OutcomeUnknown, asyncio.CancelledError) as error:
            told[value] = type(error)
        else:
            told[value] = None

    async with routed(server.url) as router:
        for number in range(60):
            await router.open()
            (node,) = router.nodes()
            assert node.connection is not None
            calls = [
                asyncio.create_task(call(router, b"%d.%d." % (number, n) + bytes(n * 400)))
                for n in range(40)
            ]
            for _ in range(number % 5):
                await asyncio.sleep(0)
            for task in chance.sample(calls, 5):
                task.cancel()
            if number % 3 == 0:
                node.connection.abort("the test says so")
            elif number % 3 == 1:
                server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.gather(*calls, return_exceptions=True)
        stored = Counter(values(await router.call(1, ALL, name)))
    assert stored.total() == len(stored)
    for value, error in told.items():
        if error is None:
            assert value in stored
        elif error is Unavailable:
            assert value not in stored
    assert {None, Unavailable, OutcomeUnknown, asyncio.CancelledError} == set(told.values())


async def test_a_server_that_greets_and_hangs_up_is_tried_anew() -> None:
    greetings = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greetings
        greetings += 1
        await reader.read(1000)
        writer.write(b"%3\r\n+version\r\n+7.2.0\r\n+mode\r\n+standalone\r\n")
        writer.write(b"+role\r\n+master\r\n+OK\r\n$0\r\n\r\n$0\r\n\r\n+sha\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with routed(f"redis://127.0.0.1:{port}", ECHO) as router:
            for _ in range(5):
                with pytest.raises(Unavailable):
                    await router.call(1, ECHO, key(1, "x"), b"v")
    assert greetings >= 5


async def test_closing_waits_for_replies_that_are_owed(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        calls = [
            asyncio.create_task(router.call(1, PUSH, key(1, "owed"), b"v")) for _ in range(20)
        ]
        await asyncio.sleep(0)
        await router.aclose()
        await asyncio.gather(*calls)
        assert server.call("LLEN", key(1, "owed")) == 20
        with pytest.raises(StoreClosed):
            await router.call(1, PUSH, key(1, "owed"), b"v")
        with pytest.raises(StoreClosed):
            await router.open()
        await router.aclose()


async def test_closing_a_router_that_was_never_opened(valkey_url: str) -> None:
    async with routed(valkey_url) as router:
        pass
    with pytest.raises(StoreClosed):
        await router.call(1, ECHO, key(1, "x"), b"v")


async def test_closing_while_connecting() -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        async with routed(f"redis://127.0.0.1:{port}") as router:
            calls = [
                asyncio.create_task(router.call(n, ECHO, key(n, "x"), b"v")) for n in range(4)
            ]
            await asyncio.sleep(0.05)
            with Clock() as clock:
                await router.aclose()
            assert clock.seconds < 1
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, StoreClosed)


async def test_closing_on_a_stalled_server_takes_no_longer_than_its_timeout(
    server: Valkey,
) -> None:
    async with routed(server.url + "?timeout=0.2") as router:
        await router.open()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            call = asyncio.create_task(router.call(1, PUSH, key(1, "stalled"), b"v"))
            await asyncio.sleep(0)
            with Clock() as clock:
                await router.aclose()
            assert clock.seconds < 1
            with pytest.raises(OutcomeUnknown):
                await call
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_closing_waits_quietly_for_the_reply_of_a_cancelled_call(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        server.call("CLIENT", "PAUSE", "500")
        call = asyncio.create_task(router.call(1, PUSH, key(1, "cancelled"), b"v"))
        await asyncio.sleep(0)
        call.cancel()
        before = time.process_time()
        await router.aclose()
        assert time.process_time() - before < 0.1
        assert server.call("LLEN", key(1, "cancelled")) == 1


def test_a_loop_that_ends_after_closing_leaves_nothing_behind(valkey_url: str) -> None:
    async def use() -> None:
        async with routed(valkey_url) as router:
            await router.call(1, ECHO, key(1, "x"), b"v")

    for _ in range(3):
        asyncio.run(use(), debug=True)
    gc.collect()  # a socket left open would warn, and warnings are errors
