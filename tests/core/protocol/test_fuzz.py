"""Whatever bytes and texts arrive: what they say, or the one error for it. Nothing else."""

import re
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.errors import Unavailable
from perdure.protocol import answers, requests
from perdure.protocol.auth import InvalidKeys, Key, Keys, Mode
from perdure.protocol.limits import MAX_INTEGER
from perdure.protocol.messages import Malformed
from perdure.protocol.paths import decode_part, encode_part, path_of, route
from perdure.protocol.refusals import (
    LONGEST_RETRY_AFTER,
    Refused,
    answer_to,
    read_refusal,
    seconds_of,
)
from perdure.types import Commit, Get, Read, Scan, check_identifier

from tests.golden.protocol_cases import ANSWERS, DECODERS, REQUESTS, SECRET

READERS: list[Callable[[bytes], object]] = [
    *dict.fromkeys(DECODERS.values()),
    answers.decode_hello,
    answers.decode_snapshot,
    answers.decode_committed,
    answers.decode_staged,
    answers.decode_deleted,
    lambda body: answers.decode_page(body, "acme", "session"),
    answers.decode_names,
    answers.decode_count,
    answers.decode_head,
    lambda body: read_refusal(500, body, writes=True),
]

GOOD = [message.body for message in (*REQUESTS, *ANSWERS)]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.integers(0, 3)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.binary(min_size=16, max_size=16)
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=30,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message with some bytes changed, missing or put in."""
    body = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 3))
        body[at : at + length] = draw(st.binary(max_size=3))
    return bytes(body)


@settings(max_examples=400)
@given(body=st.binary(max_size=60) | trees.map(msgspec.msgpack.encode) | damaged())
@example(body=b"\x91" * 100_000)
@example(body=b"\xdd\xff\xff\xff\xff")
@example(body=b"\xc6\xff\xff\xff\xff")
def test_a_body_is_read_or_malformed(body: bytes) -> None:
    for read in READERS:
        with suppress(Malformed):
            read(body)


@settings(max_examples=200)
@given(body=damaged())
def test_a_commit_that_is_read_is_one_that_can_be_written(body: bytes) -> None:
    with suppress(Malformed):
        commit = requests.decode_commit(body)
        assert isinstance(commit, Commit)
        assert requests.decode_commit(requests.encode_commit(commit)) == commit


@pytest.mark.parametrize("body", GOOD[:3], ids=["read", "reads", "append"])
def test_an_error_says_nothing_of_what_was_sent(body: bytes) -> None:
    secret = b"hunter2-hunter2"
    for shape in (body[:1] + msgspec.msgpack.encode(secret.decode()), body + secret):
        for read in READERS:
            with pytest.raises(Malformed) as raised:
                read(shape)
            assert secret.decode() not in str(raised.value)


keys = st.binary(max_size=8)


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    start = draw(keys)
    return Scan(
        start,
        start + draw(keys) if draw(st.booleans()) else None,
        draw(st.none() | st.integers(1, MAX_INTEGER)),
        draw(st.booleans()),
        draw(st.integers(0, MAX_INTEGER)),
        draw(st.none() | st.integers(0, MAX_INTEGER)),
    )


@given(reads=st.lists(st.builds(Get, keys) | scans(), max_size=4))
def test_reads_arrive_as_they_were_sent(reads: list[Read]) -> None:
    assert requests.decode_read(requests.encode_read(reads)) == tuple(reads)


@given(path=st.text(alphabet="/v12YQabc_-=.%?\0é", max_size=30) | st.text(max_size=30))
@example(path="/v" + "9" * 5000)
@example(path="/v1/" + "/" * 1000)
def test_a_path_is_understood_or_refused(path: str) -> None:
    for method in ("GET", "POST", "BREW"):
        with suppress(Refused):
            found = route(method, path)
            assert path_of(found.operation, *found.scope) == path


@given(text=st.text(min_size=1, max_size=20))
def test_a_part_of_a_path_stands_for_one_text(text: str) -> None:
    with suppress(ValueError):
        check_identifier("text", text)
        part = encode_part(text)
        assert re.fullmatch("[A-Za-z0-9_-]+", part)
        assert decode_part(part) == text
        with pytest.raises(Refused):
            decode_part(part + "=")


@given(
    query=st.text(alphabet="after=timeout&0123456789wA_-%", max_size=40)
    | st.builds("after={}&timeout={}".format, st.text(max_size=9), st.text(max_size=9))
)
def test_a_query_is_understood_or_malformed(query: str) -> None:
    with suppress(Malformed):
        requests.wait_of(query)


KEYS = Keys((Key.of("a", SECRET), Key.of("b", SECRET, Mode.HMAC)))


@given(
    header=st.none()
    | st.text(max_size=20)
    | st.builds("Bearer {}".format, st.text(max_size=50))
    | st.builds("Perdure-HMAC-SHA256 {}".format, st.text(max_size=50))
)
@example(header="Bearer a." + SECRET[:-1])
@example(header="Bearer a." + SECRET + " ")
@example(header="Bearer b." + SECRET)
@example(header="bearer a." + SECRET)
@example(header="Bearer a." + SECRET.replace("0", "०"))
@example(header="Perdure-HMAC-SHA256 b:1:" + "0" * 64)
@example(header="Perdure-HMAC-SHA256 b:" + "9" * 15 + ":" + "0" * 64)
def test_a_header_without_a_key_is_refused(header: str | None) -> None:
    with pytest.raises(Refused):
        KEYS.check(header, 1, "POST", "/v1/tenants", b"")


@given(text=st.text(max_size=40) | trees.map(repr))
def test_a_list_of_keys_is_read_or_refused(text: str) -> None:
    with suppress(InvalidKeys):
        Keys.parse(text)


@given(header=st.none() | st.text(max_size=9) | st.from_regex(r"[0-9]{1,40}", fullmatch=True))
@example(header="9" * 5000)
@example(header="٣")
@example(header="Fri, 31 Dec 1999 23:59:59 GMT")
def test_a_time_to_wait_is_bounded(header: str | None) -> None:
    assert 0 <= seconds_of(header) <= LONGEST_RETRY_AFTER


def test_a_message_cannot_move_the_cursor() -> None:
    answer = answer_to(Unavailable("gone\x1b[2J\nok  key\u202e"), 0)
    told = read_refusal(answer.status, answer.body, writes=False)
    assert str(told.error) == "gone [2J ok  key "


@pytest.mark.parametrize("read", [requests.decode_read, requests.decode_commit])
def test_a_list_is_refused_by_the_length_it_states(read: Callable[[bytes], object]) -> None:
    reads = msgspec.msgpack.encode([b""] * 1001)
    commit = REQUESTS[2].body  # whose last field is an empty list of reads
    body = reads if read is requests.decode_read else commit[:-1] + reads
    with pytest.raises(Malformed):
        read(body)
    read(body.replace(b"\xdc\x03\xe9", b"\xdc\x03\xe8")[:-2])
