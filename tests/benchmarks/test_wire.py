"""The proxy between a store and its server counts what it passes on."""

import asyncio

from benchmarks.wire import Proxy, Traffic


async def _double(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that says every line twice."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
        await asyncio.sleep(0.01)  # a reply in two pieces
        writer.write(line)
    writer.close()


async def test_a_round_trip_is_one_whatever_pieces_it_comes_in() -> None:
    server = await asyncio.start_server(_double, "127.0.0.1", 0)
    async with server, Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        for line in (b"one\n", b"three\n"):
            writer.write(line[:1])
            await asyncio.sleep(0.01)  # a request in two pieces
            writer.write(line[1:])
            assert [await reader.readline(), await reader.readline()] == [line, line]
        assert proxy.traffic == Traffic(requests=2, replies=2, sent=10, received=20)
        writer.close()


async def test_traffic_is_counted_from_any_moment_on() -> None:
    before = Traffic(requests=1, replies=1, sent=10, received=20)
    now = Traffic(requests=3, replies=2, sent=15, received=50)
    assert now.since(before) == Traffic(requests=2, replies=1, sent=5, received=30)
