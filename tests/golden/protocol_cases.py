"""What the test vectors of the protocol are made of: see ``test_protocol``."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from perdure.backend import Capabilities, Description, Durability, Expiry, Wait
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    PerdureError,
    SessionDeleted,
    StageMissing,
    TooLarge,
    Unavailable,
    Unsupported,
)
from perdure.protocol import answers, requests
from perdure.protocol.paths import Operation, path_of
from perdure.protocol.refusals import Code, Refused
from perdure.types import (
    NEVER,
    Append,
    At,
    Commit,
    Committed,
    Condition,
    Expect,
    Get,
    Head,
    HeadEntry,
    Item,
    KeyRange,
    ListQuery,
    Order,
    Page,
    Restored,
    Rows,
    Scan,
    SessionKey,
    Snapshot,
    append_key,
)

COMMIT = bytes(range(0xA0, 0xB0))
OTHER = bytes(range(0xB0, 0xC0))
INCARNATION = bytes(range(0x10, 0x20))
PROPOSED = bytes(range(0x20, 0x30))
STAGE = bytes(range(0x30, 0x40))
DIGEST = bytes(range(8))
NOW = 1_790_000_000_123
KEY = SessionKey.of("acme", "session", "chat-7")
SECRET = "0123456789abcdef0123456789abcdef"

HEAD = Head(
    version=7,
    incarnation=INCARNATION,
    tip=COMMIT,
    last_delete=3,
    created_at=NOW - 60_000,
    updated_at=NOW,
    expires_at=NOW + 3_600_000,
    meta=b"\x81\xa1a\x01",
    meta_version=2,
    labels=("müde", "vip"),
)
YOUNG = Head(version=1, incarnation=PROPOSED, tip=OTHER, created_at=NOW, updated_at=NOW)
ROWS = (
    Rows([Item(append_key(b"l\0", 7, 0), b"\x01row", 7), Item(b"z", b"", 1)], True),
    Rows([]),
)

PLAIN = Commit(
    id=COMMIT,
    digest=DIGEST,
    new_incarnation=PROPOSED,
    appends=(Append(b"l\0", (b"\x01row",)),),
)
FULL = Commit(
    id=COMMIT,
    digest=DIGEST,
    new_incarnation=PROPOSED,
    expect=At(6, OTHER),
    incarnation=INCARNATION,
    conditions=(Condition(b"ca", 5), Condition(None, 0)),
    base=6,
    resend=True,
    seen=NOW - 1,
    deletes=(b"cb", KeyRange(b"d", b"e"), KeyRange(b"l\0")),
    puts=((b"ca", b"\xff" * 3), (b"", b"")),
    appends=(Append(b"l\0", (b"one", b"two")), Append(b"", (b"three",))),
    stages=(STAGE,),
    meta=b"",
    labels=("müde", "vip"),
    expires_in=3_600_000,
    returning=(
        Get(b"ca"),
        Scan(b"l\0", b"l\1", limit=10, reverse=True, since=5, max_bytes=65_536),
    ),
)
RESTORED = Commit(
    id=COMMIT,
    digest=DIGEST,
    new_incarnation=INCARNATION,
    restored=Restored(300, NOW - 1000, NOW - 500),
    expect=Expect.ABSENT,
    labels=(),
    expires_at=NEVER,
    puts=((b"k" * 512, b"v" * 300),),
)


class Message(NamedTuple):
    name: str
    operation: Operation
    body: bytes
    meaning: object
    decode: Callable[[bytes], object]


def _commit(name: str, commit: Commit) -> Message:
    body = requests.encode_commit(commit)
    return Message(name, Operation.COMMIT, body, commit, requests.decode_commit)


REQUESTS = [
    Message("head only", Operation.READ, requests.encode_read(()), (), requests.decode_read),
    Message(
        "an item and two ranges",
        Operation.READ,
        requests.encode_read((*FULL.returning, Scan())),
        (*FULL.returning, Scan()),
        requests.decode_read,
    ),
    _commit("plain append", PLAIN),
    _commit("everything", FULL),
    _commit("a session that is copied here", RESTORED),
    _commit("present", msgspec.structs.replace(PLAIN, expect=Expect.PRESENT)),
    Message(
        "two parts",
        Operation.STAGE,
        requests.encode_stage(INCARNATION, STAGE, [(b"ca", b"1"), (b"cb", b"2")]),
        requests.Stage(INCARNATION, STAGE, ((b"ca", b"1"), (b"cb", b"2"))),
        requests.decode_stage,
    ),
    Message(
        "whatever is there",
        Operation.DELETE,
        requests.encode_delete(COMMIT, Expect.ANY, None),
        requests.Delete(COMMIT, Expect.ANY, None),
        requests.decode_delete,
    ),
    Message(
        "at a version",
        Operation.DELETE,
        requests.encode_delete(COMMIT, At(7, OTHER), INCARNATION),
        requests.Delete(COMMIT, At(7, OTHER), INCARNATION),
        requests.decode_delete,
    ),
    Message(
        "by id",
        Operation.LIST,
        requests.encode_list(ListQuery(prefix="chat-", cursor="c")),
        ListQuery(prefix="chat-", cursor="c"),
        requests.decode_list,
    ),
    Message(
        "by recency",
        Operation.LIST,
        requests.encode_list(ListQuery(order=Order.RECENCY, label="vip", limit=1000)),
        ListQuery(order=Order.RECENCY, label="vip", limit=1000),
        requests.decode_list,
    ),
    Message(
        "first page",
        Operation.TENANTS,
        requests.encode_names(None, 100),
        requests.Names(None, 100),
        requests.decode_names,
    ),
    Message(
        "next page",
        Operation.KINDS,
        requests.encode_names("c", 1),
        requests.Names("c", 1),
        requests.decode_names,
    ),
    Message("some", Operation.SWEEP, requests.encode_sweep(1000), 1000, requests.decode_sweep),
]

HELLO = answers.Hello(
    1,
    "perdure-worker 0.1.0",
    NOW,
    Capabilities(
        max_item_bytes=1_990_000,
        max_commit_bytes=8 << 20,
        max_commit_items=10_000,
        max_read_bytes=8 << 20,
        recency_lag=60_000,
        list_lag=2_000,
        wait=Wait.PUSH,
        expiry=Expiry.NATIVE,
        durability=Durability.REPLICATED,
        durability_note="One sentence.",
    ),
    Description(
        backend="durable-objects",
        location="somewhere",
        durability="One sentence.",
        details={"mode": "sqlite"},
    ),
)


def _page(body: bytes) -> object:
    return answers.decode_page(body, KEY.tenant, KEY.kind)


ANSWERS = [
    Message(
        "hello",
        Operation.HELLO,
        answers.encode_hello(
            software=HELLO.software,
            now=HELLO.now,
            capabilities=HELLO.capabilities,
            description=HELLO.description,
        ),
        HELLO,
        answers.decode_hello,
    ),
    Message(
        "a session",
        Operation.READ,
        answers.encode_snapshot(Snapshot(HEAD, NOW, ROWS, b"")),
        Snapshot(HEAD, NOW, ROWS, b""),
        answers.decode_snapshot,
    ),
    Message(
        "no session",
        Operation.READ,
        answers.encode_snapshot(Snapshot(None, NOW, (Rows([]),), b"e")),
        Snapshot(None, NOW, (Rows([]),), b"e"),
        answers.decode_snapshot,
    ),
    Message(
        "applied",
        Operation.COMMIT,
        answers.encode_committed(
            Committed(version=1, incarnation=PROPOSED, head=YOUNG, now=NOW, rows=ROWS)
        ),
        Committed(version=1, incarnation=PROPOSED, head=YOUNG, now=NOW, rows=ROWS),
        answers.decode_committed,
    ),
    Message(
        "applied before, and gone since",
        Operation.COMMIT,
        answers.encode_committed(
            Committed(
                version=70_000, incarnation=INCARNATION, head=None, now=NOW, replayed=True
            )
        ),
        Committed(version=70_000, incarnation=INCARNATION, head=None, now=NOW, replayed=True),
        answers.decode_committed,
    ),
    Message("staged", Operation.STAGE, answers.encode_staged(), None, answers.decode_staged),
    Message(
        "deleted", Operation.DELETE, answers.encode_deleted(True), True, answers.decode_deleted
    ),
    Message(
        "two sessions",
        Operation.LIST,
        answers.encode_page(
            Page(
                (
                    HeadEntry(KEY, HEAD),
                    HeadEntry(SessionKey(KEY.tenant, KEY.kind, "ü"), YOUNG),
                ),
                "c",
            )
        ),
        Page(
            (HeadEntry(KEY, HEAD), HeadEntry(SessionKey(KEY.tenant, KEY.kind, "ü"), YOUNG)), "c"
        ),
        _page,
    ),
    Message(
        "the last names",
        Operation.KINDS,
        answers.encode_names(Page(("session", "übung"))),
        Page(("session", "übung")),
        answers.decode_names,
    ),
    Message("removed", Operation.SWEEP, answers.encode_count(3), 3, answers.decode_count),
    Message("changed", Operation.WAIT, answers.encode_head(HEAD), HEAD, answers.decode_head),
    Message("absent", Operation.WAIT, answers.encode_head(None), None, answers.decode_head),
]

ERRORS: list[PerdureError] = [
    Conflict("another version", head=HEAD, now=NOW, rows=ROWS),
    Conflict("no such session", now=NOW),
    SessionDeleted("it is gone", head=YOUNG),
    CommitIdReused("used before"),
    StageMissing("no such stage"),
    OutcomeUnknown("too long ago", forgotten=True),
    OutcomeUnknown("may be"),
    TooLarge("too large"),
    Unsupported("never"),
    Unavailable("not now"),
    Unavailable("slower", retry_after=2),
    Unavailable("the disk is full", lasting=True),
    *(
        Refused(code, "refused")
        for code in (
            Code.INVALID,
            Code.UNAUTHORIZED,
            Code.CLOCK_SKEW,
            Code.FORBIDDEN,
            Code.NOT_FOUND,
            Code.UNSUPPORTED_VERSION,
        )
    ),
]

PATHS: list[tuple[Operation, tuple[str, ...]]] = [
    (Operation.HELLO, ()),
    (Operation.READ, ("acme", "session", "chat-7")),
    (Operation.COMMIT, ("tenants", "..", "/v1?x#\n")),
    (Operation.STAGE, ("ä", "日本", "\U0001f600")),
    (Operation.DELETE, ("a" * 512, "b", "~>?")),
    (Operation.WAIT, ("acme", "session", "chat-7")),
    (Operation.LIST, ("acme", "session")),
    (Operation.KINDS, ("acme",)),
    (Operation.TENANTS, ()),
    (Operation.SWEEP, ()),
]

BAD_PATHS = [
    ("GET", "/", Code.NOT_FOUND),
    ("GET", "/v1/", Code.NOT_FOUND),
    ("POST", "/v1", Code.NOT_FOUND),
    ("GET", "/v1/tenants", Code.NOT_FOUND),
    ("POST", "/v1/YQ/YQ/YQ/wait", Code.NOT_FOUND),
    ("POST", "/v1/YQ/YQ/YQ/drop", Code.NOT_FOUND),
    ("POST", "/v1/YQ/YQ/read", Code.NOT_FOUND),
    ("POST", "/v1/YQ/YQ/YQ/read/", Code.NOT_FOUND),
    ("GET", "/v2", Code.UNSUPPORTED_VERSION),
    ("POST", "/v10/YQ/YQ/YQ/read", Code.UNSUPPORTED_VERSION),
    ("POST", "/v1/YQ//YQ/read", Code.INVALID),
    ("POST", "/v1/YQ==/YQ/YQ/read", Code.INVALID),
    ("POST", "/v1/YR/YQ/YQ/read", Code.INVALID),
    ("POST", "/v1/Y/YQ/YQ/read", Code.INVALID),
    ("POST", "/v1/%59Q/YQ/YQ/read", Code.INVALID),
    ("POST", "/v1/_w/YQ/YQ/read", Code.INVALID),
    ("POST", "/v1/AA/YQ/YQ/read", Code.INVALID),
    ("POST", "/v1/" + "YWFh" * 171 + "/YQ/YQ/read", Code.INVALID),
]

_at = msgspec.msgpack.encode
BAD_REQUESTS: list[tuple[Operation, bytes, str]] = [
    (Operation.READ, b"", "empty"),
    (Operation.READ, b"\xc1", "a byte that MessagePack never uses"),
    (Operation.READ, b"\xdd\xff\xff\xff\xff", "an array that is not there"),
    (Operation.READ, b"\x90\x00", "a byte behind the end"),
    (Operation.READ, _at(["l"]), "a key as text"),
    (Operation.READ, _at([(b"", None, 0, False, 0, None)]), "no rows asked for"),
    (Operation.READ, _at([(b"", None, None, False, -1, None)]), "a negative version"),
    (Operation.READ, _at([(b"", None, None, False, 1 << 53, None)]), "more than 53 bits"),
    (Operation.READ, _at([(b"", None, None, False, 1.0, None)]), "a float"),
    (Operation.READ, _at([(b"", None, None, False, 0)]), "a scan of five fields"),
    (Operation.READ, _at([b"k" * 513]), "a key of 513 bytes"),
    (Operation.STAGE, _at((INCARNATION, STAGE[:15], [])), "an id of 15 bytes"),
    (Operation.STAGE, _at((INCARNATION, STAGE, [(b"a", b"1"), (b"a", b"2")])), "a key twice"),
    (Operation.DELETE, _at((COMMIT, 2, None)), "absence expected of what is to be deleted"),
    (Operation.DELETE, _at((COMMIT, 3, None)), "an expectation that does not exist"),
    (Operation.LIST, _at((2, "", None, 1, None)), "an order that does not exist"),
    (Operation.LIST, _at((1, "a", None, 1, None)), "a prefix with the order by recency"),
    (Operation.LIST, _at((0, "", "a\0b", 1, None)), "a label with NUL"),
    (Operation.LIST, b"\x95\x00\xa1\xff\xc0\x01\xc0", "text that is not UTF-8"),
    (Operation.TENANTS, _at((None, 0)), "no names asked for"),
    (Operation.SWEEP, _at(5), "no array"),
    (
        Operation.COMMIT,
        requests.encode_commit(msgspec.structs.replace(PLAIN, expires_at=1, expires_in=1)),
        "two expiries",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(msgspec.structs.replace(PLAIN, labels=("a", "a"))),
        "a label twice",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(
            msgspec.structs.replace(PLAIN, labels=("a", "b", "c", "d", "e"))
        ),
        "five labels",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(msgspec.structs.replace(PLAIN, labels=("ü" * 65,))),
        "a label of 130 bytes",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(msgspec.structs.replace(PLAIN, meta=b"m" * 4097)),
        "a meta of 4097 bytes",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(
            msgspec.structs.replace(PLAIN, appends=(Append(b"p" * 501, (b"",)),))
        ),
        "a prefix of 501 bytes",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(
            msgspec.structs.replace(PLAIN, appends=(Append(b"p", ()), Append(b"p", ())))
        ),
        "a prefix twice",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(msgspec.structs.replace(PLAIN, restored=Restored(3, 1, 1))),
        "a version restored over whatever is there",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(
            msgspec.structs.replace(PLAIN, restored=Restored(3, 1, 1), expect=At(3, OTHER))
        ),
        "a version restored that is not above the one there",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(msgspec.structs.replace(PLAIN, deletes=(KeyRange(b"b", b"a"),))),
        "a range to delete that stops before it starts",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(msgspec.structs.replace(PLAIN, expires_in=(1 << 52) + 1)),
        "an expiry so late that its time would have more than 53 bits",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(
            msgspec.structs.replace(RESTORED, restored=Restored((1 << 52) + 1, 1, 1))
        ),
        "a version so high that those to come would have more than 53 bits",
    ),
    (
        Operation.COMMIT,
        requests.encode_commit(PLAIN)[:-1],
        "a commit without its last byte",
    ),
]

DECODERS: dict[Operation, Callable[[bytes], object]] = {
    Operation.READ: requests.decode_read,
    Operation.COMMIT: requests.decode_commit,
    Operation.STAGE: requests.decode_stage,
    Operation.DELETE: requests.decode_delete,
    Operation.LIST: requests.decode_list,
    Operation.KINDS: requests.decode_names,
    Operation.TENANTS: requests.decode_names,
    Operation.SWEEP: requests.decode_sweep,
}

SIGNED: list[tuple[str, str, bytes]] = [
    ("GET", "/v1", b""),
    (
        "POST",
        path_of(Operation.COMMIT, "acme", "session", "chat-7"),
        requests.encode_commit(PLAIN),
    ),
    (
        "GET",
        path_of(Operation.WAIT, "acme", "session", "chat-7")
        + "?"
        + requests.wait_query(HEAD, 30_000),
        b"",
    ),
]

WAITS: list[tuple[Head | None, int]] = [(None, 0), (HEAD, 30_000)]
