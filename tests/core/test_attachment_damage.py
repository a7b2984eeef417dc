"""Attachments that were damaged: nothing wrong is ever given out."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure import (
    AttachmentNotFound,
    Corrupt,
    Store,
)
from perdure.attachment_parts import PART_BYTES
from perdure.types import SessionKey

from perdure_sqlite.backend import SqliteBackend
from tests.core.attachment_sources import content

KEY = SessionKey("default", "session", "s")

Rows = dict[bytes, bytes]


def flip(row: bytes, bit: int) -> bytes:
    changed = bytearray(row)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def swap(rows: Rows, a: int, b: int) -> None:
    names = sorted(rows)
    rows[names[a]], rows[names[b]] = rows[names[b]], rows[names[a]]


def put(rows: Rows, index: int, change: Callable[[bytes], bytes]) -> None:
    name = sorted(rows)[index]
    rows[name] = change(rows[name])


def drop(rows: Rows, index: int) -> None:
    del rows[sorted(rows)[index]]


# Rows in key order: 0 is the manifest, then come the parts.
DAMAGE: dict[str, Callable[[Rows], None]] = {
    "first bit of the first part": lambda rows: put(rows, 1, lambda row: flip(row, 16)),
    "last bit of the first part": lambda rows: put(rows, 1, lambda row: flip(row, -1)),
    "a bit in the middle": lambda rows: put(rows, 5, lambda row: flip(row, 8 * 70_000 + 3)),
    "last bit of all": lambda rows: put(rows, -1, lambda row: flip(row, -1)),
    "an envelope": lambda rows: put(rows, 3, lambda row: flip(row, 8)),
    "a part cut short": lambda rows: put(rows, 2, lambda row: row[:-1]),
    "the last part cut short": lambda rows: put(rows, -1, lambda row: row[:-1]),
    "a part made longer": lambda rows: put(rows, 2, lambda row: row + b"\0"),
    "an empty part": lambda rows: put(rows, 2, lambda row: b""),
    "parts swapped": lambda rows: swap(rows, 2, 6),
    "neighbours swapped": lambda rows: swap(rows, 3, 4),
    "first part missing": lambda rows: drop(rows, 1),
    "a part missing": lambda rows: drop(rows, 4),
    "last part missing": lambda rows: drop(rows, -1),
    "a part in place of another": lambda rows: put(rows, 2, lambda _: rows[sorted(rows)[5]]),
    "a size in the manifest": lambda rows: put(
        rows, 0, lambda row: row.replace(b"\xa4size\xce\x00", b"\xa4size\xce\x01")
    ),
    "the checks of a part": lambda rows: put(
        rows,
        0,
        lambda row: flip(
            flip(row, 8 * (row.index(b"checks") + 40)), 8 * (row.index(b"checks") + 48)
        ),
    ),
}


def damaged(path: Path, change: Callable[[Rows], None]) -> None:
    """Change the attachment's rows in a file, past the backend."""
    with sqlite3.connect(path) as db:
        found = "SELECT key, value FROM items WHERE key >= x'61' AND key < x'63'"
        rows: Rows = dict(db.execute(found).fetchall())
        was = dict(rows)
        change(rows)
        assert rows != was
        for key in was.keys() - rows.keys():
            db.execute("DELETE FROM items WHERE key = ?", (key,))
        for key, value in rows.items():
            db.execute("UPDATE items SET value = ? WHERE key = ?", (value, key))
    db.close()


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
async def test_all_damage_is_found_before_it_is_given_out(
    tmp_path: Path, change: Callable[[Rows], None]
) -> None:
    path = tmp_path / "sessions.db"
    backend = SqliteBackend(path)
    data = content(6 * PART_BYTES + 100_000)
    digest = (await Store(backend).session("s").attachments.put(data)).digest
    damaged(path, change)
    given = bytearray()
    with pytest.raises(Corrupt):
        async for piece in Store(backend).session("s").attachments.open(digest):
            given += piece
    assert data.startswith(given)
    # In ranges: each is right or an error, and one of them is an error.
    errors = 0
    for number in range(7):
        start, stop = number * PART_BYTES + 10, (number + 1) * PART_BYTES - 10
        found = bytearray()
        try:
            async for piece in (
                Store(backend).session("s").attachments.open(digest, start=start, stop=stop)
            ):
                found += piece
        except Corrupt:
            errors += 1
        else:
            assert found == data[start:stop]
    assert errors
    await backend.aclose()


async def test_short_and_empty_content_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    backend = SqliteBackend(path)
    session = Store(backend).session("s")
    digest = (await session.attachments.put(b"hello")).digest
    damaged(path, lambda rows: put(rows, 1, lambda row: row.replace(b"hello", b"jello")))
    with pytest.raises(Corrupt, match=digest):
        await session.attachments.read(digest)
    await session.delete()
    put_ = await session.attachments.put(b"")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE items SET key = ?", (b"a" + bytes(32),))
    db.close()
    with pytest.raises(AttachmentNotFound):
        await session.attachments.read(put_.digest)
    with pytest.raises(Corrupt):
        await session.attachments.read("00" * 32)
    await backend.aclose()


async def test_a_part_that_expands_to_far_more_than_a_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    backend = SqliteBackend(path)
    session = Store(backend).session("s")
    digest = (await session.attachments.put(b"x" * 100_000)).digest
    codec = session.attachments._handle.client.codec
    bomb = codec.seal_bytes(KEY, bytes(30_000_000))
    assert len(bomb) < 10_000
    damaged(path, lambda rows: put(rows, 1, lambda _: bomb))
    with pytest.raises(Corrupt, match="261120 are allowed"):
        await session.attachments.read(digest)
    await backend.aclose()


# What an upload leaves that ends half-way
