"""Forks: a copy of a session up to a position, that knows where it came from."""

from collections.abc import Sequence

import msgspec

from perdure.client import Client
from perdure.errors import Conflict, InvalidKey
from perdure.handle import Handle
from perdure.layout import (
    CELL,
    CELL_STOP,
    DOCUMENT,
    DOCUMENT_STOP,
    LINEAGE,
    LOG,
    commit_stop,
    rows_stop,
)
from perdure.position import Position, parse_position
from perdure.request import Request, Stored, View
from perdure.types import Append, Expect, Get, Item, Read, Scan, SessionKey


class Lineage(msgspec.Struct, frozen=True):
    """What a session was forked from."""

    parent: SessionKey
    incarnation: bytes
    """The parent's, so that a later session of the same id is not taken for it."""
    version: int
    """The parent's version when it was copied."""
    position: Position | None
    """The last entry copied; ``None``: all there were."""


class LineageRequest(Request["Lineage | None"]):
    """What the session was forked from; ``None`` if it was not."""

    def compile(self) -> Read:
        return Get(LINEAGE)

    def answer(self, items: Sequence[Item], view: View) -> "Lineage | None":
        if not items:
            return None
        return view.codec.open(view.key, items[0], type=Lineage)


async def fork(
    client: Client, source: SessionKey, target: SessionKey, at: Position | None
) -> None:
    """Copy a session up to a position, in one commit.

    Raises ``Conflict`` if the source is absent or the target is not, ``InvalidKey`` if there
    is no entry at the position.
    """
    row, index = parse_position(at) if at is not None else (b"", 0)
    row_key = LOG + row
    log = Scan(LOG, rows_stop(LOG) if at is None else commit_stop(row_key))
    reads = (log, Scan(CELL, CELL_STOP), Scan(DOCUMENT, DOCUMENT_STOP))
    view, (rows, cells, document) = await client.read(source, [Stored(read) for read in reads])
    head = view.head
    if head is None:
        raise Conflict(f"there is no session {source.id!r} to fork", head=None)
    codec = client.codec
    values = [item.value for item in rows]
    if at is not None:
        last = next((n for n, row in enumerate(rows) if row.key == row_key), None)
        first, count = codec.row_span(values[last]) if last is not None else (0, 0)
        if last is None or not first <= index < first + count:
            raise InvalidKey("there is no entry at this position")
        if index + 1 < first + count:
            values[last] = codec.trim(source, rows[last], stop=index + 1 - first)
        while codec.more_fragments(values[last]):
            last += 1
        del values[last + 1 :]
    lineage = Lineage(source, head.incarnation, head.version, at)
    copied = ((item.key, item.value) for item in (*cells, *document))
    await Handle(client, target).commit(
        expect=Expect.ABSENT,
        puts=((LINEAGE, codec.seal(target, lineage)), *copied),
        appends=(Append(LOG, tuple(values)),) if values else (),
        meta=head.meta or None,
        labels=head.labels or None,
        expires_at=head.expires_at,
    )
