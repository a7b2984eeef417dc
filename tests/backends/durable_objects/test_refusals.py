"""What bad input gets, from the Worker and from the client: a typed error, and no more."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from perdure.errors import InvalidURL, TooLarge, Unavailable
from perdure.plugins import open_backend
from perdure.protocol.auth import bearer, sign
from perdure.protocol.limits import MAX_BODY_BYTES, SIGNATURE_WINDOW_MS
from perdure.protocol.paths import Operation, path_of
from perdure.protocol.refusals import Code
from perdure.types import ListQuery, SessionKey

from tests.backends.durable_objects.opened import client_of, commit_of, new_key
from tests.golden.protocol_cases import BAD_PATHS, BAD_REQUESTS
from tests.services.worker import MAIN, OBJECTS, Worker, build

SECRET = "quinces-keep-until-christmas-if-they-do-not-touch"
KEYS = [
    {"id": "app", "secret": SECRET},
    {"id": "signs", "secret": SECRET, "mode": "hmac"},
    {"id": "plums", "secret": SECRET, "tenants": ["plums", "ünïcode"]},
]


class Guarded(Worker):
    """The Worker with keys of all sorts."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, id: str, secret: str = SECRET) -> str:
        return self.origin.replace("//", f"//{id}:{secret}@")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    build(MAIN, directory / "built.js")
    variables = {"PERDURE_KEYS": json.dumps(KEYS)}
    with Guarded.start(
        directory, directory / "built.js", objects=OBJECTS, variables=variables
    ) as server:
        yield server


def ask(
    origin: str, method: str, target: str, body: bytes | None, authorization: str | None
) -> tuple[int, list[object]]:
    """An answer's status and, of an error, its body."""
    headers = {} if authorization is None else {"Authorization": authorization}
    request = urllib.request.Request(origin + target, body, headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, [response.read()]
    except urllib.error.HTTPError as error:
        with error:
            assert error.headers["Content-Type"] == "application/msgpack"
            return error.code, msgspec.msgpack.decode(error.read(), type=list[object])


def refused(answer: tuple[int, list[object]]) -> str:
    """The code of an error, whose body is as it must be and tells no insides."""
    status, (code, message, head, now, rows) = answer
    known = {code.text: code.status for code in Code}
    assert known[str(code)] == status
    assert isinstance(message, str)
    assert ".js" not in message
    assert "at " not in message.partition("(")[2]
    assert (head, rows) == (None, [])
    assert isinstance(now, int)
    return str(code)


APP = bearer("app", SECRET)
READ = path_of(Operation.READ, "plums", "k", "a")


@pytest.mark.parametrize(("operation", "body", "why"), BAD_REQUESTS)
def test_a_malformed_body_is_refused(
    guarded: Guarded, operation: Operation, body: bytes, why: str
) -> None:
    count = {Operation.LIST: 2, Operation.KINDS: 1, Operation.TENANTS: 0, Operation.SWEEP: 0}
    scope = ("plums", "k", "a")[: count.get(operation, 3)]
    answer = ask(guarded.origin, "POST", path_of(operation, *scope), body, APP)
    assert refused(answer) == "invalid", why


@pytest.mark.parametrize(("method", "path", "code"), BAD_PATHS)
def test_a_bad_path_is_refused(guarded: Guarded, method: str, path: str, code: Code) -> None:
    body = b"\x90" if method == "POST" else None
    assert refused(ask(guarded.origin, method, path, body, APP)) == code.text


@pytest.mark.parametrize(
    "query", ["", "?after=wA", "?after=!&timeout=1", "?after=wA&timeout=x"]
)
def test_a_malformed_wait_is_refused(guarded: Guarded, query: str) -> None:
    path = path_of(Operation.WAIT, "plums", "k", "a") + query
    assert refused(ask(guarded.origin, "GET", path, None, APP)) == "invalid"


def test_a_body_over_the_limit_is_refused_before_it_is_sent(guarded: Guarded) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", guarded.port)) as connection:
        connection.putrequest("POST", READ)
        connection.putheader("Authorization", APP)
        connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
        connection.endheaders()
        response = connection.getresponse()
        body = msgspec.msgpack.decode(response.read(), type=list[object])
    assert refused((response.status, body)) == "too_large"


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", bearer("app", SECRET[:-1]), "Basic x"]
)
def test_nobody_is_served_without_a_key(guarded: Guarded, authorization: str | None) -> None:
    for method, path, body in (("POST", READ, b"\x90"), ("GET", "/v1", None)):
        answer = ask(guarded.origin, method, path, body, authorization)
        assert refused(answer) == "unauthorized"


def test_a_signature_must_be_of_this_request_and_of_now(guarded: Guarded) -> None:
    now = time.time_ns() // 1_000_000

    def signed(at: int, body: bytes) -> str:
        return sign("signs", SECRET, "POST", READ, at, body)

    def answer(authorization: str) -> tuple[int, list[object]]:
        return ask(guarded.origin, "POST", READ, b"\x90", authorization)

    assert answer(signed(now, b"\x90"))[0] == 200
    assert refused(answer(signed(now, b"\x91\xc4\x01a"))) == "unauthorized"
    assert refused(answer(bearer("signs", SECRET))) == "unauthorized"
    for skew in (-SIGNATURE_WINDOW_MS - 5_000, SIGNATURE_WINDOW_MS + 5_000):
        assert refused(answer(signed(now + skew, b"\x90"))) == "clock_skew"


