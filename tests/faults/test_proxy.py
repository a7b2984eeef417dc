"""The proxy breaks what it is told to, at the byte it is told, and nothing else."""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Fault, Part, Proxy, Then, address_of

REPLY = b"0123456789"


class Served:
    """What the server has got, over all its connections."""

    def __init__(self) -> None:
        self.got = b""
        self.connections = 0
        self.idle = asyncio.Event()


class Answering(asyncio.Protocol):
    """A server's side of a connection: ten bytes for each line."""

    transport: asyncio.Transport

    def __init__(self, served: Served) -> None:
        self.served = served

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.served.connections += 1
        self.served.idle.clear()

    def data_received(self, data: bytes) -> None:
        self.served.got += data
        if data.endswith(b"\n"):
            self.transport.write(REPLY)

    def connection_lost(self, exc: Exception | None) -> None:
        self.served.connections -= 1
        if not self.served.connections:
            self.served.idle.set()


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
async def proxy(served: Served) -> AsyncIterator[Proxy]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(served), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with await Proxy.start(f"any://ann:pw@127.0.0.1:{port}/path?a=b") as proxy:
            yield proxy
        if served.connections:
            await served.idle.wait()


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> bytes:
        """The reply, or as much of it as came before the end."""
        self.writer.write(request)
        try:
            return await self.reader.readexactly(len(REPLY))
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def connect(proxy: Proxy) -> Client:
    port = int(proxy.url.rpartition("/path")[0].rpartition(":")[2])
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def test_what_is_not_to_fail_passes_and_is_counted(proxy: Proxy) -> None:
    assert proxy.url.startswith("any://ann:pw@127.0.0.1:")
    assert proxy.url.endswith("/path?a=b")
    client, other = await connect(proxy), await connect(proxy)
    for request in (b"a\n", b"plum\n"):
        assert await client.ask(request) == REPLY
    assert await other.ask(b"other\n") == REPLY
    assert [(e.request, e.reply) for e in proxy.exchanges] == [(2, 10), (5, 10), (6, 10)]
    assert proxy.connections == 2
    await client.aclose()
    await other.aclose()
    assert proxy.fired == 0


@pytest.mark.parametrize("passing", range(len(REPLY) + 1))
async def test_a_reply_is_cut_after_exactly_so_many_bytes(
    proxy: Proxy, served: Served, passing: int
) -> None:
    client = await connect(proxy)
    assert await client.ask(b"first\n") == REPLY
    proxy.arm(Fault(Part.REPLY, passing, Then.CLOSE))
    assert await client.ask(b"plum\n") == REPLY[:passing]
    assert await client.reader.read() == b""
    assert served.got == b"first\nplum\n"
    assert (proxy.fired, proxy.connections) == (1, 0)
    await client.aclose()
    client = await connect(proxy)
    assert await client.ask(b"next\n") == REPLY
    await client.aclose()


@pytest.mark.parametrize("passing", range(6))
async def test_a_request_is_cut_after_exactly_so_many_bytes(
    proxy: Proxy, served: Served, passing: int
) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REQUEST, passing, Then.CLOSE))
    assert await client.ask(b"plum\n") == b""
    await client.aclose()
    client = await connect(proxy)  # by then the server has had all
    assert await client.ask(b"\n") == REPLY
    assert served.got == b"plum\n"[:passing] + b"\n"
    await client.aclose()


async def test_a_request_is_chosen_by_what_it_contains_and_by_number(proxy: Proxy) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REPLY, 3, Then.CLOSE, containing=b"plum", nth=2))
    for request in (b"pear\n", b"one plum\n", b"pear\n"):
        assert await client.ask(request) == REPLY
    assert await client.ask(b"two plums\n") == REPLY[:3]
    await client.aclose()


@pytest.mark.parametrize("before", [b"", b"a", b"an", b"any"])
async def test_a_request_is_chosen_by_what_it_contains_in_base64(
    proxy: Proxy, before: bytes
) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REPLY, 3, Then.CLOSE, containing=b"plum"))
    assert await client.ask(b64encode(before + b"pear tree") + b"\n") == REPLY
    assert await client.ask(b64encode(before + b"plum tree") + b"\n") == REPLY[:3]
    await client.aclose()


def test_a_server_is_found_in_an_option_of_a_url_too() -> None:
    url = "any://table?region=there&endpoint=http://127.0.0.1:1234&more=yes"
    assert address_of(url) == ("127.0.0.1", 1234)
    assert address_of("any://ann:123@host:1234/path?port=5:6") == ("host", 1234)


async def test_what_is_shorter_than_the_fault_passes(proxy: Proxy) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REPLY, 11, Then.CLOSE))
    assert await client.ask(b"plum\n") == REPLY
    assert proxy.fired == 0
    await client.aclose()


async def test_a_reset_is_an_error_and_not_an_end(proxy: Proxy) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REQUEST, 0, Then.RESET))
    with pytest.raises(ConnectionResetError):
        await client.ask(b"plum\n")
    await client.aclose()


async def test_a_stalled_connection_stays_open_and_silent(proxy: Proxy, served: Served) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REPLY, 4, Then.STALL))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.ask(b"plum\n")
    client.writer.write(b"more\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.reader.readexactly(5)
    assert served.got == b"plum\n"
    assert proxy.connections == 1
    await client.aclose()


async def test_a_pause_is_only_a_pause(proxy: Proxy) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REPLY, 4, Then.PAUSE, pause=0.1))
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await client.ask(b"plum\n") == REPLY
    assert loop.time() - start > 0.09
    assert await client.ask(b"plum\n") == REPLY
    await client.aclose()


async def test_a_paused_request_arrives_although_its_client_has_gone(
    proxy: Proxy, served: Served
) -> None:
    client = await connect(proxy)
    proxy.arm(Fault(Part.REQUEST, 2, Then.PAUSE, pause=0.1))
    client.writer.write(b"plum\n")
    await asyncio.sleep(0.05)
    await client.aclose()
    assert served.got == b"pl"
    await asyncio.sleep(0.1)
    assert served.got == b"plum\n"
    assert (proxy.connections, served.connections) == (0, 0)


async def test_all_connections_are_cut_at_will(proxy: Proxy) -> None:
    client = await connect(proxy)
    assert await client.ask(b"plum\n") == REPLY
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await client.reader.read()
    await client.aclose()
    assert proxy.connections == 0


async def test_without_a_server_a_connection_ends(unused_tcp_port: int) -> None:
    async with await Proxy.start(f"any://127.0.0.1:{unused_tcp_port}/path") as proxy:
        client = await connect(proxy)
        with pytest.raises(ConnectionResetError):
            await client.ask(b"plum\n")
        await client.aclose()
