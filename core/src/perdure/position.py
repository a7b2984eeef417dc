"""Positions: where an entry stands in a session's log."""

from typing import NewType

from perdure.errors import InvalidKey

Position = NewType("Position", str)
"""An opaque cursor into one stream of a session, the main log or another: 32 hexadecimal digits
that sort as the stream does.

Never reused within the session's life. In another stream, in a fork, and in a session made anew
under the same id, the same digits may stand for another entry.
"""

START = Position("0" * 32)
"""Before the first entry."""

_KEY_BYTES = 12  # version and ordinal, as append_key completes a key


def position_of(key: bytes, index: int) -> Position:
    """The position of an entry: its row's key, and its index in the row as first written."""
    return Position((key[-_KEY_BYTES:] + index.to_bytes(4, "big")).hex())


def parse_position(position: str) -> tuple[bytes, int]:
    """The row (its key without the stream's prefix) and the index that a position stands for.

    Raises :class:`InvalidKey`.
    """
    try:
        raw = bytes.fromhex(position)
    except (ValueError, TypeError):
        raw = b""
    if len(raw) != _KEY_BYTES + 4 or raw.hex() != position:
        raise InvalidKey(f"not a position in a log: {position!r}")
    return raw[:_KEY_BYTES], int.from_bytes(raw[_KEY_BYTES:], "big")
