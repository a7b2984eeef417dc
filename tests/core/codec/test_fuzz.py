"""Whatever bytes are read: what they hold, or a typed error. Never anything else."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from perdure.codec import Codec, decode
from perdure.errors import Corrupt, FormatTooNew, InvalidValue, Unsupported

from tests.core.codec.values import COMMIT, KEY, item, items_of, values

CODEC = Codec(compress_min=0)
EXPECTED = (Corrupt, FormatTooNew, Unsupported)


class Shape(msgspec.Struct):
    a: int = 0
    b: list[str] = []


def read_all(data: bytes) -> None:
    """Every way to read a row, and that each fails only as it may."""
    row = item(data)
    readers: list[Callable[[], object]] = [
        lambda: CODEC.unpack(KEY, [row]),
        lambda: CODEC.unpack(KEY, [row] * 60),
        lambda: CODEC.unpack(KEY, [item(GOOD), row, item(GOOD)]),
        lambda: CODEC.open(KEY, row),
        lambda: CODEC.open_bytes(KEY, row),
        lambda: CODEC.trim(KEY, row),
        lambda: CODEC.row_span(data),
        lambda: CODEC.row_commit_id(data),
        lambda: CODEC.more_fragments(data),
        lambda: CODEC.expires_at(data),
        lambda: CODEC.decode(KEY, data),
    ]
    for read in readers:
        with suppress(*EXPECTED):
            read()
    for typed in (
        lambda: CODEC.unpack(KEY, [row], Shape),
        lambda: CODEC.open(KEY, row, Shape),
        lambda: CODEC.decode(KEY, data, Shape),
    ):
        with suppress(*EXPECTED, InvalidValue):
            typed()


GOOD = Codec().pack(KEY, COMMIT, [{"a": 1}, "x"])[0]
LONG = Codec().pack(KEY, COMMIT, ["a long entry, " * 10_000])

prefixes = st.tuples(st.sampled_from([0x00, 0x40, 0x80, 0xC0]), st.integers(0, 0x3F)).map(
    lambda parts: bytes((1, parts[0] | parts[1]))
)
payloads = st.binary(max_size=40) | st.sampled_from(
    [b"2026-01-01T00:00:00+00:00:00.5Z", b"1E+5", b"NaN"]
)
ext_bodies = st.tuples(st.integers(-128, 127), payloads).map(
    lambda ext: msgspec.msgpack.encode([msgspec.msgpack.Ext(*ext)])
)


@settings(max_examples=150)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x01")
@example(b"\x01\x40")
def test_random_bytes(data: bytes) -> None:
    read_all(data)


@settings(max_examples=150)
@given(prefixes, st.binary(max_size=24), st.binary(max_size=100) | ext_bodies)
def test_random_bytes_in_an_envelope(prefix: bytes, header: bytes, body: bytes) -> None:
    read_all(prefix + header + body)
    read_all(prefix + COMMIT + b"\0\0\0\0\0\0\0\1" + body)
    read_all(prefix + body)


@settings(max_examples=150)
@given(st.lists(values, min_size=1, max_size=4), st.data())
def test_flipped_bits(entries: list[Any], data: st.DataObject) -> None:
    for row in (
        CODEC.pack(KEY, COMMIT, entries)[0],
        CODEC.seal(KEY, entries, expires_at=5),
        GOOD,
        LONG[0],
    ):
        at = data.draw(st.integers(0, min(len(row), 400) - 1))
        bit = data.draw(st.integers(0, 7))
        read_all(row[:at] + bytes((row[at] ^ 1 << bit,)) + row[at + 1 :])


@settings(max_examples=100)
@given(st.lists(values, min_size=1, max_size=4), st.data())
def test_truncation(entries: list[Any], data: st.DataObject) -> None:
    plain = Codec(compress_min=None)
    for codec in (CODEC, plain):
        log = codec.pack(KEY, COMMIT, entries)[0]
        cut = log[: data.draw(st.integers(0, len(log) - 1))]
        with pytest.raises(Corrupt):
            codec.unpack(KEY, [item(cut)])
        value = codec.seal(KEY, entries)
        cut = value[: data.draw(st.integers(0, len(value) - 1))]
        with pytest.raises(Corrupt):
            codec.open(KEY, item(cut))
        read_all(cut)


@settings(max_examples=100)
@given(st.lists(values, min_size=1, max_size=4), st.binary(min_size=1, max_size=20))
def test_anything_added_at_the_end(entries: list[Any], tail: bytes) -> None:
    row = Codec().pack(KEY, COMMIT, entries)[0]
    with pytest.raises(Corrupt):
        CODEC.unpack(KEY, [item(row + tail)])


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(LONG) - 1), max_size=6))
def test_fragments_in_any_order(order: list[int]) -> None:
    assume(order != list(range(len(LONG))) * (len(order) // len(LONG)))
    items = items_of(tuple(LONG[n] for n in order))
    with pytest.raises(Corrupt):
        CODEC.unpack(KEY, items)


@pytest.mark.parametrize(
    "payload",
    [
        b"2026-13-01T00:00:00",
        b"2026-01-01",
        b"2026-01-01T00:00:00Z",
        b"2026-01-01T00:00:00.5",
        b"2026-01-01T00:00:00+00:00Z",
        b"2026-01-01T00:00:00+24:00",
        b"\xff",
        b"",
    ],
)
def test_a_datetime_has_one_form(payload: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(0, payload)))


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (1, b""),
        (1, bytes(15)),
        (1, bytes(17)),
        (2, b""),
        (2, b"1.2.3"),
        (2, b"ten"),
        (2, b"\xd9\xa1"),  # an Arabic digit, which Decimal() would take
        (2, b"1_000"),
        (2, b" 1"),
        (3, b""),
        (3, bytes(8)),
        (3, b"\x00" + b"\xff" * 8),  # 2**64 - 1 needs no extension
        (3, b"\x00" * 9 + b"\x01" * 9),  # not the shortest form
        (4, b""),
        (127, b"x"),
        (-2, b"x"),
        (-128, b""),
    ],
)
def test_other_payloads_and_extension_types_are_corrupt(code: int, payload: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(code, payload)))
