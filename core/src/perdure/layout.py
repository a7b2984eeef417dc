"""Where the store keeps what, inside a session's ordered map. Part of the stored format.

=================================  =====================================================
``a`` + SHA-256                    an attachment's manifest
``b`` + upload id + number         one part of an attachment
``c`` + cell key                   one cell (UTF-8)
``d``                              the document's manifest
``d`` NUL + number                 one piece of the document
``f``                              lineage: what the session was forked from
``g`` + digest of an id            a fork that was made of this session
``k`` + name                       an idempotency key
``k`` + name + NUL + row           where stands what was appended under it
``l`` + stream + NUL + row         one row of a stream (:func:`perdure.types.append_key`)
``l`` + stream + NUL + FF + name   a value derived from the stream
``x``                              the lease of exclusive turns
``x`` NUL + ``q``                  who waits for it
=================================  =====================================================

Numbers have 4 bytes, big-endian. A stream's name is UTF-8 without NUL; that of the main log is
empty. What is derived from a stream stands behind all its rows, as no version begins with FF.
"""

from perdure.types import KeyRange, check_identifier

ATTACHMENT = b"a"
PART = b"b"

CELL = b"c"
CELL_STOP = b"d"

DOCUMENT = b"d"
DOCUMENT_PART = b"d\0"
DOCUMENT_STOP = b"e"

LINEAGE = b"f"
FORK = b"g"
FORK_STOP = b"h"

IDEMPOTENCY = b"k"

STREAMS = b"l"
STREAMS_STOP = b"m"

LEASE = b"x"
LEASE_QUEUE = b"x\0q"

LOG = b"l\0"
"""The prefix of the main log."""

FIRST_NAMED = b"l\1"
"""Where the named streams begin: behind the main log, whose name is empty."""

MAX_STREAM_BYTES = 480
"""Longest name of a stream, in UTF-8 bytes."""


def stream_prefix(name: object) -> bytes:
    """What the keys of a stream's rows begin with; ``""`` is the main log.

    Raises :class:`InvalidKey`.
    """
    if name == "":
        return LOG
    return b"l%b\0" % check_identifier("stream", name, MAX_STREAM_BYTES).encode()


def stream_name(key: bytes) -> str:
    """The name of the stream that an item key belongs to; ``""``: the main log."""
    return key[1 : key.index(0)].decode()


def rows_stop(prefix: bytes) -> bytes:
    """The smallest key after all rows of a stream."""
    return prefix + b"\xff"


def rows_of(prefix: bytes) -> KeyRange:
    """All rows of a stream."""
    return KeyRange(prefix, rows_stop(prefix))


def all_of(prefix: bytes) -> KeyRange:
    """All rows of a stream, and what is derived from them."""
    return KeyRange(prefix, prefix[:-1] + b"\1")


def successor(key: bytes) -> bytes:
    """The smallest key after ``key``."""
    return key + b"\0"


def prefix_stop(prefix: bytes) -> bytes | None:
    """The smallest key after all that start with ``prefix``; ``None`` if there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else None


def commit_stop(row_key: bytes) -> bytes:
    """The smallest key after all log rows of the commit that made this one."""
    return prefix_stop(row_key[:-4]) or rows_stop(row_key[:-12])
