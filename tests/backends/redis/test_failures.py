"""What a server's refusal means: applied or not, lasting or not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.errors import Corrupt, OutcomeUnknown, PerdureError, Unavailable

from perdure_redis import router as router_module
from perdure_redis.router import Router
from perdure_redis.scripts import Script
from tests.backends.redis.wire import ALL, ECHO, PUSH, key, routed, script, until
from tests.services.valkey import Valkey

HALF = script("half", "redis.call('RPUSH', KEYS[1], 'half') error('a bug')")
FAILED_READ = script("failed-read", "error('a bug')", writes=False)
ENDLESS = script("endless", "while true do end")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey.start(tmp_path, "--busy-reply-threshold", "50") as server:
        yield server


async def refusal(router: Router, script: Script = PUSH) -> PerdureError:
    with pytest.raises(PerdureError) as caught:
        await router.call(1, script, key(1, "k"), b"v")
    return caught.value


async def test_a_full_server_was_not_written_to_and_stays_full(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        server.call("CONFIG", "SET", "maxmemory", "1")
        error = await refusal(router)
        assert isinstance(error, Unavailable)
        assert error.lasting
        assert "maxmemory is reached" in str(error)
        assert (await router.call(1, ALL, key(1, "k"))).value == []


async def test_too_few_replicas_may_pass(server: Valkey) -> None:
    async with routed(server.url) as router:
        server.call("CONFIG", "SET", "min-replicas-to-write", "1")
        error = await refusal(router)
        assert isinstance(error, Unavailable)
        assert not error.lasting


async def test_a_server_that_cannot_write_its_files(server: Valkey, tmp_path: Path) -> None:
    async with routed(server.url) as router:
        server.call("CONFIG", "SET", "save", "3600 1000000")
        (tmp_path / "dump.rdb").mkdir()  # in the way of the file
        server.call("BGSAVE")
        await until(
            lambda: server.fields("INFO", "persistence")["rdb_last_bgsave_status"] != "ok"
        )
        error = await refusal(router)
        assert isinstance(error, Unavailable)
        assert error.lasting
        assert "could not write its own files" in str(error)
    server.kill()  # it would not stop before it can save


async def test_a_primary_that_becomes_a_replica_is_asked_no_more(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        server.call("REPLICAOF", "127.0.0.1", "1")
        error = await refusal(router)
        assert isinstance(error, Unavailable)
        assert not error.lasting  # a failover is under way
        with pytest.raises(Unavailable, match="read-only replica"):
            await router.call(1, ECHO, key(1, "x"), b"v")  # no stale read either
        server.call("REPLICAOF", "NO", "ONE")
        assert (await router.call(1, ECHO, key(1, "x"), b"v")).value == b"v"


async def test_demotion_and_promotion_make_another_epoch(server: Valkey) -> None:
    async with routed(server.url) as router:
        before = await router.call(1, ECHO, key(1, "x"), b"v")
        server.call("REPLICAOF", "127.0.0.1", "1")
        await refusal(router)
        server.call("REPLICAOF", "NO", "ONE")
        assert (await router.call(1, ECHO, key(1, "x"), b"v")).epoch != before.epoch


async def test_demotion_and_promotion_are_noticed_by_who_calls_nothing_meanwhile(
    server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "LOOK_AGAIN", 0.02)
    async with routed(server.url) as router:
        before = await router.call(1, ECHO, key(1, "x"), b"v")
        await asyncio.sleep(0.1)
        assert (await router.call(1, ECHO, key(1, "x"), b"v")).epoch == before.epoch
        server.call("REPLICAOF", "127.0.0.1", "1")
        await until(lambda: not router.nodes())
        server.call("REPLICAOF", "NO", "ONE")
        assert (await router.call(1, ECHO, key(1, "x"), b"v")).epoch != before.epoch


async def test_a_server_busy_with_a_script(server: Valkey) -> None:
    async with routed(server.url, ENDLESS, PUSH) as router, routed(server.url) as other:
        await router.open()
        await other.open()
        endless = asyncio.create_task(refusal(router, ENDLESS))
        await asyncio.sleep(0.2)
        error = await refusal(other)
        assert isinstance(error, Unavailable)
        assert not error.lasting
        assert "busy with a script" in str(error)
        server.call("SCRIPT", "KILL")
        assert isinstance(await endless, PerdureError)


async def test_a_script_that_fails_midway_may_have_written(server: Valkey) -> None:
    async with routed(server.url, HALF, FAILED_READ) as router:
        assert isinstance(await refusal(router, HALF), OutcomeUnknown)
        assert server.call("LLEN", key(1, "k")) == 1
        assert isinstance(await refusal(router, FAILED_READ), Unavailable)


async def test_a_key_of_another_kind(server: Valkey) -> None:
    async with routed(server.url) as router:
        server.call("SET", key(1, "k"), "text")
        error = await refusal(router)
        assert isinstance(error, Corrupt)
        assert "the same prefix" in str(error)


async def test_a_server_that_is_loading(tmp_path: Path) -> None:
    with Valkey.start(tmp_path, "--loading-process-events-interval-bytes", "1024") as server:
        server.call("DEBUG", "POPULATE", "1000")
        async with routed(server.url) as router:
            await router.open()
            server.call("CONFIG", "SET", "key-load-delay", "300")  # µs for each key
            reload = asyncio.create_task(asyncio.to_thread(server.call, "DEBUG", "RELOAD"))
            seen: set[str] = set()
            while not reload.done():
                try:
                    await router.call(1, ECHO, key(1, "x"), b"v")
                except Unavailable as error:
                    assert not error.lasting
                    seen.add(str(error))
            await reload
            assert any("is loading its data" in text for text in seen)


async def test_an_error_quotes_nothing_of_what_was_sent(server: Valkey) -> None:
    async with routed(server.url) as router:
        await router.open()
        with pytest.raises(Unavailable) as caught:
            await router.execute(router.nodes()[0], b"NONSENSE", b"private words")
        assert "unknown command" in str(caught.value)
        assert "private" not in str(caught.value)
