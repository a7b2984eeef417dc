"""Compression. Imported when first needed: most processes never compress anything."""

import threading
from collections.abc import Iterable

import zstandard

from perdure.errors import Corrupt

MAX_WINDOW_BYTES = 8 << 20
"""No frame gets a larger window; RFC 8878 asks every decoder to support it."""


class _Contexts(threading.local):
    """The memory that compressing and decompressing take, kept: making it anew costs more than
    a row does. Its like serves one thread at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=3)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)


_contexts = _Contexts()


def compress(body: bytes) -> bytes:
    """One zstd frame that states its length."""
    return _contexts.compressor.compress(body)


def decompress(frame: bytes, limit: int) -> bytes:
    """The content of one whole zstd frame and nothing else, at most ``limit`` bytes.

    The frame must state the length of its content. That is checked before anything is
    allocated, and no more ever comes out, so that a frame that lies is stopped too. Raises
    ``Corrupt``.
    """
    return decompress_all((frame,), limit)[0]


def decompress_all(frames: Iterable[bytes], limit: int) -> list[bytes]:
    """:func:`decompress` of each, in order."""
    decompress = _contexts.decompressor.decompress
    parameters = zstandard.get_frame_parameters
    bodies: list[bytes] = []
    try:
        for frame in frames:
            stated = parameters(frame)
            size = stated.content_size
            if not 0 < size <= limit or stated.window_size > MAX_WINDOW_BYTES:
                raise _refusal(size, limit)
            bodies.append(decompress(frame, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise Corrupt(f"a compressed row cannot be decompressed: {error}") from error
    return bodies


def _refusal(stated: int, limit: int) -> Corrupt:
    if stated in (0, zstandard.CONTENTSIZE_UNKNOWN):  # there is nothing to compress in nothing
        return Corrupt("a compressed row does not say how much it holds")
    if stated > limit:
        return Corrupt(f"a compressed row says it holds {stated} bytes; {limit} are allowed")
    return Corrupt(f"a compressed row wants a window of over {MAX_WINDOW_BYTES} bytes")
