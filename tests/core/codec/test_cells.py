"""One value, or opaque bytes, in a row of their own."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.codec import Codec
from perdure.errors import Corrupt, FormatTooNew, Undecryptable

from tests.core.codec.values import COMMIT, KEY, exact, item, values

CODEC = Codec()


@settings(deadline=None)
@given(values, st.none() | st.integers(0, 2**64 - 1), st.sampled_from([None, 0, 8192]))
def test_a_sealed_value_comes_back(
    value: Any, expires_at: int | None, compress_min: int | None
) -> None:
    codec = Codec(compress_min=compress_min)
    row = codec.seal(KEY, value, expires_at=expires_at)
    assert exact(codec.open(KEY, item(row))) == exact(value)
    assert codec.expires_at(row) == expires_at


@settings(deadline=None)
@given(st.binary(), st.sampled_from([None, 0, 8192]))
def test_sealed_bytes_come_back(data: bytes, compress_min: int | None) -> None:
    codec = Codec(compress_min=compress_min)
    row = codec.seal_bytes(KEY, data)
    assert codec.open_bytes(KEY, item(row)) == data


@settings(deadline=None)
@given(values)
def test_a_bare_body_comes_back(value: Any) -> None:
    body = CODEC.encode(KEY, value)
    assert exact(CODEC.decode(KEY, body)) == exact(value)
    with pytest.raises(Corrupt, match="chat-7"):
        CODEC.decode(KEY, body + b"\x00")


def test_one_kind_of_row_is_never_taken_for_another() -> None:
    # The three differ in nothing but their kind.
    log = CODEC.pack(KEY, COMMIT, [1, 2])[0]
    value = CODEC.seal(KEY, "x" * 40)
    data = CODEC.seal_bytes(KEY, b"x" * 40)
    readers: dict[bytes, Callable[[bytes], Any]] = {
        log: lambda row: CODEC.unpack(KEY, [item(row)]),
        value: lambda row: CODEC.open(KEY, item(row)),
        data: lambda row: CODEC.open_bytes(KEY, item(row)),
    }
    for of, read in readers.items():
        for row in readers:
            if row == of:
                read(row)
            else:
                with pytest.raises(Corrupt, match="this should be"):
                    read(row)
    for row in (log, data):
        with pytest.raises(Corrupt, match="this should be a value"):
            CODEC.expires_at(row)


@pytest.mark.parametrize("format", [2, 3, 255])
def test_a_newer_format_is_refused(format: int) -> None:
    row = bytes((format,)) + CODEC.seal(KEY, 1)[1:]
    with pytest.raises(FormatTooNew, match=rf"format {format}.*chat-7"):
        CODEC.open(KEY, item(row))
    log = bytes((format,)) + CODEC.pack(KEY, COMMIT, [1])[0][1:]
    with pytest.raises(FormatTooNew):
        CODEC.unpack(KEY, [item(log)])


def test_format_zero_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="format 0"):
        CODEC.open(KEY, item(b"\x00\x40\xc0"))


def test_an_encrypted_row_is_refused_as_such() -> None:
    row = CODEC.seal(KEY, 1)
    with pytest.raises(Undecryptable, match="sealed with the key"):
        CODEC.open(KEY, item(bytes((row[0], row[1] | 0x20)) + row[2:]))


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (0x00, 0x10),  # a log row with an expiry
        (0x00, 0x08),  # more fragments, without being one
        (0x40, 0x04),  # a value in fragments
        (0x40, 0x08),
        (0x80, 0x02),  # opaque bytes with extension types
        (0x80, 0x10),
    ],
)
def test_impossible_flags_are_corrupt(kind: int, flags: int) -> None:
    row = item(bytes((1, kind | flags)) + bytes(40))
    readers = {0x00: lambda: CODEC.unpack(KEY, [row]), 0x40: lambda: CODEC.open(KEY, row)}
    with pytest.raises(Corrupt, match="impossible flags"):
        readers.get(kind, lambda: CODEC.open_bytes(KEY, row))()


def test_the_reserved_kind_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="unknown kind"):
        CODEC.open(KEY, item(b"\x01\xc0\xc0"))


@pytest.mark.parametrize("length", range(10))
def test_an_expiry_cut_short_is_corrupt(length: int) -> None:
    cut = CODEC.seal(KEY, 1, expires_at=5)[:length]
    with pytest.raises(Corrupt):
        CODEC.expires_at(cut)
    with pytest.raises(Corrupt):
        CODEC.open(KEY, item(cut))
