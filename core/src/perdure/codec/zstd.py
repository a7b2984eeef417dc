"""Compression. Imported when first needed: most processes never compress anything."""

import sys

from perdure.errors import Corrupt

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
"""No frame gets a window beyond 8 MiB, which RFC 8878 asks every decoder to support."""


def compress(body: bytes) -> bytes:
    """One zstd frame that states its length."""
    return zstd.compress(body)


def decompress(frame: bytes, limit: int) -> bytes:
    """The content of one whole zstd frame and nothing else, at most ``limit`` bytes.

    The frame must state the length of its content. That is checked before anything is
    allocated, and no more ever comes out, so that a frame that lies is stopped too. Raises
    ``Corrupt``.
    """
    try:
        stated = zstd.get_frame_info(frame).decompressed_size
        if not stated:  # None, or 0, of which there is nothing to compress
            raise Corrupt("a compressed row does not say how much it holds")
        if stated > limit:
            raise Corrupt(f"a compressed row says it holds {stated} bytes; {limit} are allowed")
        decompressor = zstd.ZstdDecompressor(options=_OPTIONS)
        body = decompressor.decompress(frame, max_length=stated + 1)
    except zstd.ZstdError as error:
        raise Corrupt(f"a compressed row cannot be decompressed: {error}") from error
    if not decompressor.eof or decompressor.unused_data or len(body) != stated:
        raise Corrupt("a compressed row is not one whole zstd frame of the length it states")
    return body
