"""What a hostile client, a lossy network and racing deletions must not bring about, on the
Worker and on ``perdure serve`` alike."""

import asyncio
import http.client
import json
import os
import random
import socket
import time
from collections.abc import Iterator

import msgspec
import pytest
from aiohttp import web

from perdure.backend import Backend
from perdure.errors import OutcomeUnknown, Unavailable
from perdure.protocol.auth import Keys, bearer
from perdure.protocol.paths import Operation, path_of
from perdure.types import ListQuery, Order, Scan, SessionKey

from perdure_memory.backend import MemoryBackend
from tests.backends.durable_objects.front import Front, drop
from tests.backends.durable_objects.harness import MovedWorker
from tests.backends.durable_objects.opened import client_of, commit_of, new_key
from tests.contrib.server.served import Thread
from tests.services.worker import MAIN, OBJECTS, Worker, build

SECRET = "quinces-0123456789abcdef0123456789"
KEYS = json.dumps(
    [
        {"id": "all", "secret": SECRET},
        {"id": "some", "secret": SECRET, "tenants": ["figs", "plums", "quinces"]},
        {"id": "signing", "secret": SECRET, "mode": "hmac"},
    ]
)

Code = tuple[int, str | None]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory = tmp_path_factory.mktemp("anomalies")
    build(MAIN, directory / "built.js")
    with Worker.start(
        directory, directory / "built.js", objects=OBJECTS, variables={"PERDURE_KEYS": KEYS}
    ) as started:
        yield started.port


@pytest.fixture(scope="module")
def serve() -> Iterator[int]:
    async def memory() -> Backend:
        return MemoryBackend()

    with Thread(memory, Keys.parse(KEYS)) as thread:
        yield thread.port


@pytest.fixture(params=["worker", "serve"])
def port(request: pytest.FixtureRequest) -> int:
    """That of a server, with ``KEYS``."""
    return request.getfixturevalue(request.param)


