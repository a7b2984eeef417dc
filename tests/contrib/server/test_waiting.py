"""Waiting for a change: WebSockets to the server."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from perdure import START, Store
from perdure.protocol.auth import bearer
from perdure.protocol.paths import Operation, path_of
from perdure.protocol.requests import wait_query

from tests.contrib.server.conftest import memory
from tests.contrib.server.served import SECRET, Thread, url_of
from tests.contrib.server.speaking import Speaker, commit, talk
from tests.services.server import wait_until

BEARER = {"Authorization": bearer("app", SECRET)}


def place(thread: Thread, tenant: str, query: str = "after=wA&timeout=5000") -> str:
    """The address of a wait for session ``s``; by default, for it to exist."""
    path = path_of(Operation.WAIT, tenant, "session", "s")
    return f"http://127.0.0.1:{thread.port}{path}?{query}"


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def heard(thread: Thread, tenant: str, query: str) -> Any:
    """The one message of a wait, decoded; the server closes well."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(place(thread, tenant, query), headers=BEARER) as socket,
    ):
        message = await socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        closing = await socket.receive(timeout=10)
        assert closing.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1000
        return msgspec.msgpack.decode(message.data)


async def test_a_wait_ends_with_the_commit(thread: Thread) -> None:
    waiting = asyncio.ensure_future(heard(thread, "commit", wait_query(None, 10_000)))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    speak = Speaker(thread.port)
    made = await asyncio.to_thread(
        speak, Operation.COMMIT, "commit", "session", "s", body=commit()
    )
    assert await waiting == made.body[2]


async def test_a_wait_that_is_late_ends_at_once(thread: Thread) -> None:
    speak = Speaker(thread.port)
    made = speak(Operation.COMMIT, "late", "session", "s", body=commit())
    assert await heard(thread, "late", wait_query(None, 10_000)) == made.body[2]


async def test_a_wait_ends_after_its_time(thread: Thread) -> None:
    assert await heard(thread, "time", wait_query(None, 50)) is None


async def test_any_number_wait_for_one_session(thread: Thread) -> None:
    query = wait_query(None, 10_000)
    waits = [asyncio.ensure_future(heard(thread, "many", query)) for _ in range(50)]
    await until(lambda: thread.application.load.waits == 50)
    speak = Speaker(thread.port)
    await asyncio.to_thread(speak, Operation.COMMIT, "many", "session", "s", body=commit())
    heads = await asyncio.gather(*waits)
    assert [head[0] for head in heads] == [1] * 50


async def test_who_leaves_waits_no_longer(thread: Thread) -> None:
    async with aiohttp.ClientSession() as session:
        address = place(thread, "leaves", wait_query(None, 60_000))
        socket = await session.ws_connect(address, headers=BEARER)
        await socket.send_bytes(b"what is sent has no meaning")
        assert thread.application.load.waits == 1
        await socket.close()
    await until(lambda: thread.application.load.waits == 0)


@pytest.mark.parametrize(
    ("query", "key", "tenant", "status"),
    [
        ("after=wA&timeout=50", None, "t", 401),
        ("after=wA&timeout=50", f"Bearer app.{'x' * 32}", "t", 401),
        ("after=wA&timeout=50", bearer("plums", SECRET), "t", 403),
        ("", None, "t", 401),
        ("", bearer("app", SECRET), "t", 400),
        ("after=wA", bearer("app", SECRET), "t", 400),
        ("after=wA&timeout=-1", bearer("app", SECRET), "t", 400),
        ("after=wA&timeout=1e3", bearer("app", SECRET), "t", 400),
        ("after=!&timeout=50", bearer("app", SECRET), "t", 400),
        ("after=kA&timeout=50", bearer("app", SECRET), "t", 400),
        ("after=wA&timeout=50&timeout=50", bearer("app", SECRET), "t", 400),
    ],
)
async def test_a_wait_is_refused_before_the_handshake(
    thread: Thread, query: str, key: str | None, tenant: str, status: int
) -> None:
    headers = {} if key is None else {"Authorization": key}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(place(thread, tenant, query), headers=headers)
        assert refused.value.status == status


async def test_a_wait_without_a_websocket_is_refused(thread: Thread) -> None:
    path = path_of(Operation.WAIT, "t", "session", "s")
    refused = Speaker(thread.port).send("GET", f"{path}?after=wA&timeout=50")
    assert (refused.status, refused.code) == (400, "invalid")


async def test_a_websocket_is_for_waits_only(thread: Thread) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            address = f"http://127.0.0.1:{thread.port}/v1"
            await session.ws_connect(address, headers=BEARER)
        assert refused.value.status == 404


HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n"
    "Authorization: {bearer}\r\n\r\n"
)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff" + bytes(20),  # reserved bits
        b"\x82\x05hello",  # not masked
        b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + bytes(4),  # endless
        b"\x81\x82\x00\x00\x00\x00\xc3\x28",  # text that is not UTF-8
        b"\x83\x80" + bytes(4),  # of no known kind
    ],
)
def test_malformed_frames_close_their_connection_and_no_other(
    thread: Thread, frame: bytes
) -> None:
    path = path_of(Operation.WAIT, "frames", "session", "s") + "?after=wA&timeout=400"
    request = HANDSHAKE.format(
        path=path, version=13, key="AAAAAAAAAAAAAAAAAAAAAA==", bearer=BEARER["Authorization"]
    )
    said = talk(thread.port, request.encode(), frame, pause=0.05)
    assert said.startswith(b"HTTP/1.1 101 ")
    assert b"Traceback" not in said
    assert Speaker(thread.port)(Operation.HELLO).status == 200


@pytest.mark.parametrize(("version", "key"), [(12, "AAAAAAAAAAAAAAAAAAAAAA=="), (13, "short")])
def test_malformed_handshakes_are_refused(thread: Thread, version: int, key: str) -> None:
    path = path_of(Operation.WAIT, "frames", "session", "s") + "?after=wA&timeout=400"
    request = HANDSHAKE.format(
        path=path, version=version, key=key, bearer=BEARER["Authorization"]
    )
    said = talk(thread.port, request.encode())
    assert said.split(b" ")[1] in (b"400", b"426"), said


async def test_a_session_is_watched_through_the_server(thread: Thread) -> None:
    async with (
        Store(url_of(thread.port), tenant="watched") as store,
        Store(url_of(thread.port, "signer", auth="hmac"), tenant="watched") as other,
    ):
        session = store.session("s")
        await session.append("one")

        async def watch() -> list[str]:
            seen: list[str] = []
            async for entry in other.session("s").watch(after=START):
                seen.append(entry.value)
                if len(seen) == 3:
                    break
            return seen

        watching = asyncio.ensure_future(watch())
        for text in ("two", "three"):
            await asyncio.sleep(0.05)
            await session.append(text)
        assert await asyncio.wait_for(watching, 10) == ["one", "two", "three"]


async def test_more_waits_than_it_takes_are_refused() -> None:
    with Thread(memory, max_waits=1) as thread:
        query = wait_query(None, 60_000)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(place(thread, "t", query), headers=BEARER),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(place(thread, "t", query), headers=BEARER)
            assert refused.value.status == 503
            assert refused.value.headers is not None
            assert refused.value.headers["Retry-After"] == "1"
