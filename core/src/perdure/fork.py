"""Forks: a copy of a session up to a position, that knows where it came from."""

import asyncio
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from perdure.attachment_uploads import stage_copies
from perdure.client import Client, new_id
from perdure.errors import Conflict, InvalidKey, SessionDeleted
from perdure.handle import Handle
from perdure.layout import (
    ATTACHMENT,
    CELL,
    CELL_STOP,
    DOCUMENT,
    DOCUMENT_STOP,
    FIRST_NAMED,
    FORK,
    FORK_STOP,
    LINEAGE,
    LOG,
    PART,
    STREAMS_STOP,
    commit_stop,
    rows_stop,
    stream_name,
    stream_prefix,
)
from perdure.position import Position, parse_position
from perdure.request import Request, Stored, View
from perdure.types import NEVER, Append, Expect, Get, Item, Read, Scan, SessionKey


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
        return view.codec.open_own(view.key, items[0], Lineage)


async def fork(
    client: Client, source: SessionKey, target: SessionKey, at: Position | None
) -> None:
    """Copy a session up to a position, in one commit, after noting in it that this is done.

    Log, streams, cells and document are as of one version; attachments as they are after that.

    Raises ``Conflict`` if the source is absent or the target is not, ``InvalidKey`` if there
    is no entry at the position.
    """
    row, index = parse_position(at) if at is not None else (b"", 0)
    row_key = LOG + row
    ranges = (
        Scan(LOG, rows_stop(LOG) if at is None else commit_stop(row_key)),
        Scan(FIRST_NAMED, STREAMS_STOP),
        Scan(CELL, CELL_STOP),
        Scan(DOCUMENT, DOCUMENT_STOP),
        Scan(ATTACHMENT, PART),
    )
    (view, found), (there, _) = await asyncio.gather(
        client.read(source, [Stored(scan) for scan in ranges]), client.read(target, ())
    )
    log, streams, cells, document, attachments = found
    head = view.head
    if head is None:
        raise Conflict(f"there is no session {source.id!r} to fork", head=None)
    if there.head is not None:
        raise Conflict(f"there is a session {target.id!r} already", head=there.head)
    codec = client.codec
    values = [item.value for item in log]
    if at is not None:
        last = next((n for n, row in enumerate(log) if row.key == row_key), None)
        first, count = codec.row_span(values[last]) if last is not None else (0, 0)
        if last is None or not first <= index < first + count:
            raise InvalidKey("there is no entry at this position")
        if index + 1 < first + count:
            values[last] = codec.trim(source, log[last], stop=index + 1 - first)
        while codec.more_fragments(values[last]):
            last += 1
        del values[last + 1 :]
    rows: dict[bytes, list[bytes]] = {LOG: values}
    for item in streams:
        prefix = stream_prefix(stream_name(item.key))
        if item.key < rows_stop(prefix):
            rows.setdefault(prefix, []).append(item.value)
    incarnation = new_id()
    stages: tuple[bytes, ...] = ()
    manifests: tuple[tuple[bytes, bytes], ...] = ()
    try:
        await Handle(client, source).commit(
            expect=Expect.PRESENT,
            puts=((_fork_key(target.id), codec.seal(source, target.id)),),
            on=head,
        )
        if attachments:
            stages, manifests = await stage_copies(
                client, source, head.incarnation, target, incarnation
            )
    except SessionDeleted as gone:
        raise Conflict(
            f"the session {source.id!r} went while it was being forked", head=gone.head
        ) from gone
    lineage = Lineage(source, head.incarnation, head.version, at)
    copied = [(item.key, item.value) for item in (*cells, *document)]
    await Handle(client, target).commit(
        expect=Expect.ABSENT,
        new_incarnation=incarnation,
        stages=stages,
        puts=((LINEAGE, codec.seal(target, lineage)), *copied, *manifests),
        appends=tuple(Append(prefix, tuple(kept)) for prefix, kept in rows.items() if kept),
        meta=head.meta or None,
        labels=head.labels or None,
        expires_at=NEVER if head.expires_at is None else head.expires_at,
    )


async def children(client: Client, parent: SessionKey, incarnation: bytes) -> list[str]:
    """The ids under which forks of a session were made, whether they are there or not."""
    view, (items,) = await client.read(parent, [Stored(Scan(FORK, FORK_STOP))])
    if view.head is None or view.head.incarnation != incarnation:
        return []
    return [client.codec.open_own(parent, item, str) for item in items]


def _fork_key(id: str) -> bytes:
    """Where it is noted that a fork was made under an id, which may be too long for a key."""
    return FORK + blake2b(id.encode(), digest_size=16).digest()
