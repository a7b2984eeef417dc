"""``perdure import``: files into sessions, nothing by halves, and safe to repeat.

First every file is read to its end, checked, and compared with the sessions that exist
(:mod:`perdure_cli.survey`). Only if all is well is anything written, in commits of bounded
size, each on the condition that the session is still as it was found. What one run does not
get done, because it is interrupted or the store goes away, the next one adds.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from tempfile import SpooledTemporaryFile

from perdure import Conflict, Store, Turn
from perdure.codec import encode
from perdure.errors import PerdureError
from perdure.types import Head, same_state

from perdure_cli.errors import CommandError, UsageError
from perdure_cli.output import json_row, line, on_terminal, progress, row
from perdure_cli.survey import Plan, Survey, has_passed
from perdure_cli.target import Target
from perdure_cli.text import escape, plural
from perdure_cli.transcripts.events import (
    Attachment,
    Begin,
    CellValue,
    Document,
    End,
    Entry,
    Event,
    Piece,
)
from perdure_cli.transcripts.reader import read_events
from perdure_cli.transcripts.source import Source

BATCH_ITEMS = 500
BATCH_BYTES = 1 << 20
"""A commit takes so many entries and cells, or so many encoded bytes and one entry more."""


def run_import(
    target: Target,
    *,
    as_json: bool,
    files: tuple[str, ...],
    id: str | None,
    append: bool,
    lines: bool,
) -> int:
    """Import every file, or none if any of them is not as it should be."""
    if len(set(files)) < len(files):
        raise UsageError("a file is named twice")
    return target.run(
        partial(
            import_files,
            target=target,
            as_json=as_json,
            files=files,
            id=id,
            append=append,
            lines=lines,
        )
    )


async def import_files(
    store: Store,
    *,
    target: Target,
    as_json: bool,
    files: tuple[str, ...],
    id: str | None,
    append: bool,
    lines: bool,
) -> int:
    """Read sessions from files into a store. Raises ``CommandError``; see above."""
    with ExitStack() as opened:
        survey = Survey(store, target, id=id, append=append)
        plans: list[list[Plan]] = []
        with progress("checking", None, "entries") as advance:
            for name in files:
                source = Source(name)
                opened.callback(source.close)
                events = read_events(source, as_lines=lines)
                plans.append(await survey.of(source, events, advance))
        total = sum(plan.entries - plan.present for found in plans for plan in found)
        with progress("importing", total, "entries") as advance:
            for found in plans:
                await _write_file(store, found, lines=lines, advance=advance)
    for plan in (plan for found in plans for plan in found):
        _report(plan, as_json=as_json)
    return 0


def _report(plan: Plan, *, as_json: bool) -> None:
    key, added = plan.key, plan.entries - plan.present
    if as_json:
        json_row(
            {
                "session": key.id,
                "tenant": key.tenant,
                "kind": key.kind,
                "file": plan.source.name,
                "format": plan.begin.format.value,
                "created": plan.head is None,
                "added": added,
                "present": plan.present,
            }
        )
    elif on_terminal():
        text = f"{escape(key.id)}: {plural(added, 'entry')} added"
        if plan.present:
            text += f" to the {plan.present:,} there" if added else ", all are there already"
        line(f"{text} ({plan.begin.format.value}, {escape(plan.source.name)})")
    else:
        row(key.id, str(added), str(plan.present), plan.begin.format.value, plan.source.name)


async def _write_file(
    store: Store, plans: list[Plan], *, lines: bool, advance: Callable[[int], None]
) -> None:
    """Write the sessions of one file."""
    if all(plan.done for plan in plans):
        return
    coming = iter(plans)
    writer: Writer | None = None
    try:
        for event in read_events(plans[0].source, as_lines=lines):
            if isinstance(event, Begin):
                writer = Writer(store, next(coming), advance)
            assert writer is not None
            if not writer.plan.done:
                await writer.take(event)
    finally:
        if writer is not None:
            writer.close()


class Upload:
    """An attachment on its way from lines of a file to the store."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.file = SpooledTemporaryFile[bytes](BATCH_BYTES)


