"""Where things are: buckets, the names of keys, and places in a session's sorted set.

``lua/parts/session.lua`` and ``lua/parts/index.lua`` describe what is kept there.
"""

import re
from zlib import crc32

from perdure.errors import InvalidURL
from perdure.types import SessionKey

BUCKETS = 64
"""Part of the format. A session's bucket, in braces, is its hash tag in a cluster."""

ABOVE_ITEMS = b"j"
"""Orders after every item."""

_PREFIX = re.compile(r"[^{}\x00-\x20\x7f]{1,64}")


class Names:
    """The names of keys under one prefix. Raises ``InvalidURL`` for one with braces."""

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise InvalidURL(
                "the option prefix is 1 to 64 characters, without braces, spaces and controls"
            )
        self.prefix = prefix
        self.indexes = tuple(f"{prefix}:{{{bucket}}}".encode() for bucket in range(BUCKETS))

    def session(self, key: SessionKey) -> tuple[int, bytes]:
        """A session's bucket, and the name of its key."""
        name = key.encode()
        bucket = crc32(name) % BUCKETS
        return bucket, b"%b:%b" % (self.indexes[bucket], name)


def escape(key: bytes) -> bytes:
    """An item's key so that NUL can end it, ordered as the key is."""
    return key.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")


def unescape(escaped: bytes) -> bytes:
    """The inverse of :func:`escape`."""
    return escaped.replace(b"\1\1", b"\0").replace(b"\1\2", b"\1")


def place(key: bytes) -> bytes:
    """What the member of an item starts with, up to its version."""
    return b"i%b\0" % escape(key)


def behind(place: bytes) -> bytes:
    """The end of the range that holds just what is at ``place``."""
    return place[:-1] + b"\1"


def bound(key: bytes | None) -> bytes:
    """Where the items with this key or a later one start; ``None``: behind all items."""
    return ABOVE_ITEMS if key is None else b"i" + escape(key)


def due_name(member: bytes) -> bytes:
    """The encoded session key in a member of an index that says what is due."""
    if member[:1] == b"u":
        return member[9:]
    return member[19 : 19 + int.from_bytes(member[17:19], "big")]
