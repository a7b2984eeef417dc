"""The rows of a stream that a handle has read, kept as stored, so that the next read asks only
for what came after.

Rows are kept encoded: a caller may do to the values it gets what it likes, and a read decodes
only what it returns.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from perdure.codec import Codec
from perdure.layout import rows_stop
from perdure.log import Log
from perdure.types import Head, Item, Scan, append_key, same_state


class LogCache:
    """All rows of one stream with a key of at least ``low``, as of ``head``."""

    __slots__ = ("_items", "_keys", "epoch", "head", "low", "prefix", "stop")

    def __init__(
        self, prefix: bytes, head: Head, epoch: bytes, low: bytes, items: Sequence[Item]
    ) -> None:
        self.prefix = prefix
        self.stop = rows_stop(prefix)
        self.head = head
        self.epoch = epoch
        self.low = low
        self._items = list(items)
        self._keys = [item.key for item in self._items]

    def delta(self) -> Scan:
        """The read that brings this up to date.

        Rows that are written again count as deleted first (:mod:`perdure.rewrite`), so that
        what is new is always behind what was there.
        """
        new = append_key(self.prefix, self.head.version + 1, 0)
        return Scan(max(self.low, new), self.stop, since=self.head.version)

    def follows(self, head: Head | None, epoch: bytes) -> bool:
        """Whether :meth:`delta`, read together with ``head``, is all that this lacks."""
        mine = self.head
        return (
            head is not None
            and epoch == self.epoch
            and head.incarnation == mine.incarnation
            and head.last_delete <= mine.version
            and (head.version > mine.version or same_state(head, mine))
        )

    def update(self, head: Head, items: Sequence[Item]) -> None:
        """Take in what :meth:`delta` found (an older delta is harmless)."""
        known = self.head.version
        for item in items:
            if item.version > known:
                position = bisect_left(self._keys, item.key)
                self._keys.insert(position, item.key)
                self._items.insert(position, item)
        self.head = head

    def remove(self, start: bytes, stop: bytes | None) -> None:
        """Forget the rows of a range that the handle itself has deleted."""
        low = bisect_left(self._keys, start)
        high = len(self._keys) if stop is None else bisect_left(self._keys, stop)
        del self._keys[low:high], self._items[low:high]

    def serving(self, log: Log[Any], codec: Codec) -> Sequence[Item] | None:
        """The rows, in key order, that answer a read of the stream; ``None`` if it reaches
        further back than they do."""
        if log.tail:
            held = self._items
            return held if self.low <= self.prefix or log.covered_by(held, codec) else None
        scan = log.compile()
        if self.low > self.prefix and scan.start < self.low:
            return None
        start = bisect_left(self._keys, scan.start)
        stop = len(self._keys) if scan.stop is None else bisect_left(self._keys, scan.stop)
        return self._items[start:stop]
