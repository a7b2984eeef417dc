"""Which commits have written a session's log."""

from perdure import Store
from perdure.codec import Codec
from perdure.layout import LOG
from perdure.testing.shorthand import read_head, read_items


async def commit_ids(store: Store, id: str) -> list[bytes]:
    """Of a session's commits, of which each has appended one row: all different."""
    key = store.key(id)
    rows = [row for row in await read_items(store.backend, key) if row.key.startswith(LOG)]
    found = [Codec().row_commit_id(row.value) for row in rows]
    assert len(set(found)) == len(found)
    assert [row.version for row in rows] == list(range(1, len(found) + 1))
    head = await read_head(store.backend, key)
    assert (head.version, head.tip) == (len(found), found[-1])
    return found
