"""Sorted lists of sessions, so that a page costs what it shows and not what there is."""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator

from perdure.types import Head, ListQuery, Order, SessionKey

# (tenant, kind, label or None, order)
Name = tuple[str, str, str | None, Order]
# (0, id) by id; (-updated_at, id) by recency: ascending is the order of the list.
# str compares by code point, which is the order of UTF-8 bytes.
Entry = tuple[int, str]


class SortedIndex:
    """Every session once per order, and once more per order for each of its labels."""

    def __init__(self) -> None:
        self._lists: defaultdict[Name, list[Entry]] = defaultdict(list)

    def replace(self, key: SessionKey, old: Head | None, new: Head | None) -> None:
        """Move a session from where ``old`` put it to where ``new`` does."""
        before = _places(key, old)
        after = _places(key, new)
        for name, entry in before.items():
            if after.get(name) != entry:
                entries = self._lists[name]
                del entries[bisect_left(entries, entry)]
                if not entries:
                    del self._lists[name]
        for name, entry in after.items():
            if before.get(name) != entry:
                entries = self._lists[name]
                entries.insert(bisect_left(entries, entry), entry)

    def walk(
        self, tenant: str, kind: str, query: ListQuery
    ) -> Iterator[tuple[str, SessionKey]]:
        """The sessions of a query from its cursor on, each with the cursor behind it."""
        entries = self._lists.get((tenant, kind, query.label, query.order), [])
        if query.cursor is not None:
            rank, id = json.loads(query.cursor)
            start = bisect_right(entries, (rank, id))
        else:
            start = bisect_left(entries, (0, query.prefix)) if query.prefix else 0
        for position in range(start, len(entries)):
            rank, id = entries[position]
            if not id.startswith(query.prefix):
                return
            yield json.dumps((rank, id)), SessionKey(tenant, kind, id)


def _places(key: SessionKey, head: Head | None) -> dict[Name, Entry]:
    if head is None:
        return {}
    return {
        (key.tenant, key.kind, label, order): (
            0 if order is Order.ID else -head.updated_at,
            key.id,
        )
        for label in (None, *head.labels)
        for order in Order
    }