async def test_every_operation_can_be_signed(guarded: Guarded) -> None:
    key = SessionKey.of("ünïcode", "a/b c", "?x=1&y#z")
    async with client_of(guarded.url_of("signs"), auth="hmac") as client:
        await client.open()
        made = await client.commit(key, commit_of(b"x" * 100_000))
        assert (await client.read(key)).head == made.head
        assert await client.wait(key, after=None, timeout=5) == made.head
        page = await client.list(key.tenant, key.kind, ListQuery())
        assert [entry.key for entry in page.items] == [key]
        assert await client.delete(key, id=os.urandom(16))


async def test_a_key_is_good_for_its_tenants_only(guarded: Guarded) -> None:
    async with client_of(guarded.url_of("app")) as client:
        await client.commit(SessionKey("figs", "k", "a"), commit_of())
    async with client_of(guarded.url_of("plums")) as client:
        await client.open()
        await client.commit(SessionKey("plums", "k", "a"), commit_of())
        assert "figs" not in (await client.tenants()).items
        figs = SessionKey("figs", "k", "a")
        for work in (
            client.read(figs),
            client.commit(figs, commit_of()),
            client.delete(figs, id=os.urandom(16)),
            client.wait(figs, after=None, timeout=5),
            client.list("figs", "k", ListQuery()),
            client.kinds("figs"),
            client.sweep(),
        ):
            with pytest.raises(Unavailable) as raised:
                await work
            assert raised.value.lasting


async def test_a_revoked_key_is_said_at_open_and_at_work(guarded: Guarded) -> None:
    for url in (guarded.url_of("nobody"), guarded.url_of("app", SECRET[::-1])):
        async with client_of(url) as client:
            key = new_key()
            for work in (
                client.open(),
                client.commit(key, commit_of(b"x")),
                client.wait(key, after=None, timeout=5),
            ):
                with pytest.raises(Unavailable, match="key") as raised:
                    await work
                assert raised.value.lasting
                assert SECRET not in str(raised.value)


async def test_a_wrong_clock_is_said_at_open(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: ours() - 600 * 10**9)
    async with client_of(guarded.url_of("signs"), auth="hmac") as client:
        with pytest.raises(Unavailable, match="clock") as raised:
            await client.open()
    assert raised.value.lasting


async def test_an_item_over_the_limit_is_refused_whole(guarded: Guarded) -> None:
    key = SessionKey("plums", "k", "long")
    async with client_of(guarded.url_of("app")) as client:
        await client.open()
        longest = client.capabilities.max_item_bytes
        made = await client.commit(key, commit_of(bytes(longest)))
        with pytest.raises(TooLarge):
            await client.commit(key, commit_of(b"small", bytes(longest + 1)))
        many = tuple((b"%d" % n, b"") for n in range(client.capabilities.max_commit_items + 1))
        with pytest.raises(TooLarge):
            await client.commit(key, replace(commit_of(), puts=many))
        assert (await client.read(key)).head == made.head


async def test_without_keys_the_worker_serves_nobody(tmp_path: Path) -> None:
    build(MAIN, tmp_path / "built.js")
    with Guarded.start(tmp_path, tmp_path / "built.js", objects=OBJECTS) as server:
        async with client_of(server.url_of("app")) as client:
            for work in (client.open(), client.commit(new_key(), commit_of(b"x"))):
                with pytest.raises(Unavailable, match="no secret is set"):
                    await work
        for text in ("[]", "not JSON " + SECRET, json.dumps([{"id": "a", "secret": "short"}])):
            server.configure(OBJECTS, {"PERDURE_KEYS": text})
            server.restart()
            for authorization in (None, APP, "Bearer a.short"):
                status, answer = ask(server.origin, "GET", "/v1", None, authorization)
                assert status == 503
                assert SECRET not in str(answer)


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https://host",
        "https://app@host",
        f"https://app:{SECRET[:31]}@host",
        f"https://a.b:{SECRET}@host",
        f"http://app:{SECRET}@sessions.example.org",
        f"http://app:{SECRET}@10.0.0.1",
        f"http://app:{SECRET}@localhost.example.org",
        f"http://app:{SECRET}@host?insecure=yes",
        f"https://app:{SECRET}@host?insecure=true",
        f"http://app:{SECRET}@localhost?ssl_ca_certs=x",
        f"https://app:{SECRET}@host?ssl_keyfile=x",
        f"https://app:{SECRET}@host?auth=basic",
        f"https://app:{SECRET}@host?timeout=0",
        f"https://app:{SECRET}@host?connections=0",
        f"https://app:{SECRET}@host?speed=1",
        f"https://app:{SECRET}@a..b",
        f"https://app:{SECRET}@{'a' * 64}.example",
        f"https://app:{SECRET}%0A@host",
    ],
)
def test_a_url_that_cannot_be_served_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERDURE_HTTP_KEY", raising=False)
    with pytest.raises(InvalidURL) as raised:
        open_backend(url)
    assert SECRET[:31] not in str(raised.value)
