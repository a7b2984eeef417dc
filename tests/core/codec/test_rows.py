"""Log rows: what one commit appends, packed, found again, and cut."""

import gc
from collections import UserList
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.codec import ROW_BYTES, Codec, Encoded
from perdure.errors import Corrupt, InvalidValue
from perdure.types import Item

from tests.core.codec.values import (
    COMMIT,
    KEY,
    commit_of,
    entries_of,
    exact,
    item,
    items_of,
    values,
)

CODEC = Codec()


@settings(deadline=None)
@given(st.lists(st.lists(values, min_size=1, max_size=20), max_size=6))
def test_commits_come_back_row_by_row(commits: list[list[Any]]) -> None:
    items = [
        item(row, number)
        for number, entries in enumerate(commits, 1)
        for row in CODEC.pack(KEY, commit_of(number), entries)
    ]
    assert exact(CODEC.unpack(KEY, items)) == exact(commits)
    spans = [CODEC.row_span(item.value) for item in items]
    assert spans == [(0, len(entries)) for entries in commits]
    ids = [CODEC.row_commit_id(item.value) for item in items]
    assert ids == [commit_of(number) for number in range(1, len(commits) + 1)]


def test_many_rows_of_all_kinds_come_back_together() -> None:
    """Plain, extended, compressed, long and fragmented ones, enough to pause the collector."""
    commits: list[list[Any]] = [
        [
            {"n": n},
            "x" * (9_000 if n % 7 == 0 else 10),
            2 ** (n * 2),
            list(range(n)),
            "é" * (ROW_BYTES if n % 50 == 0 else 1),
            *range(n % 20),
        ]
        for n in range(120)
    ]
    rows = [CODEC.pack(KEY, commit_of(n), entries) for n, entries in enumerate(commits)]
    items = [item for n, row in enumerate(rows) for item in items_of(row, n)]
    assert entries_of(CODEC, items) == [entry for entries in commits for entry in entries]
    lengths = list(map(len, CODEC.unpack(KEY, items)))
    assert lengths == [CODEC.row_count(item.value) for item in items]


def test_nothing_makes_no_rows() -> None:
    assert CODEC.pack(KEY, COMMIT, []) == ()
    assert CODEC.rows(COMMIT, []) == ()
    assert CODEC.unpack(KEY, []) == []


def test_a_commit_id_has_16_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        CODEC.pack(KEY, b"short", [1])
    with pytest.raises(ValueError, match="16 bytes"):
        CODEC.rows(COMMIT + b"x", [Encoded(b"\x91\x01", 1, False)])


@settings(deadline=None)
@given(st.lists(values, max_size=8))
def test_entries_encoded_in_parts_make_the_same_rows(entries: list[Any]) -> None:
    one_by_one = [CODEC.encode_entries([entry]) for entry in entries]
    assert CODEC.rows(COMMIT, one_by_one) == CODEC.pack(KEY, COMMIT, entries)
    at_once = [CODEC.encode_entries(entries)] if entries else []
    assert CODEC.rows(COMMIT, at_once) == CODEC.pack(KEY, COMMIT, entries)


@pytest.mark.parametrize("counts", [(3, 15, 16), (1, 65_535, 65_536), (70_000,)])
def test_parts_of_any_number_of_entries_make_the_same_rows(counts: tuple[int, ...]) -> None:
    parts = [CODEC.encode_entries([7] * count) for count in counts]
    assert CODEC.rows(COMMIT, parts) == CODEC.pack(KEY, COMMIT, [7] * sum(counts))


def test_errors_of_parts_count_the_entries_before_them() -> None:
    with pytest.raises(InvalidValue, match=r"entries\[5\]\.a"):
        CODEC.encode_entries([1, {"a": {1}}], first=4)


def test_entries_encoded_one_by_one_split_alike() -> None:
    entries = ["a" * 30_000, "b" * 40_000, "c" * 200_000, "d", 2**70, "e" * 65_000]
    encoded = [CODEC.encode_entries([entry]) for entry in entries]
    rows = CODEC.rows(COMMIT, encoded)
    assert rows == CODEC.pack(KEY, COMMIT, entries)
    assert len(rows) > 4


def test_an_encoded_entry_does_not_follow_its_object() -> None:
    entry = {"a": [1]}
    encoded = CODEC.encode_entries([entry])
    entry["a"].append(2)
    (row,) = CODEC.rows(COMMIT, [encoded])
    assert CODEC.unpack(KEY, [item(row)]) == [[{"a": [1]}]]


def test_the_collector_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = CODEC.pack(KEY, COMMIT, [1])
    items = [item(row)] * 200
    assert gc.isenabled()
    CODEC.unpack(KEY, items)
    assert gc.isenabled()
    with pytest.raises(Corrupt):
        CODEC.unpack(KEY, [*items, item(b"")])
    assert gc.isenabled()
    gc.disable()
    try:
        CODEC.unpack(KEY, items)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("count", [1, 14, 15, 16, 17, 300])
