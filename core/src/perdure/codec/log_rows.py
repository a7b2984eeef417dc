"""The bytes of a log row: who wrote it, where its entries stand, and the entries.

The header is commit id (16 bytes), first and count (4 bytes each, big-endian). It is never
compressed, so that positions are known, and commits recognised, without touching the body.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import compress
from operator import attrgetter, itemgetter
from typing import Any

from perdure.codec.conversion import MAX_VALUE_BYTES, too_large
from perdure.codec.envelope import (
    EXTENDED,
    FORMAT,
    FRAGMENT,
    LOG,
    MORE_FRAGMENTS,
    PREFIX_BYTES,
    ZSTD,
    flags_of,
    unwrap,
    wrap,
)
from perdure.codec.values import decode, decode_row, decode_rows, join, split
from perdure.errors import Corrupt
from perdure.types import Item

ROW_BYTES = 64 * 1024
"""Longest body of a row, before compression. Longer commits make several rows."""

MAX_ROW_BYTES = 1024 * 1024
"""Longest body of a compressed row that is read: room for writers with another ROW_BYTES."""

COMMIT_ID_BYTES = 16
_NUMBERS = struct.Struct(">II")
HEADER_BYTES = COMMIT_ID_BYTES + _NUMBERS.size
BODY = PREFIX_BYTES + HEADER_BYTES
"""Where the body begins."""

_ROOM = ROW_BYTES - 3
"""What is left for entries beside the longest array header that their number can need."""

_PLAIN_TYPED = {bytes((FORMAT, LOG))}
_PLAIN = _PLAIN_TYPED | {bytes((FORMAT, LOG | EXTENDED))}
_USUAL_TYPED = _PLAIN_TYPED | {bytes((FORMAT, LOG | ZSTD))}
_USUAL = _PLAIN | _USUAL_TYPED | {bytes((FORMAT, LOG | EXTENDED | ZSTD))}
_COUNT = slice(BODY - 4, BODY)
_value_of = attrgetter("value")
_prefix_of = itemgetter(slice(0, PREFIX_BYTES))
_count_of = itemgetter(slice(BODY - 4, BODY + 1))
_body_of = itemgetter(slice(BODY, None))


def make_row(
    flags: int, commit_id: bytes, first: int, count: int, body: bytes, compress_min: int | None
) -> bytes:
    """A row of ``count`` entries, the first of which has the index ``first``; of a fragment,
    ``first`` is its number, and ``count`` 1 for the one that the entry counts with."""
    return wrap(LOG | flags, commit_id + _NUMBERS.pack(first, count), body, compress_min)


def make_rows(
    commit_id: bytes, extended: bool, entries: Sequence[memoryview], compress_min: int | None
) -> Iterator[bytes]:
    """The rows of one commit's encoded entries, in order: cut between entries, and within
    those that are too long for a row. Raises ``TooLarge``."""
    flags = EXTENDED if extended else 0
    group: list[memoryview] = []
    size = 0
    for index, entry in enumerate(entries):
        if group and size + len(entry) > _ROOM:
            yield make_row(flags, commit_id, 0, len(group), join(group), compress_min)
            group, size = [], 0
        if len(entry) < ROW_BYTES:
            group.append(entry)
            size += len(entry)
            continue
        if len(entry) > MAX_VALUE_BYTES:
            raise too_large(f"entries[{index}]", len(entry))
        starts = range(0, len(entry), ROW_BYTES)
        for number, start in enumerate(starts):
            more = MORE_FRAGMENTS if start != starts[-1] else 0
            piece = bytes(entry[start : start + ROW_BYTES])
            marked = flags | FRAGMENT | more
            yield make_row(marked, commit_id, number, int(number == 0), piece, compress_min)
    if group:
        yield make_row(flags, commit_id, 0, len(group), join(group), compress_min)


def log_flags(value: bytes) -> int:
    """The flags of a log row that is at least as long as its header. Raises as reading does."""
    return flags_of(value, LOG, HEADER_BYTES)


def commit_id_of(value: bytes) -> bytes:
    """The id of the commit that wrote a row."""
    return value[PREFIX_BYTES : PREFIX_BYTES + COMMIT_ID_BYTES]


def numbers_of(value: bytes) -> tuple[int, int]:
    """(first, count) of a row."""
    return _NUMBERS.unpack_from(value, PREFIX_BYTES + COMMIT_ID_BYTES)


def usual_rows(items: Sequence[Item], type: Any) -> list[list[Any]] | None:
    """The entries of all rows if nothing is special about any of them; ``None`` otherwise,
    errors included.

    Loops in C, and one call of the decoder per row.
    """
    values = list(map(_value_of, items))
    prefixes = set(map(_prefix_of, values))
    if not prefixes <= (_USUAL if type is Any else _USUAL_TYPED):
        return None
    if not prefixes <= _PLAIN:
        return _usual_compressed(values, type)
    rows = decode_rows(map(_body_of, map(memoryview, values)), type)
    if rows is None:
        return None
    # The decoder has checked the array headers, so a header that agrees settles the count.
    # Rows of one shape share it: a set holds few.
    if not all(map(_count_agrees, set(map(_count_of, values)))) and any(
        numbers_of(value)[1] != len(row) for value, row in zip(values, rows, strict=True)
    ):
        return None
    return rows


def _usual_compressed(values: Sequence[bytes], type: Any) -> list[list[Any]] | None:
    """:func:`usual_rows`, of which some are compressed and nothing else is special."""
    from perdure.codec.zstd import decompress_all

    if min(map(len, values)) < BODY:
        return None
    bodies = list(map(_body_of, values))
    packed = [bool(value[1] & ZSTD) for value in values]
    try:
        opened = decompress_all(compress(bodies, packed), MAX_ROW_BYTES)
    except Corrupt:
        return None
    if len(opened) < len(bodies):
        following = iter(opened)
        opened = [
            next(following) if is_packed else body
            for is_packed, body in zip(packed, bodies, strict=True)
        ]
    rows = decode_rows(opened, type)
    if rows is None:
        return None
    stated = b"".join(map(itemgetter(_COUNT), values))
    return rows if stated == struct.pack(f">{len(rows)}I", *map(len, rows)) else None


def _count_agrees(count_and_first_byte: bytes) -> bool:
    """Whether the count in the header is that of a body with a one-byte array header."""
    count = int.from_bytes(count_and_first_byte[:4], "big")
    return count < 16 and count_and_first_byte[4] == 0x90 | count


def row_entries(value: bytes, flags: int, type: Any) -> list[Any]:
    """The entries of a row that is not a fragment."""
    body = unwrap(value, BODY, flags, MAX_ROW_BYTES)
    row: list[Any] = decode_row(body, type, extended=bool(flags & EXTENDED))
    _check_count(value, len(row))
    return row


def encoded_entries(value: bytes, flags: int) -> list[memoryview]:
    """The entries of a row that is not a fragment, as they are encoded."""
    entries = split(unwrap(value, BODY, flags, MAX_ROW_BYTES))
    _check_count(value, len(entries))
    return entries


def _check_count(value: bytes, found: int) -> None:
    stated = numbers_of(value)[1]
    if stated != found:
        raise Corrupt(f"a row says it holds {stated} entries, and holds {found}")


def fragmented_entry(items: Sequence[Item], start: int, type: Any) -> list[list[Any]]:
    """The entry whose first fragment is ``items[start]``, and an empty row per further one."""
    commit_id = commit_id_of(items[start].value)
    pieces: list[bytes] = []
    size = extended = 0
    for number in range(len(items) - start):
        value = items[start + number].value
        flags = log_flags(value)
        if (
            not flags & FRAGMENT
            or commit_id_of(value) != commit_id
            or numbers_of(value) != (number, int(number == 0))
        ):
            raise Corrupt(f"fragment {number} of a long entry is missing")
        piece = unwrap(value, BODY, flags, MAX_ROW_BYTES)
        size += len(piece)
        if size > MAX_VALUE_BYTES:
            raise Corrupt(f"the fragments of an entry exceed {MAX_VALUE_BYTES} bytes")
        pieces.append(piece)
        extended |= flags & EXTENDED
        if not flags & MORE_FRAGMENTS:
            entry = decode(b"".join(pieces), type, extended=bool(extended))
            return [[entry], *([] for _ in range(number))]
    raise Corrupt("the last fragments of a long entry are missing")
