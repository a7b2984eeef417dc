"""Bytes written by earlier releases: they are read for ever, and written the same.

``format1.txt`` is never edited, only added to. To see the bytes of new cases::

    python -m tests.golden.test_codec
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from perdure.codec import Codec
from perdure.layout import DOCUMENT
from perdure.manifest import EMPTY, Draft, Manifest, join, open_manifest, slot_key
from perdure.types import Item, SessionKey, append_key

from tests.core.codec.values import exact

KEY = SessionKey.of("acme", "session", "chat-7")
COMMIT = bytes(range(0xA0, 0xB0))
PLAIN = Codec(compress_min=None)
FILE = Path(__file__).with_name("format1.txt")

TURN: list[Any] = [
    {"role": "user", "content": "Wie spät ist es?", "ts": 1_790_000_000.25},
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "call_1", "input": {"tz": None, "n": -1}}],
        "stop": False,
    },
    {"role": "tool", "content": [], "ok": True, "extra": {}},
]
SCALARS: list[Any] = [
    None,
    True,
    False,
    0,
    127,
    -32,
    -33,
    255,
    65_535,
    2**32 - 1,
    2**64 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.0,
    float("inf"),
    float("nan"),
    "",
    "é\U0001f600",
    b"\x00\xff",
    [],
    {},
]
EXTENDED: list[Any] = [
    2**64,
    -(2**63) - 1,
    2**71,
    -(2**71),
    datetime(2026, 11, 22, 9, 30, 0, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2026, 11, 22, tzinfo=UTC),
    datetime(2026, 11, 22, 9, 30),  # noqa: DTZ001
    datetime(1, 1, 1, tzinfo=timezone(timedelta(seconds=-1, microseconds=999_999))),
    UUID("12345678-1234-5678-1234-567812345678"),
    Decimal("-0.00"),
    Decimal("1E+3"),
    Decimal("NaN"),
]


class Case(NamedTuple):
    write: Callable[[], list[bytes]]
    read: Callable[[list[Item]], Any]
    value: Any


def _entries(items: list[Item]) -> list[Any]:
    return [entry for row in PLAIN.unpack(KEY, items) for entry in row]


def _value(items: list[Item]) -> Any:
    return PLAIN.open(KEY, items[0])


def _bytes(items: list[Item]) -> bytes:
    return PLAIN.open_bytes(KEY, items[0])


def _document(items: list[Item]) -> Any:
    """Of a manifest, and the pieces in the slots from 0."""
    manifest, *pieces = (
        Item(slot_key(n - 1) if n else DOCUMENT, item.value, 1) for n, item in enumerate(items)
    )
    body = join(PLAIN, KEY, open_manifest(PLAIN, KEY, manifest), pieces)
    return PLAIN.decode(KEY, body)


def _short_document() -> list[bytes]:
    draft = Draft(PLAIN.encode(KEY, {"messages": TURN}))
    return [row for _, row in draft.change(PLAIN, KEY, EMPTY).puts]


def _document_in_pieces() -> list[bytes]:
    """``["first", "second", "first", None]``; it refers to slot 1 before slot 0, and twice."""
    first, second = b"\xa5first", b"\xa6second"
    entries = [
        blake2b(piece, digest_size=16).digest() + struct.pack(">HI", len(piece), slot)
        for piece, slot in ((first, 1), (second, 0), (first, 1))
    ]
    manifest = Manifest(((b"\x94", 2), (b"", 1), (b"\xc0", 0)), 3, b"".join(entries))
    return [manifest.seal(PLAIN, KEY), *(PLAIN.seal_bytes(KEY, row) for row in (second, first))]


def _log_case(entries: list[Any]) -> Case:
    return Case(lambda: list(PLAIN.pack(KEY, COMMIT, entries)), _entries, entries)


def _cell_case(value: Any, expires_at: int | None = None) -> Case:
    return Case(
        lambda: [PLAIN.seal(KEY, value, expires_at=expires_at)],
        _value,
        value,
    )


def _item(row: bytes, ordinal: int = 0) -> Item:
    return Item(append_key(b"l\0", 1, ordinal), row, 1)


CASES = {
    "log-turn": _log_case(TURN),
    "log-scalars": _log_case(SCALARS),
    "log-extended": _log_case(EXTENDED),
    "log-16-entries": _log_case(list(range(16))),
    "log-trimmed": Case(
        lambda: [PLAIN.trim(KEY, _item(PLAIN.pack(KEY, COMMIT, TURN)[0]), start=1, stop=2)],
        _entries,
        TURN[1:2],
    ),
    "cell": _cell_case({"step": 3}),
    "cell-extended": _cell_case(Decimal("1.10")),
    "cell-expires": _cell_case("lease", 1_790_000_000_000),
    "bytes": Case(
        lambda: [PLAIN.seal_bytes(KEY, b"\x00opaque\xff")],
        _bytes,
        b"\x00opaque\xff",
    ),
    "document-short": Case(_short_document, _document, {"messages": TURN}),
    "document-pieces": Case(_document_in_pieces, _document, ["first", "second", "first", None]),
}


def golden() -> dict[str, list[bytes]]:
    """Rows by name: a line is a name and a row in hexadecimal."""
    rows: dict[str, list[bytes]] = {}
    for line in FILE.read_text("ascii").splitlines():
        if line and not line.startswith("#"):
            name, row = line.split()
            rows.setdefault(name, []).append(bytes.fromhex(row))
    return rows


@pytest.mark.parametrize("name", CASES)
def test_golden_bytes_are_still_read(name: str) -> None:
    case = CASES[name]
    items = [_item(row, n) for n, row in enumerate(golden()[name])]
    assert exact(case.read(items)) == exact(case.value)


@pytest.mark.parametrize("name", CASES)
def test_golden_bytes_are_still_written(name: str) -> None:
    assert [row.hex() for row in CASES[name].write()] == [row.hex() for row in golden()[name]]


# Versions of zstd write different frames, and fragments are long: these are only read.

COMPRESSED = {"role": "tool", "content": "All work and no play. " * 500}


def test_golden_compressed_rows_are_still_read() -> None:
    rows = golden()
    (log,) = rows["log-zstd"]
    assert PLAIN.unpack(KEY, [_item(log)]) == [[COMPRESSED, 2**64]]
    (cell,) = rows["cell-zstd-expires"]
    assert PLAIN.open(KEY, _item(cell)) == COMPRESSED
    assert PLAIN.expires_at(cell) == 1_790_000_000_000


def test_golden_fragments_are_still_read() -> None:
    items = [_item(row, n) for n, row in enumerate(golden()["log-fragments-zstd"])]
    assert PLAIN.unpack(KEY, items) == [["a" * 65_600], []]
    assert [PLAIN.row_span(item.value) for item in items] == [(0, 1), (0, 0)]


def test_every_golden_row_is_tested() -> None:
    read_only = {"log-zstd", "cell-zstd-expires", "log-fragments-zstd"}
    assert set(golden()) == set(CASES) | read_only


def test_golden_positions_and_commits_are_known_without_decoding() -> None:
    rows = golden()
    assert PLAIN.row_span(rows["log-turn"][0]) == (0, 3)
    assert PLAIN.row_span(rows["log-trimmed"][0]) == (1, 1)
    assert PLAIN.row_commit_id(rows["log-turn"][0]) == COMMIT
    assert PLAIN.expires_at(rows["cell-expires"][0]) == 1_790_000_000_000
    assert PLAIN.expires_at(rows["cell"][0]) is None


if __name__ == "__main__":
    for case_name, a_case in CASES.items():
        for case_row in a_case.write():
            print(case_name, case_row.hex())
