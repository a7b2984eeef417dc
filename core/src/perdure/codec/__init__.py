"""Values to stored rows and back. ``docs/format.md`` specifies the bytes."""

from perdure.codec.conversion import MAX_DEPTH, MAX_NODES, MAX_VALUE_BYTES
from perdure.codec.log_rows import ROW_BYTES
from perdure.codec.rows import COMPRESS_MIN, COMPRESS_SEALED_MIN, Codec, Encoded
from perdure.codec.values import decode, encode

__all__ = [
    "COMPRESS_MIN",
    "COMPRESS_SEALED_MIN",
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_VALUE_BYTES",
    "ROW_BYTES",
    "Codec",
    "Encoded",
    "decode",
    "encode",
]
