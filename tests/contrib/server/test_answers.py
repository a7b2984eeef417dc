"""What the server answers: who may ask, how much, and what malformed requests get."""

import base64
import secrets
import time
from collections.abc import Callable

import msgspec
import pytest

from perdure.backend import Backend
from perdure.protocol.auth import Keys, bearer, sign
from perdure.protocol.limits import MAX_READS
from perdure.protocol.paths import Operation, path_of

from perdure_memory.backend import MemoryBackend
from perdure_server.limits import MAX_PAGE
from tests.contrib.server.served import SECRET, Thread
from tests.contrib.server.speaking import ID, Speaker, commit, talk

KEY = ("t", "session", "s")


def test_hello_says_what_is_served(speak: Speaker) -> None:
    before = time.time_ns() // 1_000_000
    hello = speak(Operation.HELLO)
    assert hello.status == 200
    assert hello.body["protocol"] == 1
    assert hello.body["software"].startswith("perdure-server ")
    assert before <= hello.body["now"] <= before + 60_000
    assert hello.body["description"]["backend"] == "memory"
    assert hello.body["capabilities"]["max_commit_bytes"] == 8 << 20
    assert hello.body["capabilities"]["max_item_bytes"] == (8 << 20) - 512
    assert hello.body["capabilities"]["durability"] == "none"
    assert SECRET not in str(hello.body)
    assert hello.response.headers["date"]
    assert hello.response.headers["server"] is None


def test_what_is_written_is_read(speak: Speaker) -> None:
    made = speak(Operation.COMMIT, "written", *KEY[1:], body=commit(puts=[[b"k", b"v"]]))
    assert made.status == 200
    assert made.body[:2] == [1, ID]
    read = speak(
        Operation.READ, "written", *KEY[1:], body=[b"k", [b"", None, None, False, 0, None]]
    )
    assert read.body[0][:2] == [1, ID]
    assert read.body[2] == [[[[b"k", b"v", 1]], False]] * 2


# Keys


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        f"Bearer app.{SECRET}x",
        f"Bearer app.{SECRET[:-1]}",
        f"Bearer App.{SECRET}",
        f"Bearer nobody.{SECRET}",
        f"bearer app {SECRET}",
        f"Basic {base64.b64encode(f'app:{SECRET}'.encode()).decode()}",
        f"Bearer signer.{SECRET}",
        "Bearer app.\xff\xfe",
        f"Perdure-HMAC-SHA256 app:1:{'0' * 64}",
        f"Perdure-HMAC-SHA256 signer:{'9' * 40}:{'0' * 64}",
    ],
)
def test_without_a_good_key_there_is_no_service(
    thread: Thread, authorization: str | None
) -> None:
    speak = Speaker(thread.port, key=None)
    headers = {} if authorization is None else {"Authorization": authorization}
    for operation, scope in ((Operation.HELLO, ()), (Operation.COMMIT, KEY)):
        refused = speak(operation, *scope, body=commit(), headers=headers)
        assert (refused.status, refused.code) == (401, "unauthorized")
        assert refused.response.headers["www-authenticate"]


def test_two_keys_at_once_are_none(thread: Thread) -> None:
    speak = Speaker(thread.port)
    connection = f"Authorization: {bearer('app', SECRET)}\r\n" * 2
    said = talk(
        thread.port,
        f"GET /v1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{connection}\r\n".encode(),
    )
    assert said.startswith(b"HTTP/1.1 401 ")
    assert speak(Operation.HELLO).status == 200


def test_signed_requests(thread: Thread) -> None:
    speak = Speaker(thread.port, "signer")
    assert speak(Operation.HELLO).status == 200
    made = speak(Operation.COMMIT, "signed", *KEY[1:], body=commit())
    assert made.status == 200
    assert speak(Operation.READ, "signed", *KEY[1:], body=[]).body[0][0] == 1


def test_a_signature_is_for_one_request_and_a_short_time(thread: Thread) -> None:
    speak = Speaker(thread.port, None)
    now = time.time_ns() // 1_000_000
    body = msgspec.msgpack.encode([])
    path = path_of(Operation.READ, *KEY)

    def signed(
        time: int, method: str = "POST", path: str = path, body: bytes = body
    ) -> dict[str, str]:
        return {"Authorization": sign("signer", SECRET, method, path, time, body)}

    assert speak.send("POST", path, body, signed(now)).status == 200
    others = (signed(now, body=b"\x91\xc0"), signed(now, path=path + "?x"), signed(now, "GET"))
    for headers in others:
        assert speak.send("POST", path, body, headers).code == "unauthorized"
    elsewhere = path_of(Operation.READ, "t", "session", "other")
    assert speak.send("POST", elsewhere, body, signed(now)).code == "unauthorized"
    for late in (-301_000, 301_000):
        refused = speak.send("POST", path, body, signed(now + late))
        assert (refused.status, refused.code) == (401, "clock_skew")
        assert abs(refused.body[3] - now) < 60_000
    for late in (-290_000, 290_000):
        assert speak.send("POST", path, body, signed(now + late)).status == 200


