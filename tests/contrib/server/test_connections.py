"""Sockets that do not speak HTTP as they should, and more work than the server takes."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.protocol.auth import bearer, sign
from perdure.protocol.limits import MAX_BODY_BYTES
from perdure.protocol.paths import Operation, path_of
from perdure.types import Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from perdure_server import bodies, connection
from tests.contrib.server.served import SECRET, Thread
from tests.contrib.server.speaking import ID, Speaker, commit, talk

AUTHORIZATION = f"Authorization: {bearer('app', SECRET)}\r\n".encode()
READ = path_of(Operation.READ, "t", "session", "s").encode()


def head(path: bytes, *headers: bytes, method: bytes = b"POST") -> bytes:
    """A request's head, with a good key."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"%s %s HTTP/1.1\r\nHost: h\r\n%s%s\r\n" % (method, path, AUTHORIZATION, lines)


GARBAGE: dict[str, bytes] = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "no version": b"GET /v1\r\n\r\n",
    "header without colon": b"GET /v1 HTTP/1.1\r\nHost\r\n\r\n",
    "control character": b"GET /v1\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
    "negative length": head(READ, b"Content-Length: -1"),
    "length in hexadecimal": head(READ, b"Content-Length: 0x1"),
    "two lengths": head(READ, b"Content-Length: 1", b"Content-Length: 2") + b"\x90",
    "length and chunks": head(READ, b"Content-Length: 1", b"Transfer-Encoding: chunked")
    + b"1\r\n\x90\r\n0\r\n\r\n",
    "bad chunk": head(READ, b"Transfer-Encoding: chunked") + b"zz\r\n\x90\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_what_is_not_http_is_refused_and_the_others_are_served(
    thread: Thread, what: str
) -> None:
    said = talk(thread.port, GARBAGE[what])
    status = said.split(b" ")[1] if said else b""
    assert status in (b"400", b"401", b""), said
    assert b"Traceback" not in said
    assert Speaker(thread.port)(Operation.HELLO).status == 200


def test_a_body_in_chunks_is_read(thread: Thread) -> None:
    request = head(READ, b"Transfer-Encoding: chunked", b"Connection: close")
    said = talk(
        thread.port, request, b"1\r\n\x91\r\n", b"3\r\n\xc4\x01k\r\n0\r\n\r\n", pause=0.02
    )
    assert said.startswith(b"HTTP/1.1 200 ")


def test_a_body_that_is_announced_too_long_is_refused_at_once(thread: Thread) -> None:
    length = b"Content-Length: %d" % (MAX_BODY_BYTES + 1)
    said = talk(thread.port, head(READ, length, b"Connection: close"))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"too_large" in said


def test_a_body_that_grows_too_long_is_refused_while_it_comes(thread: Thread) -> None:
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    request = head(READ, b"Transfer-Encoding: chunked", b"Connection: close")
    said = talk(thread.port, request, *[chunk] * 34)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert thread.application.load.held == 0


def test_a_head_without_end_is_cut_off(thread: Thread) -> None:
    line = b"X-Header: " + b"x" * 8000 + b"\r\n"
    assert talk(thread.port, b"GET /v1 HTTP/1.1\r\n", *[line] * 40, pause=0.001) == b""


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if half a minute had passed in no time."""
    monkeypatch.setattr(connection, "SECONDS", 0.3)
    monkeypatch.setattr(bodies, "SECONDS", 0.3)


@pytest.mark.usefixtures("hurried")
def test_who_is_too_slow_is_cut_off(thread: Thread) -> None:
    started = time.monotonic()
    assert talk(thread.port) == b""
    assert talk(thread.port, b"GET /v1 HT") == b""
    said = talk(thread.port, head(READ, b"Content-Length: 10"), b"\x91")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"the body took longer" in said
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("hurried")
def test_a_connection_that_is_used_is_not_cut_off(thread: Thread) -> None:
    with closing(HTTPConnection("127.0.0.1", thread.port, timeout=10)) as client:
        for _ in range(4):
            assert hello(client) == 200
            time.sleep(0.2)


def hello(client: HTTPConnection) -> int:
    """Ask, and read the answer to its end."""
    client.request("GET", "/v1", headers={"Authorization": bearer("app", SECRET)})
    response = client.getresponse()
    assert response.read()
    return response.status


def test_requests_may_follow_one_another_unasked(thread: Thread) -> None:
    request = head(READ, b"Content-Length: 1") + b"\x90"
    last = head(READ, b"Content-Length: 1", b"Connection: close") + b"\x90"
    said = talk(thread.port, request * 5 + last)
    assert said.count(b"HTTP/1.1 200 ") == 6


def test_answers_do_not_wait_for_acknowledgements(thread: Thread) -> None:
    """Nagle's algorithm would make each take 40 ms."""
    with closing(HTTPConnection("127.0.0.1", thread.port, timeout=10)) as client:
        started = time.monotonic()
        assert [hello(client) for _ in range(40)] == [200] * 40
        assert time.monotonic() - started < 40 * 0.02


