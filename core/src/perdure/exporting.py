"""Exporting: all that is stored of sessions, as plain records in bounded memory.

Of each session, in this order:

* one :class:`SessionRecord`;
* its :class:`DocumentRecord`, if it has one;
* a :class:`CellRecord` for each cell, by key;
* an :class:`EntryRecord` for each entry, of the main log first (``stream=""``), then of the
  named streams, by name; within a stream oldest first;
* an :class:`AttachmentRecord` for each attachment, the one put last at the end, each followed
  by its content in :class:`ChunkRecord`;
* one :class:`EndRecord`.

What is derived, leases, idempotency keys and the records of forks are left out: they are made
from the rest, or mean nothing elsewhere.

A session is shown as of ``SessionRecord.head.version``, read in one snapshot if its cells and
entries take no more than a megabyte each. What is longer is read on page by page while others
may write: then entries appended since that version are left out, entries removed since may be
missing, and a cell behind the first megabyte is as of when its page was read. So are
attachments: one that was put since is left out, and one that was deleted since has no chunks,
or not all of its size. A session that was deleted, or had something removed from it, before it
was read to the end says so in its :class:`EndRecord`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from perdure.attachment_parts import ManifestsRequest, StoredManifest
from perdure.attachments import Attachment, Attachments, listed
from perdure.cells import live_cells
from perdure.client import Client
from perdure.document import Document
from perdure.erasure import sessions
from perdure.errors import AttachmentNotFound
from perdure.fork import Lineage, LineageRequest
from perdure.handle import Handle
from perdure.layout import CELL, CELL_STOP, STREAMS, STREAMS_STOP, stream_name, successor
from perdure.position import Position, position_of
from perdure.request import Request, View
from perdure.types import Head, Item, Scan, SessionKey, appended_version

PAGE_BYTES = 1 << 20
"""So many bytes of cells, or of entries, are read at once."""


class SessionRecord(msgspec.Struct, frozen=True, tag="session"):
    """Here begins what is stored of a session."""

    key: SessionKey
    head: Head
    """With ``meta``, ``labels`` and ``expires_at``; times in ms since the Unix epoch, UTC."""
    lineage: Lineage | None


class DocumentRecord(msgspec.Struct, frozen=True, tag="document"):
    """The document, as ``load`` returns it."""

    value: Any


class CellRecord(msgspec.Struct, frozen=True, tag="cell"):
    """One cell."""

    name: str
    value: Any
    expires_at: int | None
    """In ms since the Unix epoch; ``None``: not by itself."""


class EntryRecord(msgspec.Struct, frozen=True, tag="entry"):
    """One entry of a stream."""

    stream: str
    """``""``: the main log."""
    position: Position
    value: Any


class AttachmentRecord(msgspec.Struct, frozen=True, tag="attachment"):
    """Here begins an attachment."""

    attachment: Attachment


class ChunkRecord(msgspec.Struct, frozen=True, tag="chunk"):
    """The next bytes of the attachment that began last, up to 255 KiB."""

    data: bytes


class EndRecord(msgspec.Struct, frozen=True, tag="end"):
    """Here ends what is stored of a session."""

    whole: bool
    """``False``: it was deleted while it was read page by page, or something in it was, and
    what came may not be all that it had at that version."""
    cells: int
    entries: int
    attachments: int


Record = (
    SessionRecord
    | DocumentRecord
    | CellRecord
    | EntryRecord
    | AttachmentRecord
    | ChunkRecord
    | EndRecord
)


class FirstPage(Request[Sequence[Item]]):
    """The first items of a range, as many as are read at once."""

    def __init__(self, start: bytes, stop: bytes) -> None:
        self._scan = Scan(start, stop, max_bytes=PAGE_BYTES)
        self.more = False
        """Whether there may be others behind them."""

    def compile(self) -> Scan:
        return self._scan

    def enough(self, items: Sequence[Item], view: View) -> bool:
        self.more = True  # or nobody would ask
        return True

    def answer(self, items: Sequence[Item], view: View) -> Sequence[Item]:
        return items


async def export(
    client: Client, tenant: str, label: str | None
) -> AsyncGenerator[Record, None]:
    """All sessions of a tenant, by kind and id. Raises ``InvalidKey``, ``Corrupt``, ..."""
    async with aclosing(sessions(client, tenant, label)) as listed:
        async for entry in listed:
            async with aclosing(export_session(client, entry.key)) as records:
                async for record in records:
                    yield record


async def export_session(client: Client, key: SessionKey) -> AsyncGenerator[Record, None]:
    """One session; nothing where there is none."""
    cells, rows = FirstPage(CELL, CELL_STOP), FirstPage(STREAMS, STREAMS_STOP)
    document, lineage, manifests = Document(), LineageRequest(), ManifestsRequest()
    view, found = await client.read(key, (document, lineage, cells, rows, manifests))
    head = view.head
    if head is None:
        return
    yield SessionRecord(key, head, lineage.answer(found[1], view))
    saved = document.answer(found[0], view)
    found[0].clear()
    if saved is not None:
        yield DocumentRecord(saved.value)
    del saved
    exporter = _Exporter(client, key, view, head)
    async with aclosing(exporter.cells(found[2], cells.more)) as cell_records:
        async for record in cell_records:
            yield record
    async with aclosing(exporter.entries(found[3], rows.more)) as entry_records:
        async for record in entry_records:
            yield record
    attachments = manifests.answer(found[4], view)
    async with aclosing(exporter.attachments(attachments)) as attachment_records:
        async for record in attachment_records:
            yield record
    yield exporter.end()


class _Exporter:
    """What is exported of one session page by page."""

    def __init__(self, client: Client, key: SessionKey, view: View, head: Head) -> None:
        self._client = client
        self._key = key
        self._view = view
        self._head = head
        self._whole = self._there = True
        self._cells = self._entries = self._attachments = 0

    def end(self) -> EndRecord:
        return EndRecord(self._whole, self._cells, self._entries, self._attachments)

    async def cells(
        self, first: Sequence[Item], more: bool
    ) -> AsyncGenerator[CellRecord, None]:
        codec = self._view.codec
        async with aclosing(self._pages(CELL_STOP, first, more)) as pages:
            async for page in pages:
                for item in live_cells(page, self._view):
                    self._cells += 1
                    yield CellRecord(
                        item.key[len(CELL) :].decode(),
                        codec.open(self._key, item),
                        codec.expires_at(item.value),
                    )

    async def entries(
        self, first: Sequence[Item], more: bool
    ) -> AsyncGenerator[EntryRecord, None]:
        codec = self._view.codec
        begun: list[Item] = []
        """A row that is complete, or the fragments so far of a long entry."""
        async with aclosing(self._pages(STREAMS_STOP, first, more)) as pages:
            async for page in pages:
                for row in page:
                    if not self._is_old_row(row.key):
                        continue
                    if codec.row_count(row.value):  # what is begun here was cut off since
                        begun.clear()
                    begun.append(row)
                    if codec.more_fragments(row.value):
                        continue
                    # One after another, as they may be much longer than they are stored.
                    key, first_index = begun[0].key, codec.row_span(begun[0].value)[0]
                    values = codec.unpack(self._key, begun)[0]
                    begun.clear()
                    stream = stream_name(key)
                    for index, value in enumerate(values, first_index):
                        self._entries += 1
                        yield EntryRecord(stream, position_of(key, index), value)

    async def attachments(
        self, manifests: Mapping[str, StoredManifest]
    ) -> AsyncGenerator[AttachmentRecord | ChunkRecord, None]:
        attachments = Attachments(Handle(self._client, self._key))
        for attachment in listed(manifests):
            if not self._there:
                return
            self._attachments += 1
            yield AttachmentRecord(attachment)
            try:
                async with aclosing(attachments.open(attachment.digest)) as pieces:
                    async for piece in pieces:
                        yield ChunkRecord(piece)
            except AttachmentNotFound:
                self._is_it((await self._client.snapshot(self._key)).head)

    def _is_it(self, head: Head | None) -> bool:
        """Whether the session is there that is being exported; also notes if it is no more
        what it was."""
        mine = self._head
        there = head is not None and head.incarnation == mine.incarnation
        if head is None or not there or head.last_delete > mine.version:
            self._whole = False
        self._there = there
        return there

    def _is_old_row(self, key: bytes) -> bool:
        """Whether this is a row, and was there when the export began."""
        begins = key.index(0) + 1
        return key[begins] != 0xFF and appended_version(key) <= self._head.version

    async def _pages(
        self, stop: bytes, page: Sequence[Item], more: bool
    ) -> AsyncGenerator[Sequence[Item], None]:
        """The first page and those that follow, as long as it is the same session."""
        while page:
            yield page
            if not more or not self._there:
                return
            rest = Scan(successor(page[-1].key), stop, max_bytes=PAGE_BYTES)
            snapshot = await self._client.snapshot(self._key, rest)
            if not self._is_it(snapshot.head):
                return
            page, more = snapshot.rows[0].items, snapshot.rows[0].more