def test_a_key_for_some_tenants_sees_no_others(thread: Thread) -> None:
    anyone, speak = Speaker(thread.port), Speaker(thread.port, "plums")
    for tenant in ("plums", "pears", "plum"):
        anyone(Operation.COMMIT, tenant, *KEY[1:], body=commit())
    for operation in Operation:
        if operation in (Operation.HELLO, Operation.TENANTS, Operation.WAIT):
            continue
        scope = {Operation.LIST: 2, Operation.KINDS: 1, Operation.SWEEP: 0}.get(operation, 3)
        for tenant in ("pears", "plum", "plumsx", "PLUMS"):
            refused = speak(operation, *(tenant, *KEY[1:])[:scope], body=[10])
            assert (refused.status, refused.code) == (403, "forbidden")
    assert speak(Operation.READ, "plums", *KEY[1:], body=[]).body[0][0] == 1
    assert speak(Operation.TENANTS, body=[None, 10]).body == [["plums"], None]
    anyone(Operation.COMMIT, "figs", *KEY[1:], body=commit())
    first = speak(Operation.TENANTS, body=[None, 1]).body
    assert first == [["figs"], "figs"]
    assert speak(Operation.TENANTS, body=[first[1], 1]).body == [["plums"], None]
    assert speak(Operation.HELLO).status == 200


def test_without_keys_everything_is_refused() -> None:
    async def make() -> Backend:
        return MemoryBackend()

    with Thread(make, keys=Keys()) as thread:
        for key in ("app", None, "signer"):
            for path in ("/v1", "/v2", "/nothing"):
                refused = Speaker(thread.port, key).send("GET", path)
                assert (refused.status, refused.code) == (503, "unavailable")
                assert "no secret is set" in refused.body[1]


# Paths


def test_paths_that_are_none(speak: Speaker) -> None:
    good = path_of(Operation.READ, *KEY)
    for method, path in (
        ("GET", "/"),
        ("GET", "/v1/"),
        ("GET", good),
        ("PUT", good),
        ("POST", f"{good}/"),
        ("POST", f"/v1/{good}"),
        ("POST", good.replace("/read", "/write")),
        ("POST", "/v1/tenants/tenants"),
        ("POST", "//v1"),
    ):
        refused = speak.send(method, path, b"\x90" if method != "GET" else b"")
        assert (refused.status, refused.code) == (404, "not_found"), (method, path)
    for path in ("/v2", "/v0/x", "/v999/a/b/c/read"):
        refused = speak.send("GET", path)
        assert (refused.status, refused.code) == (404, "unsupported_version")
    for part in ("dA==", "dB", "t", "%64%41", "gA", "AA", "a.b", "..", "Z" * 1000):
        refused = speak.send("POST", f"/v1/{part}/c2Vzc2lvbg/cw/read", b"\x90")
        assert (refused.status, refused.code) == (400, "invalid"), part


# Bodies


def scan(start: bytes = b"", limit: object = None) -> list[object]:
    return [start, None, limit, False, 0, None]


