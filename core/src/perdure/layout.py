"""Where the store keeps what, inside a session's ordered map. Part of the stored format.

====================  ==============================================================
``c`` + cell key      one cell (UTF-8)
``d``                 the document's manifest
``d`` NUL + number    one further part of the document (4 bytes, big-endian)
``f``                 lineage: what the session was forked from
``l`` NUL + row       one row of the main log (:func:`perdure.types.append_key`)
====================  ==============================================================

``l`` + name + NUL is reserved for named streams: a name is never empty and holds no NUL.
"""

from perdure.types import KeyRange

CELL = b"c"
CELL_STOP = b"d"

DOCUMENT = b"d"
DOCUMENT_PART = b"d\0"
DOCUMENT_STOP = b"e"

LINEAGE = b"f"

LOG = b"l\0"
LOG_STOP = b"l\1"

WHOLE_LOG = KeyRange(LOG, LOG_STOP)


def successor(key: bytes) -> bytes:
    """The smallest key after ``key``."""
    return key + b"\0"


def prefix_stop(prefix: bytes) -> bytes | None:
    """The smallest key after all that start with ``prefix``; ``None`` if there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else None


def commit_stop(row_key: bytes) -> bytes:
    """The smallest key after all log rows of the commit that made this one."""
    return prefix_stop(row_key[:-4]) or LOG_STOP
