"""Cutting: the pieces are the value, of bounded length, and end where their content says."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.codec import encode
from perdure.codec.pieces import LITERAL_BYTES, MAX_BYTES, MIN_BYTES, Run, cut

from tests.core.documents import chat, source, text


def joined(runs: list[Run]) -> bytes:
    return b"".join(run.literal + b"".join(run.pieces) for run in runs)


def pieces(value: Any) -> list[bytes]:
    runs = cut(encode(value)[0])
    return [bytes(piece) for run in runs for piece in run.pieces]


def nested(value: Any, depth: int) -> Any:
    return nested([value], depth - 1) if depth else value


_RNG = random.Random(0)

VALUES: dict[str, Any] = {
    "chat": chat(1_000_000),
    "null": None,
    "empty": {},
    "integers": list(range(200_000)),
    "floats": [_RNG.random() for _ in range(50_000)],
    "short keys": {f"k{n}": n for n in range(50_000)},
    "long keys": {text(_RNG, 30_000): n for n in range(20)},
    "one line": text(_RNG, 1_000_000),
    "lines": source(_RNG, 1_000_000),
    "empty lines": "\n" * 1_000_000,
    "spaces": " " * 1_000_000,
    "bytes": _RNG.randbytes(1_000_000),
    "zeros": bytes(1_000_000),
    "deep": nested([0] * 50_000, 100),
    "large lists": [[text(_RNG, 100)] * 700 for _ in range(15)],
    "a large value in a list of short ones": [*range(1000), text(_RNG, 500_000), *range(1000)],
}


@pytest.mark.parametrize("name", VALUES)
def test_the_pieces_are_the_value_and_of_bounded_length(name: str) -> None:
    body = encode(VALUES[name])[0]
    runs = cut(body)
    assert joined(runs) == body
    sizes = [len(piece) for run in runs for piece in run.pieces]
    assert max(sizes, default=0) <= MAX_BYTES
    assert len(sizes) <= len(body) / MIN_BYTES + 2 * len(runs)
    assert all(len(run.literal) < 8 * LITERAL_BYTES for run in runs)
    assert sum(size < LITERAL_BYTES for size in sizes) <= len(runs)


def test_cutting_is_the_same_each_time() -> None:
    assert pieces(VALUES["chat"]) == pieces(chat(1_000_000))


def test_the_count_of_a_long_list_is_in_no_piece() -> None:
    """An element more at its end changes the last piece, and nothing before it."""
    document = chat(1_000_000)
    before = pieces(document)
    document["messages"].append("one more")
    after = pieces(document)
    assert len(set(after) - set(before)) == 1


@pytest.mark.parametrize("name", ["one line", "lines", "bytes"])
def test_cuts_return_to_where_they_were_behind_an_insertion(name: str) -> None:
    value: Any = VALUES[name]
    put_in: Any = b"!?" if name == "bytes" else "!?"
    for at in (0, 123_456, len(value) - 1):
        changed: Any = value[:at] + put_in + value[at:]
        new = set(pieces(changed)) - set(pieces(value))
        assert sum(map(len, new)) < 5 * MAX_BYTES


PLAIN = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN, st.integers(1, 3000))
@settings(deadline=None, max_examples=60)
def test_any_value_is_joined_again(value: Any, times: int) -> None:
    body = encode([value] * times)[0]
    runs = cut(body)
    assert joined(runs) == body
    assert msgspec.msgpack.decode(joined(runs)) == [value] * times