MALFORMED: dict[str, tuple[Operation, bytes]] = {
    "nothing": (Operation.READ, b""),
    "not MessagePack": (Operation.READ, b"\xc1"),
    "cut": (Operation.COMMIT, msgspec.msgpack.encode(commit())[:-1]),
    "trailing": (Operation.READ, b"\x90\x90"),
    "a map": (Operation.READ, b"\x80"),
    "deep": (Operation.READ, b"\x91" * 100_000),
    "huge array announced": (Operation.READ, b"\xdd\xff\xff\xff\xff"),
    "huge bytes announced": (Operation.READ, b"\x91\xc6\xff\xff\xff\xff"),
    "long key": (Operation.READ, msgspec.msgpack.encode([b"k" * 513])),
    "zero limit": (Operation.READ, msgspec.msgpack.encode([scan(limit=0)])),
    "negative": (Operation.READ, msgspec.msgpack.encode([scan(limit=-1)])),
    "short id": (Operation.COMMIT, msgspec.msgpack.encode(commit(b"short"))),
    "key twice": (
        Operation.COMMIT,
        msgspec.msgpack.encode(commit(puts=[[b"k", b"1"], [b"k", b"2"]])),
    ),
    "text for bytes": (Operation.COMMIT, msgspec.msgpack.encode(commit(puts=[["k", "v"]]))),
    "absent": (Operation.DELETE, msgspec.msgpack.encode([ID, 2, None])),
    "extension": (Operation.READ, b"\x91\xd4\x01\x00"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_bodies_are_refused_and_change_nothing(speak: Speaker, what: str) -> None:
    operation, body = MALFORMED[what]
    refused = speak.send("POST", path_of(operation, "malformed", "session", what), body)
    assert (refused.status, refused.code) == (400, "invalid")
    assert refused.body[2:3] == [None]
    assert speak(Operation.READ, "malformed", "session", what, body=[]).body[0] is None


def test_random_bytes_are_never_a_server_error(speak: Speaker) -> None:
    random = secrets.SystemRandom()
    for operation in Operation:
        if operation.method == "GET":
            continue
        scope = {
            Operation.LIST: 2,
            Operation.KINDS: 1,
            Operation.SWEEP: 0,
            Operation.TENANTS: 0,
        }.get(operation, 3)
        for size in (1, 2, 3, 5, 8, 40):
            body = random.randbytes(size)
            path = path_of(operation, *("random", "session", "s")[:scope])
            assert speak.send("POST", path, body).status in (200, 400), (operation, body)


@pytest.mark.parametrize("cursor", ["x", "AAAA", "[]", "{}", "\u00fc" * 40, "null", "1" * 4000])
@pytest.mark.parametrize("backend", ["memory", "sqlite", "redis", "postgres"])
def test_a_cursor_of_nobody_is_no_server_error(
    served: Callable[[str], Speaker], backend: str, cursor: str
) -> None:
    speak = served(backend)
    speak(Operation.COMMIT, "cursors", *KEY[1:], body=commit())
    for operation, scope, body in (
        (Operation.LIST, ("cursors", "session"), [0, "", None, 5, cursor]),
        (Operation.LIST, ("cursors", "session"), [1, "", None, 5, cursor]),
        (Operation.KINDS, ("cursors",), [cursor, 5]),
        (Operation.TENANTS, (), [cursor, 5]),
    ):
        answer = speak(operation, *scope, body=body)
        assert answer.status in (200, 400), (operation, answer.body)


# Limits


def test_what_is_too_large_is_refused_and_changes_nothing(speak: Speaker) -> None:
    key = ("large", "session", "s")
    longest = (8 << 20) - 512
    too_long = [[b"k", bytes(longest + 1)]]
    too_many = [[b"%d" % n, b""] for n in range(10_001)]
    too_much = [[b"a", bytes(longest)], [b"b", bytes(1000)]]
    for puts in (too_long, too_many, too_much):
        expected = (400, "invalid") if puts is too_many else (413, "too_large")
        refused = speak(Operation.COMMIT, *key, body=commit(puts=puts))
        assert (refused.status, refused.code) == expected
        refused = speak(Operation.STAGE, *key, body=[ID, ID, puts])
        assert (refused.status, refused.code) == expected
    reads = [b"k"] * (MAX_READS + 1)
    assert speak(Operation.READ, *key, body=reads).code == "invalid"
    assert speak(Operation.READ, *key, body=[]).body[0] is None
    made = speak(Operation.COMMIT, *key, body=commit(puts=[[b"k" * 512, bytes(longest)]]))
    assert made.status == 200


def test_an_answer_is_bounded_and_says_that_there_is_more(speak: Speaker) -> None:
    key = ("bounded", "session", "s")
    for n in range(6):
        id = bytes([n]) * 16
        puts = [[b"%d" % n, bytes(7 << 20)]]
        assert speak(Operation.COMMIT, *key, body=commit(id, puts=puts)).status == 200
    (rows,) = speak(Operation.READ, *key, body=[scan()]).body[2]
    assert [len(rows[0]), rows[1]] == [2, True]
    many = speak(Operation.READ, *key, body=[scan() for _ in range(16)]).body[2]
    assert [[len(items), more] for items, more in many] == [[1, True]] * 16
    assert rows[0][0] == many[0][0][0]


def test_a_long_page_is_cut(speak: Speaker) -> None:
    for n in range(MAX_PAGE + 1):
        speak(Operation.COMMIT, "paged", "session", f"{n:04}", body=commit())
    page = speak(Operation.LIST, "paged", "session", body=[0, "", None, 10**9, None]).body
    assert len(page[0]) == MAX_PAGE
    rest = speak(Operation.LIST, "paged", "session", body=[0, "", None, 10**9, page[1]]).body
    assert [entry[0] for entry in rest[0]] == [f"{MAX_PAGE:04}"]
