"""What becomes of a request that is not answered as it should be."""

import asyncio
import gzip
import os
import time
from collections.abc import AsyncGenerator

import pytest
from aiohttp import web

from perdure import Store
from perdure.errors import OutcomeUnknown, Unavailable
from perdure.protocol.answers import encode_hello
from perdure.protocol.refusals import Code, Refused, answer_to
from perdure.types import ListQuery

from perdure_durable_objects import connection
from tests.backends.durable_objects.front import Front, drop
from tests.backends.durable_objects.opened import client_of, commit_of, new_key


@pytest.fixture
async def front(durable_objects_url: str) -> AsyncGenerator[Front]:
    async with Front.before(durable_objects_url) as front:
        yield front


async def test_a_lost_reply_leaves_the_outcome_open_and_the_store_settles_it(
    front: Front,
) -> None:
    lost = 0

    async def lose_two(request: web.Request) -> web.StreamResponse:
        nonlocal lost
        answer = await front.pass_on(request)
        if request.path.endswith("/commit") and lost < 2:
            lost += 1
            return await drop(request) if lost == 1 else web.Response(status=502, text="<html>")
        return answer

    front.handler = lose_two
    async with Store(front.url) as store:
        session = store.tenant(new_key().tenant).session("a")
        await session.append({"n": 1})
        await session.append({"n": 2})
        assert await session.entries() == [{"n": 1}, {"n": 2}]
    assert lost == 2
    assert front.requests.count("commit") == 4


@pytest.mark.parametrize("status", [500, 502, 504, 520])
async def test_a_failure_that_says_nothing_may_have_been_a_success(
    front: Front, status: int
) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>bad gateway</html>")

    front.handler = fail
    key, commit = new_key(), commit_of(b"x")
    async with client_of(front.url) as client:
        with pytest.raises(OutcomeUnknown) as raised:
            await client.commit(key, commit)
        assert raised.value.commit == commit
        with pytest.raises(OutcomeUnknown):
            await client.delete(key, id=os.urandom(16))
        with pytest.raises(Unavailable) as unavailable:
            await client.read(key)
        assert not unavailable.value.lasting


async def test_an_overloaded_server_is_left_alone(front: Front) -> None:
    begun: list[float] = []

    async def overloaded_once(request: web.Request) -> web.StreamResponse:
        begun.append(time.monotonic())
        if len(begun) > 1:
            return await front.pass_on(request)
        answer = answer_to(Refused(Code.OVERLOADED, "too much at once"), 0)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    front.handler = overloaded_once
    store = Store(front.url)
    try:
        await store.tenant(new_key().tenant).session("a").append({"n": 1})
    finally:
        await store.aclose()
    assert len(begun) == 2
    assert begun[1] - begun[0] >= 1.0


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("9" * 14, 86_400), ("9" * 5000, 86_400), ("soon", 1)]
)
async def test_a_limit_of_rate_is_honoured_within_reason(
    front: Front, header: str, seconds: int
) -> None:
    async def limited(_: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": header})

    front.handler = limited
    async with client_of(front.url) as client:
        with pytest.raises(Unavailable) as raised:
            await client.commit(new_key(), commit_of(b"x"))
    assert raised.value.retry_after == seconds
    assert not raised.value.lasting


async def test_nothing_is_sent_where_a_redirect_points(front: Front) -> None:
    async def away(_: web.Request) -> web.StreamResponse:
        headers = {"Location": f"http://127.0.0.1:{front.port}/elsewhere"}
        return web.Response(status=307, headers=headers)

    front.handler = away
    async with client_of(front.url) as client:
        for work in (
            client.open(),
            client.commit(new_key(), commit_of(b"x")),
            client.wait(new_key(), after=None, timeout=1),
        ):
            with pytest.raises(Unavailable) as raised:
                await work
            assert raised.value.lasting
    # Who cannot wait by WebSocket asks.
    assert front.requests == ["v1", "commit", "wait", "read"]


@pytest.mark.parametrize("body", [b"", b"<html>welcome</html>", b"\xc0", b"\x94\xc0\x00\x90"])
async def test_something_else_that_answers_is_not_believed(front: Front, body: bytes) -> None:
    async def welcome(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    front.handler = welcome
    key = new_key()
    async with client_of(front.url) as client:
        for work in (client.open(), client.read(key), client.list("t", "k", ListQuery())):
            with pytest.raises(Unavailable) as raised:
                await work
            assert raised.value.lasting
        with pytest.raises(OutcomeUnknown):
            await client.commit(key, commit_of(b"x"))


async def test_a_compressed_answer_is_not_unpacked(front: Front) -> None:
    async def packed(_: web.Request) -> web.StreamResponse:
        body = gzip.compress(bytes(1 << 20))
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    front.handler = packed
    async with client_of(front.url) as client:
        with pytest.raises(Unavailable):
            await client.read(new_key())


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_is_not_taken_in_without_bound(
    front: Front, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    async def long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = 100_000
        await response.prepare(request)
        await response.write(bytes(100_000))
        return response

    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 50_000)
    front.handler = long
    async with client_of(front.url) as client:
        with pytest.raises(Unavailable, match="more than 50000 bytes"):
            await client.read(new_key())
        with pytest.raises(OutcomeUnknown):
            await client.commit(new_key(), commit_of(b"x"))


async def test_another_version_of_the_protocol_is_said_at_open(front: Front) -> None:
    async with client_of(front.url) as client:
        hello = await client.hello()
    body = encode_hello(
        software=hello.software,
        now=hello.now,
        capabilities=hello.capabilities,
        description=hello.description,
    )
    answer = answer_to(Refused(Code.UNSUPPORTED_VERSION, "version 2 only"), 0)
    answers = [
        (200, body.replace(b"protocol\x01", b"protocol\x02")),
        (answer.status, answer.body),
    ]

    async def other(_: web.Request) -> web.StreamResponse:
        status, body = answers.pop()
        return web.Response(status=status, body=body)

    front.handler = other
    while answers:
        async with client_of(front.url) as client:
            with pytest.raises(Unavailable, match="version") as raised:
                await client.open()
            assert raised.value.lasting


async def test_a_silent_server_is_given_up(front: Front) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    front.handler = silent
    async with client_of(front.url, timeout=0.2) as client:
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await client.read(new_key())
        with pytest.raises(OutcomeUnknown):
            await client.commit(new_key(), commit_of(b"x"))
        assert time.monotonic() - begun < 3


async def test_a_server_that_only_trickles_is_given_up_too(front: Front) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None:
            await response.write(b"x")
            await asyncio.sleep(0.02)
        return response

    front.handler = trickle
    async with client_of(front.url, timeout=0.1) as client:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            await client.read(new_key())
        assert time.monotonic() - begun < 4
