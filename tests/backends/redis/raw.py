"""A database as the tests see it past the backend: a plain client, and the layout by hand."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast
from zlib import crc32

import redis
from redis.exceptions import MovedError

from perdure.types import SessionKey


class Raw:
    """Reads and changes what the servers hold under one prefix, by redis-py.

    Of a cluster it asks all nodes: redis-py's own client for clusters does not close the
    connections to nodes that have lost their slots.
    """

    def __init__(self, url: str, prefix: str, *, cluster: bool = False) -> None:
        connect = cast("Any", redis.Redis).from_url  # partly of unknown type
        self.client: Any = connect(url)
        self.prefix = prefix
        self._nodes: list[Any] = [self.client]
        if cluster:
            names = cast("dict[str, object]", self.client.cluster("NODES"))
            self._nodes += [connect(f"redis://{name.split('@')[0]}") for name in names]

    def close(self) -> None:
        for node in self._nodes:
            node.close()

    def index(self, key: SessionKey) -> bytes:
        name = f"{key.tenant}\0{key.kind}\0{key.id}".encode()
        return b"%s:{%d}" % (self.prefix.encode(), crc32(name) % 64)

    def name(self, key: SessionKey) -> bytes:
        return self.index(key) + f":{key.tenant}\0{key.kind}\0{key.id}".encode()

    def members(self, name: bytes) -> list[bytes]:
        for node in self._nodes:
            with suppress(MovedError):
                return cast("list[bytes]", node.zrange(name, 0, -1))
        raise LookupError(f"no node serves {name!r}")

    def indexes(self) -> Iterator[bytes]:
        """The members of all indexes, but for the format."""
        for bucket in range(64):
            found = self.members(b"%s:{%d}" % (self.prefix.encode(), bucket))
            yield from (member for member in found if member != b"f1")

    def items(self, key: SessionKey) -> dict[bytes, bytes]:
        """A session's items, and its staged parts under names of their own."""
        found: dict[bytes, bytes] = {}
        for member in self.members(self.name(key)):
            if member[:1] == b"i":
                item, value = self.split(member[1:])
                found[item] = value[8:]
            elif member[:1] == b"p":
                item, value = self.split(member[34:])
                found[b"part of %s: %s" % (member[1:33].hex().encode(), item)] = value
        return found

    @staticmethod
    def split(text: bytes) -> tuple[bytes, bytes]:
        """An item's key, taken apart byte by byte, and what follows it."""
        key = bytearray()
        position = 0
        while text[position]:
            if text[position] == 1:
                position += 1
                key.append(text[position] - 1)
            else:
                key.append(text[position])
            position += 1
        return bytes(key), text[position + 1 :]

    async def items_of(self, key: SessionKey) -> dict[bytes, bytes]:
        return await asyncio.to_thread(self.items, key)

    def index_of(self, key: SessionKey) -> list[bytes]:
        """What a session's head says that its index should hold; nothing without a head."""
        rows = [m for m in self.members(self.name(key)) if m[:1] == b"h"]
        if not rows:
            return []
        fields = [int.from_bytes(rows[0][2 + 8 * n : 10 + 8 * n], "big") for n in range(7)]
        expires_at, recent_at = fields[5], fields[6]
        age = ((1 << 52) - recent_at).to_bytes(8, "big")
        scope, id = f"{key.tenant}\0{key.kind}\0".encode(), key.id.encode()
        found = [b"i" + scope + id, b"r" + scope + age + id]
        joined = b"".join(row[2:] for row in rows if row[:2] == b"h1")
        for label in joined.split(b"\0") if joined else []:
            found.append(b"l" + scope + label + b"\0" + id)
            found.append(b"s" + scope + label + b"\0" + age + id)
        if expires_at:
            facts = expires_at.to_bytes(8, "big") + recent_at.to_bytes(8, "big")
            length = len(scope + id).to_bytes(2, "big")
            found.append(b"x" + facts + length + scope + id + joined)
        return found
