"""The first half of an import: files are read and checked, and compared with what is there."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from perdure import Cells, Document, Log, Store
from perdure.attachments import checked_media_type
from perdure.cells import cell_key
from perdure.codec import Codec, encode
from perdure.errors import PerdureError
from perdure.settings import settings
from perdure.types import Head, SessionKey

from perdure_cli.errors import CommandError, UsageError
from perdure_cli.output import note
from perdure_cli.sessions import log_pages
from perdure_cli.target import Target
from perdure_cli.transcripts import events
from perdure_cli.transcripts.events import Begin, CellValue, Entry, Event
from perdure_cli.transcripts.source import Source


class Plan(msgspec.Struct, kw_only=True):
    """What is to be done for one session of a file."""

    source: Source
    begin: Begin
    key: SessionKey
    head: Head | None
    """As it was found; ``None``: there is no such session."""
    expires_at: datetime | None = None
    """The file's, unless it has passed."""
    entries: int = 0
    """In the file."""
    held: dict[str, int] = {}
    """So many entries of each stream, from the first on, are in the session already."""
    attachments: frozenset[str] = frozenset()
    """Digests of what is in the session already."""
    document_version: int = 0
    """Of the document in the session; 0 if there is none."""
    saves_document: bool = False
    """The file has a document that is not the one in the session."""
    done: bool = False
    """Nothing of the file is missing in the session."""

    @property
    def present(self) -> int:
        """How many of the file's entries are in the session already."""
        return sum(self.held.values())


class Survey:
    """Reads files and makes plans. Writes nothing."""

    def __init__(self, store: Store, target: Target, *, id: str | None, append: bool) -> None:
        self._store = store
        self._target = target
        self._id = id
        self._append = append
        self._plans: dict[SessionKey, Plan] = {}

    async def of(
        self, source: Source, found: Iterator[Event], advance: Callable[[int], None]
    ) -> list[Plan]:
        """The plans for the sessions in one file.

        Raises ``CommandError`` if the file is not as its format requires, if a value cannot
        be stored, or if a session exists and holds something else.
        """
        plans: list[Plan] = []
        comparison: Comparison | None = None
        for event in found:
            if isinstance(event, Begin):
                plan = await self._plan(source, event)
                plans.append(plan)
                comparison = Comparison(self._store, plan, append=self._append)
                await comparison.begin()
            else:
                assert comparison is not None
                await comparison.take(event)
                advance(isinstance(event, Entry))
        return plans

    async def _plan(self, source: Source, begin: Begin) -> Plan:
        if self._id is not None and self._plans:
            raise UsageError("--id names one session, but there are several to import")
        id = self._id if self._id is not None else begin.id
        if id is None:
            raise UsageError(f"{source.name}: the data names no session; give it one with --id")
        here, there = self._store.key("-"), self._target
        try:
            key = SessionKey.of(
                begin.tenant
                if begin.tenant is not None and there.tenant is None
                else here.tenant,
                begin.kind if begin.kind is not None and there.kind is None else here.kind,
                id,
            )
        except PerdureError as error:
            raise source.malformed(begin.line, str(error)) from None
        twin = self._plans.get(key)
        if twin is not None:
            raise CommandError(
                f"{source.name}:{begin.line}: session {id!r} is also in {twin.source.name}:"
                f"{twin.begin.line}; import one of them by itself, with --id"
            )
        session = self._store.tenant(key.tenant).kind(key.kind).session(id)
        plan = Plan(
            source=source,
            begin=begin,
            key=key,
            head=await session.head(),
            expires_at=_expiry(begin, source),
        )
        try:
            settings(labels=begin.labels, meta=begin.meta, expires_at=plan.expires_at)
        except PerdureError as error:
            raise source.malformed(begin.line, str(error)) from None
        self._plans[key] = plan
        return plan


def has_passed(expires_at: datetime | None) -> bool:
    """Whether that time has come."""
    return expires_at is not None and expires_at.timestamp() <= time.time()


def _expiry(begin: Begin, source: Source) -> datetime | None:
    """The expiry to restore. One that has passed would hide what is imported."""
    if begin.expires_at is None or not has_passed(begin.expires_at):
        return begin.expires_at
    note(
        f"perdure: {source.name}:{begin.line}: session {begin.id!r} expired at "
        f"{begin.expires_at.isoformat()}; it is imported without expiry"
    )
    return None