def test_a_client_that_leaves_early_changes_nothing(thread: Thread) -> None:
    path = path_of(Operation.COMMIT, "left", "session", "s").encode()
    with socket.create_connection(("127.0.0.1", thread.port)) as client:
        client.sendall(head(path, b"Content-Length: 1000") + b"\xdc")
    speak = Speaker(thread.port)
    assert speak(Operation.READ, "left", "session", "s", body=[]).body[0] is None
    load = thread.application.load
    deadline = time.monotonic() + 10
    while (load.requests or load.held) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (load.requests, load.held) == (0, 0)


class Gated(Forwarding):
    """Reads wait until they are let through; one session is broken."""

    def __init__(self, backend: Backend, gate: threading.Event) -> None:
        super().__init__(backend)
        self.gate = gate

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        if key.id == "broken":
            raise RuntimeError(f"secret of {key}")
        await asyncio.to_thread(self.gate.wait)
        return await super().read(key, *reads)


def test_more_than_it_takes_is_refused_at_once_and_the_rest_is_done() -> None:
    gate = threading.Event()

    async def make() -> Backend:
        return Gated(MemoryBackend(), gate)

    with Thread(make, max_requests=4) as thread, ThreadPoolExecutor(4) as pool:
        speak = Speaker(thread.port)
        under_way = [
            pool.submit(speak, Operation.READ, "t", "session", "s", body=[]) for _ in range(4)
        ]
        while thread.application.load.requests < 4:
            time.sleep(0.01)
        for _ in range(3):
            refused = speak(Operation.COMMIT, "t", "session", "s", body=commit())
            assert (refused.status, refused.code) == (503, "overloaded")
            assert refused.response.headers["retry-after"] == "1"
        gate.set()
        assert [future.result().status for future in under_way] == [200] * 4
        assert speak(Operation.COMMIT, "t", "session", "s", body=commit()).body[0] == 1


def test_no_more_of_bodies_is_held_than_it_takes() -> None:
    async def make() -> Backend:
        return MemoryBackend()

    with Thread(make, max_held_bytes=100_000) as thread:
        speak = Speaker(thread.port)
        fits, too_much = ([[b"k", bytes(size)]] for size in (90_000, 100_001))
        refused = speak(Operation.COMMIT, "t", "session", "s", body=commit(puts=too_much))
        assert (refused.status, refused.code) == (503, "overloaded")
        made = speak(Operation.COMMIT, "t", "session", "s", body=commit(puts=fits))
        assert made.body[:2] == [1, ID]


def test_who_knows_no_secret_takes_nobodys_place() -> None:
    async def make() -> Backend:
        return MemoryBackend()

    now = int(time.time() * 1000)
    forged = sign("signer", "x" * 32, "POST", READ.decode(), now, b"").encode()
    lines = (b"Host: h", b"Content-Length: 60000", b"Authorization: " + forged)
    request = b"POST %s HTTP/1.1\r\n%s\r\n\r\n" % (READ, b"\r\n".join(lines))
    with Thread(make, max_requests=4, max_held_bytes=100_000) as thread, ExitStack() as stack:
        for _ in range(8):
            peer = socket.create_connection(("127.0.0.1", thread.port))
            stack.enter_context(closing(peer)).sendall(request + bytes(20_000))
        deadline = time.monotonic() + 10
        while thread.application.load.held < 40_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 40_000 <= thread.application.load.held <= 50_000
        made = Speaker(thread.port)(Operation.COMMIT, "t", "session", "s", body=commit())
        assert made.body[:2] == [1, ID]


def test_a_defect_is_logged_without_what_it_quotes(caplog: pytest.LogCaptureFixture) -> None:
    async def make() -> Backend:
        return Gated(MemoryBackend(), threading.Event())

    with Thread(make) as thread:
        speak = Speaker(thread.port)
        failed = speak(Operation.READ, "t", "session", "broken", body=[])
        assert (failed.status, failed.code) == (500, "unknown")
        assert "secret" not in failed.body[1]
        assert speak(Operation.HELLO).status == 200
    (record,) = caplog.records
    assert record.name == "perdure.server"
    assert "RuntimeError while answering a request" in record.getMessage()
    assert "in read" in record.getMessage()
    assert "secret of" not in record.getMessage().replace('f"secret of {key}"', "")