@pytest.mark.parametrize("compress_min", [None, 0])
def test_trimming_keeps_a_range_of_entries(count: int, compress_min: int | None) -> None:
    codec = Codec(compress_min=compress_min)
    entries = [{"n": n, "text": "abc" * 20} for n in range(count)]
    (row,) = codec.pack(KEY, COMMIT, entries)
    for start in {0, 1, count // 2, count - 1, count}:
        for stop in {None, 0, 1, count // 2, count - 1, count, count + 5}:
            kept = codec.trim(KEY, item(row), start=start, stop=stop)
            assert codec.unpack(KEY, [item(kept)]) == [entries[start:stop]]
            assert codec.row_span(kept) == (start, len(entries[start:stop]))
            assert codec.row_commit_id(kept) == COMMIT


def test_trimming_twice_adds_up() -> None:
    (row,) = CODEC.pack(KEY, COMMIT, [0, 1, 2**70, 3, 4, 5])
    once = CODEC.trim(KEY, item(row), start=1, stop=5)
    twice = CODEC.trim(KEY, item(once), start=1, stop=3)
    assert CODEC.unpack(KEY, [item(twice)]) == [[2**70, 3]]
    assert CODEC.row_span(twice) == (2, 2)


def test_trimming_nothing_changes_nothing() -> None:
    (row,) = CODEC.pack(KEY, COMMIT, [{"a": 2**70}, 1])
    assert CODEC.trim(KEY, item(row)) == row


# A corrupt row is named, and never shifts entries of its neighbours.


def _rows(*commits: list[Any]) -> list[bytes]:
    return [CODEC.pack(KEY, commit_of(n), c)[0] for n, c in enumerate(commits)]


def _with_body(row: bytes, body: bytes) -> bytes:
    return row[:26] + body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x92\x01",  # an entry is missing: the next row must not lend its own
        b"\x92\x01\x02\x03",  # one is left over
        b"\x92\x01\x02\x92\x03\x04",  # a whole row is left over
        b"\x91\x01",  # sound, but not as many as the header says
        b"\x93\x01\x02\x03",
        b"\x80",
        b"\x82\x01\x02\x03\x04",
        b"\xc0",
        b"\x02",
        b"\x92\x01\xc1",
        b"\x92\x01\xa1\xff",
        b"\x92\x01\xd4\x63\x00",  # an unknown extension type
        b"\xdd\xff\xff\xff\xff\x01",
    ],
    ids=lambda body: body.hex() or "empty",
)
@pytest.mark.parametrize("typed", [False, True])
def test_a_corrupt_row_is_named(body: bytes, typed: bool) -> None:
    rows = _rows([1, 2], [3, 4], [5, 6])
    rows[1] = _with_body(rows[1], body)
    items = [item(row, n) for n, row in enumerate(rows)]
    with pytest.raises(Corrupt) as caught:
        CODEC.unpack(KEY, items, int if typed else Any)
    assert repr(items[1].key) in str(caught.value)
    assert "chat-7" in str(caught.value)
    assert CODEC.unpack(KEY, [items[0], items[2]]) == [[1, 2], [5, 6]]


@pytest.mark.parametrize("count", [15, 16, 70_000])
def test_the_count_is_checked_whatever_the_array_header(count: int) -> None:
    codec = Codec(compress_min=None)
    row = codec.pack(KEY, COMMIT, [1] * count)[0]
    found = codec.row_count(row)
    wrong = row[:22] + (found - 1).to_bytes(4, "big") + row[26:]
    assert codec.unpack(KEY, [item(row)]) == [[1] * found]
    with pytest.raises(Corrupt, match=f"says it holds {found - 1} entries, and holds {found}"):
        codec.unpack(KEY, [item(row), item(wrong)])


def test_two_corruptions_that_would_cancel_out_do_not() -> None:
    """Joined together, these would decode: one row lends what the other lacks."""
    rows = _rows([1, 2], [3, 4])
    rows[0] = _with_body(rows[0], b"\x93\x01\x02")
    rows[1] = _with_body(rows[1], b"\x05\x92\x03\x04")
    with pytest.raises(Corrupt):
        CODEC.unpack(KEY, [item(row) for row in rows])


@pytest.mark.parametrize("length", range(26))
def test_a_row_cut_short_is_corrupt(length: int) -> None:
    (row,) = CODEC.pack(KEY, COMMIT, [1])
    cut = row[:length]
    for read in (
        lambda: CODEC.unpack(KEY, [item(row), item(cut)]),
        lambda: CODEC.row_span(cut),
        lambda: CODEC.row_commit_id(cut),
        lambda: CODEC.more_fragments(cut),
        lambda: CODEC.trim(KEY, item(cut)),
    ):
        with pytest.raises(Corrupt):
            read()


def test_refusals_name_the_entry_among_several_rows() -> None:
    entries: list[Any] = ["a" * 60_000, "b" * 60_000, "c" * 60_000, {"x": {1}}]
    with pytest.raises(InvalidValue) as caught:
        CODEC.pack(KEY, COMMIT, entries)
    assert caught.value.path == "entries[3].x"


def test_any_sequence_is_taken() -> None:
    (row,) = CODEC.pack(KEY, COMMIT, (1, 2))
    assert CODEC.pack(KEY, COMMIT, UserList((1, 2))) == (row,)
    items: tuple[Item, ...] = (item(row),)
    assert CODEC.unpack(KEY, items) == [[1, 2]]
