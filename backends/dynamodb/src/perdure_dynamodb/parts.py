"""What a scan finds in one place, and how what it finds in two becomes one answer."""

import msgspec

from perdure.types import Item, Rows, Scan

MAX_READ_BYTES = 8 << 20
"""A scan stops with ``more`` once it has found so much."""

Found = tuple[Item, int]
"""An item, and the slot of the commit that wrote it."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """Items in the order of their scan."""

    items: list[Found]
    more: bool
    """There may be more behind the last one, and there is a last one."""


class Taking:
    """Takes items until a scan has enough."""

    def __init__(self, scan: Scan) -> None:
        most = scan.max_bytes
        self._limit = scan.limit
        self._most = MAX_READ_BYTES if most is None else min(most, MAX_READ_BYTES)
        self._size = 0
        self.items: list[Found] = []

    def take(self, item: Item, slot: int) -> bool:
        """Add an item; False if there is no room for it."""
        if self.full:
            return False
        self.items.append((item, slot))
        self._size += len(item.value)
        return True

    @property
    def full(self) -> bool:
        """Whether it takes no more."""
        if not self.items:
            return False
        return self._size >= self._most or (
            self._limit is not None and len(self.items) >= self._limit
        )


def merged(scan: Scan, parts: list[Part]) -> Rows:
    """One answer from what the same scan found in different places.

    Of two items with one key that of the later slot counts.
    """
    if len(parts) == 1:
        (part,) = parts
        return Rows([item for item, _ in part.items], part.more)
    latest: dict[bytes, Found] = {}
    for part in parts:
        for found in part.items:
            key = found[0].key
            if key not in latest or latest[key][1] < found[1]:
                latest[key] = found
    # Behind the last of a part that has more, that part was not read.
    ends = [part.items[-1][0].key for part in parts if part.more]
    taking = Taking(scan)
    for key in sorted(latest, reverse=scan.reverse):
        if any(key < end if scan.reverse else key > end for end in ends) or not taking.take(
            *latest[key]
        ):
            return Rows([item for item, _ in taking.items], more=True)
    return Rows([item for item, _ in taking.items], more=bool(ends))