class Comparison:
    """One session of a file held against the one in the store."""

    def __init__(self, store: Store, plan: Plan, *, append: bool) -> None:
        key = plan.key
        self._session = store.tenant(key.tenant).kind(key.kind).session(key.id)
        self._plan = plan
        self._append = append
        self._max_item_bytes = store.backend.capabilities.max_item_bytes
        self._stored: dict[str, AsyncIterator[tuple[object, object]] | None] = {}
        """What follows in each stream of the session; ``None``: nothing that is compared."""
        self._cells: dict[str, Any] = {}
        self._document: bytes | None = None
        self._is_empty = True
        self._same = 0
        self._missing = 0

    async def begin(self) -> None:
        """Fetch what is there, the log aside, which is read along with the file's."""
        if self._plan.head is None:
            return
        session = self._session
        streams, attachments = await session.streams(), await session.attachments.list()
        first, self._cells, document = await session.read(Log(limit=1), Cells(), Document())
        self._plan.attachments = frozenset(attachment.digest for attachment in attachments)
        inside = (first, streams, self._cells, attachments)
        self._is_empty = not any(inside) and document is None
        if document is not None:
            self._document = encode(document.value)[0]
            self._plan.document_version = document.version

    async def take(self, event: Event) -> None:
        """Compare the next thing. Raises ``CommandError`` if it cannot be imported."""
        match event:
            case Entry(value=value, line=line, stream=stream):
                self._plan.entries += 1
                await self._entry(self._encoded(value, line, "entry"), stream, line)
            case CellValue(expires_at=expires_at) if has_passed(expires_at):
                pass
            case CellValue(key=name, value=value, line=line):
                there = name in self._cells
                self._compare(
                    self._encoded_cell(name, value, line),
                    encode(self._cells[name])[0] if there else None,
                    f"another cell {name!r}",
                )
            case events.Document(value=value, line=line):
                encoded = self._encoded(value, line, "document")
                self._compare(encoded, self._document, "another document")
                self._plan.saves_document = encoded != self._document
            case events.Attachment(digest=digest, media_type=media_type, line=line):
                self._check_media_type(media_type, line)
                there = digest in self._plan.attachments
                self._same += there
                self._missing += not there
            case events.Piece():
                pass  # the reader sees that it is what its attachment's name says
            case _:
                self._end()

    def _check_media_type(self, media_type: str | None, line: int) -> None:
        try:
            checked_media_type(media_type)
        except PerdureError as error:
            raise self._plan.source.malformed(line, f"cannot be stored: {error}") from None

    def _encoded(self, value: object, line: int, path: str) -> bytes:
        try:
            return encode(value, path=path)[0]
        except PerdureError as error:
            raise self._plan.source.malformed(line, f"cannot be stored: {error}") from None

    def _encoded_cell(self, name: str, value: object, line: int) -> bytes:
        encoded = self._encoded(value, line, "value")
        source, limit = self._plan.source, self._max_item_bytes
        try:
            cell_key(name)
        except PerdureError as error:
            raise source.malformed(line, f"cannot be stored: {error}") from None
        # Compression may still make it fit: entries and documents are split, cells are not.
        if len(encoded) > limit and len(Codec().seal(self._plan.key, value)) > limit:
            raise source.malformed(line, f"cell {name!r} is too large for this store")
        return encoded

    async def _entry(self, value: bytes, stream: str, line: int) -> None:
        if stream not in self._stored:
            self._stored[stream] = self._pages(stream, line)
        pages, held = self._stored[stream], self._plan.held
        stored = await anext(pages, None) if pages is not None else None
        if stored is None:
            self._stored[stream] = None
            self._missing += 1
        elif encode(stored[1])[0] == value:
            held[stream] = held.get(stream, 0) + 1
            self._same += 1
        elif self._append:
            self._stored[stream] = None
            self._missing += 1
            held[stream] = 0
        else:
            raise self._taken(f"other entries, from the file's entry {self._plan.entries} on")

    def _pages(self, stream: str, line: int) -> AsyncIterator[tuple[object, object]] | None:
        try:
            log = self._session.stream(stream) if stream else self._session
        except PerdureError as error:
            raise self._plan.source.malformed(line, f"cannot be stored: {error}") from None
        return None if self._plan.head is None else log_pages(log)

    def _compare(self, value: bytes, there: bytes | None, what: str) -> None:
        if there == value:
            self._same += 1
        elif there is None or self._append:
            self._missing += 1
        else:
            raise self._taken(what)

    def _end(self) -> None:
        plan = self._plan
        strange = not self._same and not self._is_empty and self._missing
        if strange and not self._append:
            raise self._taken("nothing of this file")
        plan.done = plan.head is not None and not self._missing

    def _taken(self, what: str) -> CommandError:
        return CommandError(
            f"{self._plan.source.name}: session {self._plan.key.id!r} exists and holds {what}: "
            "nothing was imported (--id imports under another id, --append adds to it)"
        )