class Writer:
    """Writes one session: what its plan says is missing."""

    def __init__(self, store: Store, plan: Plan, advance: Callable[[int], None]) -> None:
        key = plan.key
        self.plan = plan
        self._scope = store.tenant(key.tenant).kind(key.kind)
        self._advance = advance
        self._head: Head | None = plan.head
        self._written = self._size = 0
        self._seen = Counter[str]()
        self._entries: dict[str, list[object]] = {}
        self._cells: dict[str, object] = {}
        self._expiring: list[CellValue] = []
        self._upload: Upload | None = None
        self._was_alone = True
        """No commit was made but those of turns, so that another one is somebody else's."""
        self._document: object = None

    async def take(self, event: Event) -> None:
        """The next thing of the session; written when there is enough of it.

        Raises ``CommandError`` that says how much was.
        """
        try:
            match event:
                case Begin():
                    await self._begin(event)
                case Entry(value=value, stream=stream):
                    self._seen[stream] += 1
                    if self._seen[stream] > self.plan.held.get(stream, 0):
                        self._entries.setdefault(stream, []).append(value)
                        self._size += len(encode(value)[0])
                case CellValue(expires_at=None):
                    self._cells[event.key] = event.value
                    self._size += len(encode(event.value)[0])
                case CellValue():
                    self._expiring.append(event)
                case Document(value=value):
                    self._document = value
                case Attachment():
                    await self._finish_upload()
                    if event.digest not in self.plan.attachments:
                        self._upload = Upload(event)
                case Piece(data=data):
                    if self._upload is not None:
                        self._upload.file.write(data)
                case End():
                    await self._end()
            if self._count + len(self._cells) >= BATCH_ITEMS or self._size >= BATCH_BYTES:
                await self._flush()
        except Conflict:
            raise self._interrupted("it was changed by someone else meanwhile") from None
        except PerdureError as error:
            raise self._interrupted(str(error)) from error

    def close(self) -> None:
        """Drop what was not written."""
        if self._upload is not None:
            self._upload.file.close()

    def _interrupted(self, reason: str) -> CommandError:
        done = (
            f"{plural(self._written, 'entry')} of it had been imported and stay: repeat the "
            "import to add the rest"
            if self._written
            else "none of its entries was imported"
        )
        return CommandError(
            f"{self.plan.source.name}: session {self.plan.key.id!r}: {reason} ({done})"
        )

    async def _begin(self, begin: Begin) -> None:
        """See that the session is still as it was found. A new one first gets its settings."""
        async with self._turn() as turn:
            await self._check(turn)
            if self._head is None and (begin.labels or begin.meta or self.plan.expires_at):
                turn.set(
                    labels=begin.labels or None,
                    meta=begin.meta or None,
                    expires_at=self.plan.expires_at,
                )
        self._note(turn)

    async def _end(self) -> None:
        """Write what is left: expiring cells, attachments and the document last, as what comes
        after them would have to tell their commits from those of others."""
        await self._finish_upload()
        await self._flush_all()
        if self.plan.saves_document:
            id, expect = self.plan.key.id, self.plan.document_version
            await self._scope.save(id, self._document, expect=expect)
        elif self._head is None and self._was_alone:
            async with (
                self._turn() as turn
            ):  # the export of an empty session: that there is one
                await self._check(turn)
                turn.set(labels=())

    async def _finish_upload(self) -> None:
        """Put the attachment whose content has come."""
        upload, self._upload = self._upload, None
        if upload is None:
            return
        await self._flush_all()
        self._was_alone = False
        with upload.file:
            upload.file.seek(0)
            attachments = self._scope.session(self.plan.key.id).attachments
            await attachments.put(upload.file, media_type=upload.attachment.media_type)

    async def _flush_all(self) -> None:
        """Write what is known so far, cells that expire too."""
        await self._flush()
        for cell in self._expiring:
            if not has_passed(cell.expires_at):
                self._was_alone = False
                cells = self._scope.session(self.plan.key.id).cells
                await cells.put(cell.key, cell.value, expires_at=cell.expires_at)
        self._expiring.clear()

    @property
    def _count(self) -> int:
        """Entries to be written."""
        return sum(map(len, self._entries.values()))

    async def _flush(self) -> None:
        count = self._count
        if not count and not self._cells:
            return
        async with self._turn() as turn:
            await self._check(turn)
            for stream, values in self._entries.items():
                turn.append(*values, stream=stream)
            for name, value in self._cells.items():
                turn.cells[name] = value
        self._note(turn)
        self._advance(count)
        self._written += count
        self._entries.clear()
        self._cells.clear()
        self._size = 0

    def _turn(self) -> Turn:
        """A turn on a new handle: one that went on would keep all it has written."""
        return self._scope.session(self.plan.key.id).turn()

    async def _check(self, turn: Turn) -> None:
        """Base the turn on the session as it was left. Raises ``Conflict``."""
        await turn.read()
        if not same_state(turn.head, self._head):
            raise Conflict("not as it was left")

    def _note(self, turn: Turn) -> None:
        if turn.committed is not None:
            self._head = turn.committed.head
