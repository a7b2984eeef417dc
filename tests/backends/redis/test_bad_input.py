"""What is wrong with a server or a URL is said at connect, by a typed error, soon."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure.errors import Unavailable, Unsupported

from tests.backends.redis.wire import ECHO, PUSH, Clock, key, routed, settings
from tests.services.sentinel import Sentinel
from tests.services.server import free_port
from tests.services.valkey import Valkey

SECRET = "hunter2-secret"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server with a password, four databases, and a user who may do little."""
    directory = tmp_path_factory.mktemp("locked")
    with Valkey.start(directory, "--databases", "4") as server:
        server.call(
            *("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "&*", "-@all"),
            *("+hello", "+auth", "+evalsha", "+eval", "+client|setname"),
        )
        server.call("CONFIG", "SET", "requirepass", SECRET)
        yield server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server that anybody may use, and others replicate."""
    directory = tmp_path_factory.mktemp("plain")
    with Valkey.start(directory, "--repl-diskless-sync-delay", "0") as server:
        yield server


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncGenerator[str]:
    """The URL of something that answers any first request with this, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        for part in answers:
            writer.write(part)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def refusal(url: str) -> Unavailable | Unsupported:
    """How opening fails: soon, and without giving the secret away."""
    async with routed(url) as router:
        with Clock() as clock, pytest.raises((Unavailable, Unsupported)) as caught:
            await router.open()
        assert clock.seconds < 2
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__
    return caught.value


def at(server: Valkey, userinfo: str = f":{SECRET}@", rest: str = "") -> str:
    return f"redis://{userinfo}127.0.0.1:{server.port}{rest}"


async def test_a_wrong_password(locked: Valkey) -> None:
    error = await refusal(at(locked, f":{SECRET}-not@"))
    assert isinstance(error, Unavailable)
    assert error.lasting
    assert "refused the user name and password" in str(error)


async def test_no_password_where_one_is_needed(locked: Valkey) -> None:
    error = await refusal(at(locked, ""))
    assert isinstance(error, Unavailable)
    assert error.lasting
    assert "wants a user name and a password" in str(error)


async def test_a_password_where_none_is_needed_does_no_harm(plain: Valkey) -> None:
    async with routed(at(plain)) as router:
        await router.open()


async def test_an_unknown_user(locked: Valkey) -> None:
    assert "refused the user name and password" in str(
        await refusal(at(locked, f"nobody:{SECRET}@"))
    )


async def test_a_database_number_that_does_not_exist(locked: Valkey) -> None:
    error = await refusal(at(locked, rest="/4"))
    assert isinstance(error, Unavailable)
    assert error.lasting
    assert "has no database 4" in str(error)


async def test_another_database(locked: Valkey) -> None:
    async with routed(at(locked, rest="/3")) as router:
        await router.call(1, PUSH, key(1, "three"), b"v")
    async with routed(at(locked)) as router:
        await router.open()
        assert await router.execute(router.nodes()[0], b"EXISTS", key(1, "three")) == 0


async def test_a_user_who_may_run_scripts_and_no_more(locked: Valkey) -> None:
    """INFO and SCRIPT are forbidden: scripts travel whole, and each connection is an epoch."""
    epochs: set[bytes] = set()
    for _ in range(2):
        async with routed(at(locked, f"reader:{SECRET}@")) as router:
            reply = await router.call(1, ECHO, key(1, "x"), b"v")
            assert reply.value == b"v"
            epochs.add(reply.epoch)
            with pytest.raises(Unavailable, match="does not permit this user") as caught:
                await router.execute(router.nodes()[0], b"GET", b"k")
            assert caught.value.lasting
    assert len(epochs) == 2


async def test_a_port_where_nobody_listens() -> None:
    error = await refusal(f"redis://127.0.0.1:{free_port()}")
    assert isinstance(error, Unavailable)
    assert not error.lasting  # it may be starting
    assert "refused the connection" in str(error)


async def test_a_host_that_does_not_exist() -> None:
    assert "no such host" in str(await refusal(f"redis://:{SECRET}@nowhere.invalid"))


async def test_a_host_that_cannot_even_be_looked_up() -> None:
    error = await refusal("redis://a..b")
    assert isinstance(error, Unavailable)
    assert error.lasting
    assert "no such host" in str(error)


async def test_a_host_that_is_silent() -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal(f"redis://:{SECRET}@127.0.0.1:{port}?connect_timeout=0.2")
    assert "no answer within 0.2 s" in str(error)


async def test_a_server_that_is_no_redis() -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        assert "does not speak Redis's protocol" in str(await refusal(url))


async def test_a_server_that_hangs_up() -> None:
    async with answering() as url:
        assert "connection was lost; does it want TLS" in str(await refusal(url))


async def test_a_server_from_before_resp3_that_quotes_what_it_was_sent() -> None:
    quoting = f"-ERR unknown command `HELLO`, with args beginning with: `3`, `{SECRET}`,\r\n"
    async with answering(quoting.encode()) as url:
        error = await refusal(url.replace("//", f"//:{SECRET}@"))
    assert isinstance(error, Unsupported)
    assert "needs Redis 7.0" in str(error)


async def test_a_server_that_is_too_old() -> None:
    greeting = b"%2\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"
    async with answering(greeting, b"+OK\r\n$0\r\n\r\n$0\r\n\r\n" + b"+sha\r\n" * 3) as url:
        error = await refusal(url)
    assert isinstance(error, Unsupported)
    assert "is version 6.2.14; perdure needs Redis 7.0" in str(error)


async def test_a_server_that_is_full_of_clients(plain: Valkey) -> None:
    async with routed(plain.url) as router:
        await router.open()
        (node,) = router.nodes()
        await router.execute(node, b"CONFIG", b"SET", b"maxclients", b"1")
        try:
            error = await refusal(plain.url)
        finally:
            await router.execute(node, b"CONFIG", b"SET", b"maxclients", b"1000")
    assert isinstance(error, Unavailable)
    assert not error.lasting
    assert "max number of clients reached" in str(error)


async def test_a_read_only_replica(plain: Valkey, tmp_path: Path) -> None:
    with Valkey.start(tmp_path, "--replicaof", f"127.0.0.1 {plain.port}") as replica:
        replica.wait_until_synchronized()
        error = await refusal(replica.url)
        assert isinstance(error, Unavailable)
        assert error.lasting
        assert "is a read-only replica" in str(error)
        # The primary among several addresses is found.
        async with routed(f"{replica.url}?hosts=127.0.0.1:{plain.port}") as router:
            await router.open()
            assert router.nodes()[0].address.port == plain.port


async def test_a_sentinel_named_as_a_server(plain: Valkey, tmp_path: Path) -> None:
    with Sentinel.watch(tmp_path / "sentinel", plain) as sentinel:
        error = await refusal(sentinel.url)
        assert "write redis+sentinel://" in str(error)
        error = await refusal(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
        assert "watches no service 'other'" in str(error)
    error = await refusal(f"redis+sentinel://127.0.0.1:{plain.port}/perdure")
    assert "is not a Sentinel" in str(error)


async def test_a_socket_that_does_not_exist(tmp_path: Path) -> None:
    error = await refusal(f"redis+unix://{tmp_path}/none.sock")
    assert isinstance(error, Unavailable)
    assert error.lasting
    assert "none.sock: No such file or directory" in str(error)


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "v.sock"
    with Valkey.start(tmp_path, "--unixsocket", str(path)):
        async with routed(f"redis+unix://{path}?db=2") as router:
            assert (await router.call(1, ECHO, key(1, "x"), b"v")).value == b"v"


def test_no_secret_is_shown() -> None:
    shown = repr(
        settings(
            f"redis+sentinel://user:{SECRET}@host/service"
            f"?sentinel_username=user&sentinel_password={SECRET}"
        )
    )
    assert "service" in shown
    assert SECRET not in shown
