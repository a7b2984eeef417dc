"""What the Worker says to those who may not ask, or ask for what makes no sense."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

from perdure.protocol import requests
from perdure.protocol.auth import bearer, sign
from perdure.protocol.limits import MAX_BODY_BYTES
from perdure.protocol.paths import Operation, path_of
from perdure.testing.shorthand import new_commit, new_id
from perdure.types import Append, KeyRange, ListQuery

from tests.backends.durable_objects.harness import MovedWorker
from tests.services.worker import KEY, MAIN, OBJECTS, Worker, build

SECRET = "pears-0123456789abcdef0123456789abcdef"
KEYS = [
    {"id": "all", "secret": SECRET},
    {"id": "acme", "secret": SECRET, "tenants": ["acme", "acme 2"]},
    {"id": "signing", "secret": SECRET, "mode": "hmac"},
]
COMMIT = requests.encode_commit(new_commit(puts=((b"a", b"1"),)))
NAMES = requests.encode_names(None, 10)


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """That of a refusal, which is of the form that all have."""
        code, message, head, now, rows = msgspec.msgpack.decode(
            self.body, type=tuple[str, str, object, int, list[object]]
        )
        assert self.headers["content-type"] == "application/msgpack"
        assert message
        assert "\n" not in message
        assert ".ts" not in message
        assert ".js" not in message
        assert SECRET not in message
        assert (head, rows) == (None, [])
        assert now > 1_700_000_000_000
        return code


def ask(
    server: Worker,
    method: str,
    target: str,
    body: bytes | None = None,
    authorization: str | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    sent = dict(headers or {})
    if authorization is not None:
        sent["Authorization"] = authorization
    try:
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    directory = tmp_path_factory.mktemp("keys")
    build(MAIN, directory / "built.js")
    variables = {"PERDURE_KEYS": json.dumps(KEYS)}
    with Worker.start(
        directory, directory / "built.js", objects=OBJECTS, variables=variables
    ) as started:
        yield started


EVERYTHING = [
    ("GET", "/v1", None),
    ("POST", path_of(Operation.READ, "acme", "k", "i"), b"\x90"),
    ("POST", path_of(Operation.COMMIT, "acme", "k", "i"), COMMIT),
    ("POST", path_of(Operation.LIST, "acme", "k"), requests.encode_list(ListQuery())),
    ("POST", path_of(Operation.KINDS, "acme"), NAMES),
    ("POST", path_of(Operation.TENANTS), NAMES),
    ("POST", path_of(Operation.SWEEP), requests.encode_sweep(1)),
    ("GET", path_of(Operation.WAIT, "acme", "k", "i") + "?after=wA&timeout=1", None),
]
"""One request of each kind."""


@pytest.mark.parametrize("keys", [None, "", "[]", "{", '[{"id":"all","secret":"short"}]'])
def test_without_keys_nobody_is_served(
    server: Worker, keys: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("none")
    variables = {} if keys is None else {"PERDURE_KEYS": keys}
    bundle = server.directory / "built.js"
    with Worker.start(directory, bundle, objects=OBJECTS, variables=variables) as closed:
        for authorization in (None, bearer("all", SECRET), bearer("all", "short")):
            for method, target, body in [*EVERYTHING, ("GET", "/", None), ("GET", "/v2", None)]:
                reply = ask(closed, method, target, body, authorization)
                assert (reply.status, reply.code) == (503, "unavailable")


@pytest.mark.parametrize(("method", "target", "body"), EVERYTHING)
def test_who_has_no_key_gets_nothing(
    server: Worker, method: str, target: str, body: bytes | None
) -> None:
    now = int(time.time() * 1000)
    for authorization in (
        None,
        "",
        "Bearer",
        f"Bearer {SECRET}",
        bearer("all", SECRET[:-1] + "0"),
        bearer("all", SECRET + "0"),
        bearer("all", ""),
        bearer("nobody", SECRET),
        bearer("signing", SECRET),
        sign("all", SECRET, method, target, now, body or b""),
        sign("signing", SECRET[:-1], method, target, now, body or b""),
        sign("signing", SECRET, method, target, now, (body or b"") + b"\0"),
        sign("signing", SECRET, method, target + "x", now, body or b""),
        sign("signing", SECRET, "PUT", target, now, body or b""),
    ):
        reply = ask(server, method, target, body, authorization)
        assert (reply.status, reply.code) == (401, "unauthorized"), authorization
        assert reply.headers["www-authenticate"]


@pytest.mark.parametrize(("method", "target", "body"), EVERYTHING[:-1])
def test_who_signs_is_served(
    server: Worker, method: str, target: str, body: bytes | None
) -> None:
    now = int(time.time() * 1000)
    for time_signed, status in ((now, 200), (now - 290_000, 200), (now + 290_000, 200)):
        authorization = sign("signing", SECRET, method, target, time_signed, body or b"")
        assert ask(server, method, target, body, authorization).status == status
    for time_signed in (0, now - 310_000, now + 310_000):
        authorization = sign("signing", SECRET, method, target, time_signed, body or b"")
        reply = ask(server, method, target, body, authorization)
        assert (reply.status, reply.code) == (401, "clock_skew")
        assert reply.headers["date"]


def test_a_key_for_tenants_is_for_no_others(server: Worker) -> None:
    mine, everyone = bearer("acme", SECRET), bearer("all", SECRET)
    for tenant in ("acme", "acme 2", "acme 3"):
        target = path_of(Operation.COMMIT, tenant, "k", "i")
        body = requests.encode_commit(new_commit())
        assert ask(server, "POST", target, body, everyone).status == 200
    for tenant, status in {
        "acme": 200,
        "acme 2": 200,
        "acme 3": 403,
        "Acme": 403,
        "a": 403,
    }.items():
        for operation, scope, body in (
            (Operation.READ, ("k", "i"), b"\x90"),
            (Operation.COMMIT, ("k", "j"), requests.encode_commit(new_commit())),
            (Operation.DELETE, ("k", "none"), b"\x93\xc4\x10" + bytes(16) + b"\x01\xc0"),
            (Operation.STAGE, ("k", "i"), requests.encode_stage(new_id(), new_id(), ())),
            (Operation.LIST, ("k",), requests.encode_list(ListQuery())),
            (Operation.KINDS, (), NAMES),
        ):
            reply = ask(server, "POST", path_of(operation, tenant, *scope), body, mine)
            assert reply.status == status, (operation, tenant)
            if status == 403:
                assert reply.code == "forbidden"
    wait = path_of(Operation.WAIT, "acme 3", "k", "i") + "?after=wA&timeout=1"
    assert ask(server, "GET", wait, None, mine).code == "forbidden"
    sweep = ask(server, "POST", "/v1/sweep", requests.encode_sweep(1), mine)
    assert (sweep.status, sweep.code) == (403, "forbidden")
    shown = msgspec.msgpack.decode(ask(server, "POST", "/v1/tenants", NAMES, mine).body)
    assert shown == [["acme", "acme 2"], None]
    assert ask(server, "GET", "/v1", None, mine).status == 200


BAD_BODIES = {
    "nothing": b"",
    "no MessagePack": b"\xc1",
    "text": b"hello, world",
    "JSON": b'{"id": 1}',
    "a map": b"\x80",
    "an array of another length": b"\x92\xc0\xc0",
    "an array that is not there": b"\xdd\xff\xff\xff\xff",
    "a binary that is not there": b"\x91\xc6\xff\xff\xff\xff",
    "deep nesting": b"\x91" * 100_000,
    "bytes behind the end": COMMIT + b"\xc0",
    "cut short": COMMIT[:-1],
    "a short id": COMMIT.replace(b"\xc4\x10", b"\xc4\x0f", 1),
    "a backward range to delete": requests.encode_commit(
        new_commit(deletes=(KeyRange(b"b", b"a"),))
    ),
    "a key twice": requests.encode_commit(new_commit(puts=((b"a", b"1"), (b"a", b"2")))),
    "a key of 513 bytes": requests.encode_commit(new_commit(puts=((b"a" * 513, b"1"),))),
    "a prefix twice": requests.encode_commit(
        new_commit(appends=(Append(b"l", (b"1",)), Append(b"l", (b"2",))))
    ),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_malformed_commit_is_refused_and_writes_nothing(
    moved_worker: MovedWorker, what: str
) -> None:
    path = path_of(Operation.COMMIT, "malformed", "k", what)
    reply = ask(moved_worker, "POST", path, BAD_BODIES[what], bearer(*KEY))
    assert (reply.status, reply.code) == (400, "invalid")
    read = path_of(Operation.READ, "malformed", "k", what)
    found = ask(moved_worker, "POST", read, b"\x90", bearer(*KEY))
    assert msgspec.msgpack.decode(found.body)[0] is None


TOO_LARGE = {
    "a value": new_commit(puts=((b"a", b"x" * 1_990_001),)),
    "an appended value": new_commit(appends=(Append(b"l", (b"x" * 1_990_001,)),)),
    "all values": new_commit(puts=tuple((b"%d" % n, b"x" * 1_900_000) for n in range(5))),
    "the number of items": new_commit(puts=tuple((b"%d" % n, b"") for n in range(10_001))),
    "the number of deletions": new_commit(deletes=tuple(b"%d" % n for n in range(10_001))),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_a_commit_over_the_limits_is_refused_and_writes_nothing(
    moved_worker: MovedWorker, what: str
) -> None:
    path = path_of(Operation.COMMIT, "too large", "k", what)
    body = requests.encode_commit(TOO_LARGE[what])
    reply = ask(moved_worker, "POST", path, body, bearer(*KEY))
    assert (reply.status, reply.code) == (413, "too_large")
    read = path_of(Operation.READ, "too large", "k", what)
    found = ask(moved_worker, "POST", read, b"\x90", bearer(*KEY))
    assert msgspec.msgpack.decode(found.body)[0] is None


def test_a_body_over_the_limit_is_refused_before_it_is_read(moved_worker: MovedWorker) -> None:
    path = path_of(Operation.COMMIT, "acme", "k", "i")
    connection = http.client.HTTPConnection("127.0.0.1", moved_worker.port, timeout=10)
    try:
        connection.putrequest("POST", path)
        connection.putheader("Authorization", bearer(*KEY))
        connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
        connection.endheaders(b"\xdc\x00\x13")
        response = connection.getresponse()
        assert response.status == 413
    finally:
        connection.close()


def test_a_body_without_its_length_is_refused(moved_worker: MovedWorker) -> None:
    path = path_of(Operation.COMMIT, "acme", "k", "chunked")
    chunked = {"Transfer-Encoding": "chunked"}
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(COMMIT), COMMIT)
    reply = ask(moved_worker, "POST", path, body, bearer(*KEY), chunked)
    assert (reply.status, reply.code) == (400, "invalid")


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/favicon.ico", 404, "not_found"),
        ("GET", "/v1/", 404, "not_found"),
        ("POST", "/v1", 404, "not_found"),
        ("PUT", "/v1/YQ/YQ/YQ/commit", 404, "not_found"),
        ("GET", "/v1/YQ/YQ/YQ/commit", 404, "not_found"),
        ("POST", "/v1/YQ/YQ/YQ/shown", 404, "not_found"),
        ("POST", "/v1/YQ/YQ/YQ/alarm", 404, "not_found"),
        ("GET", "/v2", 404, "unsupported_version"),
        ("POST", "/v1/YR/YQ/YQ/read", 400, "invalid"),
        ("POST", "/v1/YQ==/YQ/YQ/read", 400, "invalid"),
        ("POST", "/v1/AA/YQ/YQ/read", 400, "invalid"),
        ("GET", "/v1/YQ/YQ/YQ/wait", 400, "invalid"),
        ("GET", "/v1/YQ/YQ/YQ/wait?after=wA&timeout=1", 400, "invalid"),
        ("GET", "/v1/YQ/YQ/YQ/wait?after=kwE&timeout=1", 400, "invalid"),
        ("GET", "/v1/YQ/YQ/YQ/wait?timeout=1&after=wA", 400, "invalid"),
    ],
)
def test_what_the_protocol_does_not_have_is_refused(
    moved_worker: MovedWorker, method: str, target: str, status: int, code: str
) -> None:
    body = b"\x90" if method != "GET" else None
    reply = ask(moved_worker, method, target, body, bearer(*KEY))
    assert (reply.status, reply.code) == (status, code)
