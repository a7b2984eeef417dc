"""Entries and commits too long for a row."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.codec import ROW_BYTES, Codec
from perdure.codec.envelope import FRAGMENT
from perdure.errors import Corrupt

from tests.core.codec.values import COMMIT, KEY, commit_of, entries_of, item, items_of

CODEC = Codec(compress_min=None)
BODY = 26


def text(encoded_size: int) -> str:
    """A str that takes so many bytes in MessagePack: 3 of header up to 64 KiB, then 5."""
    return "x" * (encoded_size - (3 if encoded_size <= 0xFFFF + 3 else 5))


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("off", range(-7, 8))
@pytest.mark.parametrize("neighbours", [False, True])
def test_entries_around_the_length_of_a_row(rows: int, off: int, neighbours: bool) -> None:
    entry = text(rows * ROW_BYTES + off)
    entries = ["before", entry, "after"] if neighbours else [entry]
    packed = CODEC.pack(KEY, COMMIT, entries)
    assert all(len(row) <= BODY + ROW_BYTES for row in packed)
    assert entries_of(CODEC, items_of(packed)) == entries
    counts = [CODEC.row_count(row) for row in packed]
    assert sum(counts) == len(entries)
    assert [len(row) for row in CODEC.unpack(KEY, items_of(packed))] == counts


def test_an_entry_that_just_fits_is_one_row_and_one_byte_more_is_two() -> None:
    assert len(CODEC.pack(KEY, COMMIT, [text(ROW_BYTES - 1)])) == 1
    assert len(CODEC.pack(KEY, COMMIT, [text(ROW_BYTES)])) == 1  # one fragment, alone
    assert len(CODEC.pack(KEY, COMMIT, ["x" * ROW_BYTES])) == 2


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.integers(0, 300),
            st.integers(20_000, 140_000),
            st.sampled_from([ROW_BYTES + n for n in range(-30, 3)]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([None, 0, 8192]),
    st.booleans(),
)
def test_commits_of_any_size_come_back(
    sizes: list[int], compress_min: int | None, extended: bool
) -> None:
    codec = Codec(compress_min=compress_min)
    entries: list[Any] = [{"n": n, "text": "ab" * (size // 2)} for n, size in enumerate(sizes)]
    if extended:
        entries.append(2**70)
    packed = codec.pack(KEY, COMMIT, entries)
    assert entries_of(codec, items_of(packed)) == entries
    assert {codec.row_commit_id(row) for row in packed} == {COMMIT}
    assert all(len(row) <= BODY + ROW_BYTES for row in packed)
    # No two neighbouring rows could have been one, unless entries in fragments come between.
    plain = CODEC.pack(KEY, COMMIT, entries)
    for row, following in pairwise(plain):
        if not (row[1] | following[1]) & FRAGMENT:
            assert len(row) + len(following) - 2 * BODY > ROW_BYTES - 3


def test_many_small_entries_fill_their_rows() -> None:
    packed = CODEC.pack(KEY, COMMIT, list(range(100)) * 3000)
    assert len(packed) == 5
    assert all(len(row) > BODY + ROW_BYTES - 10 for row in packed[:-1])
    assert [CODEC.row_span(row)[0] for row in packed] == [0] * 5


@pytest.fixture
def rows() -> list[bytes]:
    packed = CODEC.pack(KEY, COMMIT, ["first", "x" * (3 * ROW_BYTES), "last"])
    assert len(packed) == 6  # first; four fragments; last
    return list(packed)


def test_fragments_know_their_place(rows: list[bytes]) -> None:
    assert [CODEC.more_fragments(row) for row in rows] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    assert [CODEC.row_span(row) for row in rows] == [
        (0, 1),
        (0, 1),
        (0, 0),
        (0, 0),
        (0, 0),
        (0, 1),
    ]


def test_a_tail_cut_inside_an_entry_is_corrupt(rows: list[bytes]) -> None:
    items = items_of(tuple(rows))
    with pytest.raises(Corrupt, match="fragment 0"):
        CODEC.unpack(KEY, items[2:])


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_a_missing_fragment_is_corrupt(rows: list[bytes], missing: int) -> None:
    del rows[missing]
    with pytest.raises(Corrupt, match="missing"):
        CODEC.unpack(KEY, items_of(tuple(rows)))


def test_fragments_out_of_order_are_corrupt(rows: list[bytes]) -> None:
    rows[2], rows[3] = rows[3], rows[2]
    with pytest.raises(Corrupt, match="fragment 1"):
        CODEC.unpack(KEY, items_of(tuple(rows)))


def test_fragments_of_two_commits_do_not_mix(rows: list[bytes]) -> None:
    others = CODEC.pack(KEY, commit_of(9), ["first", "y" * (3 * ROW_BYTES), "last"])
    rows[2] = others[2]
    with pytest.raises(Corrupt, match="fragment 1"):
        CODEC.unpack(KEY, items_of(tuple(rows)))


def test_an_entry_in_fragments_is_not_trimmed(rows: list[bytes]) -> None:
    first = item(rows[1])
    assert CODEC.trim(KEY, first) == rows[1]
    assert CODEC.trim(KEY, first, stop=1) == rows[1]
    assert CODEC.trim(KEY, item(rows[2])) == rows[2]
    with pytest.raises(ValueError, match="fragments"):
        CODEC.trim(KEY, first, start=1)
    with pytest.raises(ValueError, match="fragments"):
        CODEC.trim(KEY, first, stop=0)
