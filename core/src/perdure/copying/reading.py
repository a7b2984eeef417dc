"""Reading one session of any size, in bounded memory and as of one version."""

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from perdure.backend import Backend
from perdure.layout import successor
from perdure.retry import retrying
from perdure.types import Head, Item, Scan, SessionKey, Snapshot, only_grew, same_state

PAGE_BYTES = 4 << 20
PAGE_ITEMS = 10_000
"""A page ends with so many bytes of values, or items."""

KNOWN_ITEMS = 100_000
"""Of so many items it is remembered what was read, in case they change."""


class Changed(Exception):
    """A session has changed in such a way that what was begun with it must begin again."""


class Reading:
    """One session, read page by page: as a whole as of ``head``, after the last page.

    What changes meanwhile in the pages before is in ``late``, to be written over them.
    """

    def __init__(self, backend: Backend, key: SessionKey, deadline: float) -> None:
        self._backend = backend
        self._key = key
        self._deadline = deadline
        self._start = b""
        self._epoch = b""
        self._sum = 0
        self._known: dict[bytes, int] = {}  # keys to hashes
        self._known_to = b""
        self.head: Head | None = None
        self.more = True
        self.late: dict[bytes, bytes] = {}
        self.count = self.size = 0
        """Items read, and the bytes of their keys and values."""

    async def page(self) -> Sequence[Item]:
        """The next page. Raises :class:`Changed`, ``Unavailable``."""
        before = self.head
        following = Scan(self._start, limit=PAGE_ITEMS, max_bytes=PAGE_BYTES)
        snapshot = await self._read(following)
        if before is not None and not same_state(snapshot.head, before):
            behind = Scan(stop=self._start, since=before.version)
            snapshot = await self._read(following, behind)
            changed = snapshot.rows[1]
            if changed.more or not only_grew(before, snapshot.head):
                raise Changed
            for item in changed.items:
                self._replace(item)
        if before is not None and snapshot.epoch != self._epoch:
            raise Changed
        self.head, self._epoch = snapshot.head, snapshot.epoch
        rows = snapshot.rows[0]
        for item in rows.items:
            self._add(item)
        self.more = rows.more
        if rows.more:
            self._start = successor(rows.items[-1].key)
        return rows.items

    async def finish(self) -> None:
        """Read what is left, for the digest's sake. Raises as :meth:`page` does."""
        while self.more:
            await self.page()

    def digest(self) -> bytes:
        """32 bytes that tell this content, and the settings and times with it, from another.

        The items' hashes are added up, so that their order does not matter and what is
        replaced can be taken out again (AdHash: Bellare and Micciancio, 1997).
        """
        head = self.head
        assert head is not None
        settings = (
            head.incarnation,
            head.created_at,
            head.updated_at,
            head.expires_at,
            head.meta,
            sorted(head.labels),
        )
        total = (self._sum % (1 << 256)).to_bytes(32, "big")
        return blake2b(total + msgspec.msgpack.encode(settings), digest_size=32).digest()

    async def _read(self, *scans: Scan) -> Snapshot:
        return await retrying(lambda: self._backend.read(self._key, *scans), self._deadline)

    def _add(self, item: Item) -> None:
        number = _hash(item)
        self._sum += number
        self.count += 1
        self.size += len(item.key) + len(item.value)
        if len(self._known) < KNOWN_ITEMS:
            self._known[item.key] = number
            self._known_to = item.key

    def _replace(self, item: Item) -> None:
        old = self._known.get(item.key)
        if old is None:
            if item.key > self._known_to:
                raise Changed  # whether it was there, and with what value, is not known
            self.count += 1
            self.size += len(item.key) + len(item.value)
        self._known[item.key] = _hash(item)
        self._sum += self._known[item.key] - (old or 0)
        self.late[item.key] = item.value


def _hash(item: Item) -> int:
    content = blake2b(len(item.key).to_bytes(2, "big"), digest_size=32)
    content.update(item.key)
    content.update(item.value)
    return int.from_bytes(content.digest(), "big")