def ask(port: int, target: str, body: bytes, key: str = "all") -> tuple[int, list[object]]:
    """Status and decoded body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", target, body, {"Authorization": bearer(key, SECRET)})
        response = connection.getresponse()
        return response.status, msgspec.msgpack.decode(response.read())
    finally:
        connection.close()


def code_of(answer: tuple[int, list[object]]) -> Code:
    status, body = answer
    return status, None if status == 200 else str(body[0])


def commit_fields(**changed: object) -> list[object]:
    fields: dict[str, object] = {
        "id": os.urandom(16),
        "digest": b"8 bytes.",
        "new_incarnation": os.urandom(16),
        "restored": None,
        "expect": 0,
        "incarnation": None,
        "conditions": [],
        "base": 0,
        "resend": False,
        "seen": None,
        "deletes": [],
        "puts": [],
        "appends": [],
        "stages": [],
        "meta": None,
        "labels": None,
        "expires_at": None,
        "expires_in": None,
        "returning": [],
    }
    return list((fields | changed).values())


def send_commit(port: int, key: SessionKey, **changed: object) -> Code:
    body = msgspec.msgpack.encode(commit_fields(**changed))
    return code_of(ask(port, path_of(Operation.COMMIT, key.tenant, key.kind, key.id), body))


def test_no_page_tells_a_limited_key_of_other_tenants(port: int) -> None:
    for tenant in ("a secret", "figs", "figs too", "plums", "zebras"):
        assert send_commit(port, SessionKey(tenant, "k", "i"))[0] == 200
    for limit in (1, 2, 100):
        seen: list[object] = []
        cursor: object = None
        while True:
            body = msgspec.msgpack.encode((cursor, limit))
            status, (names, cursor) = ask(port, path_of(Operation.TENANTS), body, "some")
            assert status == 200
            assert isinstance(names, list)
            seen += names
            if cursor is None:
                break
            assert cursor in ("figs", "plums", "quinces")
        assert seen == ["figs", "plums"]


def test_the_worker_reads_no_body_of_who_only_asks_to_get(worker: int) -> None:
    """It need not be announced, and comes before the signature can be checked."""
    now = time.time_ns() // 1_000_000
    head = (
        "GET /v1 HTTP/1.1\r\nHost: worker\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Perdure-HMAC-SHA256 signing:{now}:{'0' * 64}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", worker), timeout=5) as connection:
        connection.sendall(head.encode() + b"1\r\nx\r\n")  # and no end
        assert connection.recv(12) == b"HTTP/1.1 401"


@pytest.mark.parametrize(
    "seven",
    ["07", "cc07", "cd0007", "cf0000000000000007", "d007", "d10007", "d30000000000000007"],
)
def test_an_integer_is_taken_in_any_encoding(port: int, seven: str) -> None:
    key = new_key()
    scan = bytes.fromhex("96c400c0c0c2") + bytes.fromhex(seven) + b"\xc0"
    target = path_of(Operation.READ, key.tenant, key.kind, key.id)
    assert ask(port, target, b"\x91" + scan)[0] == 200


@pytest.mark.parametrize("integer", ["ff", "d0ff", "d1ffff", "d2ffffffff", "d3" + 8 * "ff"])
def test_a_negative_integer_is_refused(port: int, integer: str) -> None:
    key = new_key()
    scan = bytes.fromhex("96c400c0c0c2") + bytes.fromhex(integer) + b"\xc0"
    target = path_of(Operation.READ, key.tenant, key.kind, key.id)
    assert code_of(ask(port, target, b"\x91" + scan)) == (400, "invalid")


async def test_no_commit_makes_numbers_that_cannot_be_told(port: int) -> None:
    largest = 2**53 - 1
    for changed in ({"expires_in": largest}, {"expect": 2, "restored": [largest, 0, 0]}):
        key = new_key()
        assert send_commit(port, key, **changed) == (400, "invalid")
        assert send_commit(port, key) == (200, None)
        async with client_of(f"http://all:{SECRET}@127.0.0.1:{port}") as client:
            head = (await client.read(key)).head
        assert head is not None
        assert head.version == 1


def test_both_servers_take_and_refuse_the_same(worker: int, serve: int) -> None:
    choice = random.Random(20261122)
    whole = msgspec.msgpack.encode(
        commit_fields(
            conditions=[[b"q", 0], [None, 0]],
            deletes=[b"z", [b"y", None]],
            puts=[[b"a", b"1"]],
            appends=[[b"p", [b"x", b""]]],
            meta=b"meta",
            labels=["label"],
            expires_in=60_000,
            returning=[[b"", None, 5, True, 0, 100], b"a"],
        )
    )
    refused = 0
    for _ in range(400):
        body = bytearray(whole)
        for _ in range(choice.choice((1, 1, 2, 4))):
            body[choice.randrange(len(body))] = choice.choice(
                (0xC0, 0xC4, 0xCF, 0xD0, 0xD3, 0xDD, 0xA1, 0xFF, 0, choice.randrange(256))
            )
        if choice.random() < 0.2:
            del body[choice.randrange(len(body)) :]
        key = new_key()
        target = path_of(Operation.COMMIT, key.tenant, key.kind, key.id)
        answers = [code_of(ask(port, target, bytes(body))) for port in (worker, serve)]
        assert answers[0] == answers[1], body.hex()
        assert answers[0][0] < 500, body.hex()
        refused += answers[0][0] == 400
    assert 100 < refused < 400


async def test_lost_requests_and_replies_do_nothing_twice(port: int) -> None:
    choice = random.Random(1)
    async with Front.before(f"http://all:{SECRET}@127.0.0.1:{port}") as front:

        async def lossy(request: web.Request) -> web.StreamResponse:
            fate, body = choice.random(), await request.read()
            if fate < 0.1:
                return await drop(request)
            answer = await front.pass_on(request, body)
            if fate < 0.35:
                return await drop(request)
            if fate < 0.45:
                return web.Response(status=502, body=b"<html>bad gateway</html>")
            return answer

        front.handler = lossy
        key = new_key()

        async def write(writer: int) -> list[bytes]:
            values = [b"%d of %d" % (n, writer) for n in range(12)]
            async with client_of(front.url) as client:
                for value in values:
                    commit = commit_of(value)
                    while True:
                        try:
                            await client.commit(key, commit)
                            break
                        except OutcomeUnknown as error:
                            assert not error.forgotten
                            commit = msgspec.structs.replace(commit, resend=True)
                        except Unavailable:
                            pass
            return values

        written = await asyncio.gather(*map(write, range(4)))
        front.handler = front.pass_on
        async with client_of(front.url) as client:
            (rows,) = (await client.read(key, Scan())).rows
        assert sorted(item.value for item in rows.items) == sorted(
            value for values in written for value in values
        )


async def test_a_list_knows_who_is_there_after_deletions_and_returns(
    moved_worker: MovedWorker,
) -> None:
    """With readers that make directories forget what they do not find meanwhile."""
    choice = random.Random(2)
    tenant = new_key().tenant
    async with client_of(moved_worker.url) as client:

        async def come_and_go(n: int) -> None:
            key = SessionKey(tenant, "k", f"{n:02}")
            for _ in range(5):
                await client.commit(key, commit_of(b"here"))
                if choice.random() < 0.2:
                    await asyncio.to_thread(moved_worker.evict, key)
                if choice.random() < 0.8:
                    await client.delete(key, id=os.urandom(16))
            if n % 2:
                await client.commit(key, commit_of(b"here to stay"))
            else:
                await client.delete(key, id=os.urandom(16))

        async def read_lists() -> None:
            while True:
                order, limit = choice.choice(list(Order)), choice.choice((1, 3, 50))
                await client.list(tenant, "k", ListQuery(order=order, limit=limit))

        reading = asyncio.create_task(read_lists())
        await asyncio.gather(*map(come_and_go, range(16)))
        for order in Order:
            page = await client.list(tenant, "k", ListQuery(order=order))
            assert sorted(entry.key.id for entry in page.items) == [
                f"{n:02}" for n in range(16) if n % 2
            ]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_many_expired_sessions_do_not_hide_those_behind_them(
    moved_worker: MovedWorker,
) -> None:
    tenant = new_key().tenant
    async with client_of(moved_worker.url) as client:

        async def pass_by(n: int) -> None:
            key = SessionKey(tenant, "k", f"{n:04}")
            commit = msgspec.structs.replace(commit_of(b"gone soon"), expires_in=1000)
            await client.commit(key, commit)

        await asyncio.gather(*map(pass_by, range(200)))
        await client.commit(SessionKey(tenant, "k", "there"), commit_of(b"here"))
        await asyncio.sleep(1.1)  # their alarms may not have gone off yet
        for limit in (1, 200):
            page = await client.list(tenant, "k", ListQuery(limit=limit))
            assert [entry.key.id for entry in page.items] == ["there"]
