"""``perdure export``: whole sessions as JSON Lines, each as of one moment."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import msgspec

from perdure import (
    START,
    AttachmentNotFound,
    Document,
    Entries,
    Log,
    Session,
    Store,
    Stream,
    Versioned,
)
from perdure.cells import live_cells
from perdure.layout import CELL, CELL_STOP
from perdure.request import Request, View
from perdure.types import Head, Item, Scan, SessionKey

from perdure_cli.errors import CommandError, UsageError
from perdure_cli.output import note, on_terminal, progress
from perdure_cli.sessions import PAGE, existing, lineage_facts
from perdure_cli.target import Target
from perdure_cli.text import escape, plural
from perdure_cli.transcripts.exchange import (
    attachment_line,
    begin_line,
    cell_line,
    document_line,
    end_line,
    entry_line,
    piece_line,
)
from perdure_cli.values import json_line
from perdure_cli.walk import walk


def run_export(target: Target, *, ids: tuple[str, ...], label: str | None, output: str) -> int:
    """Export the sessions named, or all of the tenant's."""
    if ids and label is not None:
        raise UsageError("give ids or --label, not both")
    return target.run(partial(export_to, target=target, ids=ids, label=label, output=output))


async def export_to(
    store: Store,
    *,
    target: Target,
    ids: tuple[str, ...] = (),
    label: str | None = None,
    output: str,
) -> int:
    """Write the sessions named, or all of the tenant, to a file or ``-``."""
    for id in ids:  # all are there, or nothing is written
        await existing(store.session(id))
    count = 0
    quiet = output == "-" and on_terminal()  # the result itself is what can be watched
    with (
        _opened(output) as file,
        contextlib.nullcontext(None) if quiet else progress("export", None, "entries") as bar,
    ):
        async with aclosing(_keys(store, target, ids, label)) as keys:
            async for key in keys:
                session = store.tenant(key.tenant).kind(key.kind).session(key.id)
                await export_session(session, file, bar)
                count += 1
    if output != "-":
        note(f"exported {plural(count, 'session')} to {escape(output)}")
    return 0


async def _keys(
    store: Store, target: Target, ids: tuple[str, ...], label: str | None
) -> AsyncGenerator[SessionKey, None]:
    if ids:
        for id in dict.fromkeys(ids):
            yield store.key(id)
        return
    tenant = msgspec.structs.replace(target, tenant=store.key("-").tenant)
    async for key in walk(store, tenant, label=label):
        yield key


@contextlib.contextmanager
def _opened(output: str) -> Generator[TextIO]:
    """Standard output, or a file that appears whole or not at all.

    A new file is readable by its owner alone, as a store is; one that is replaced keeps its
    permissions. What is no regular file (a pipe, ``/dev/stdout``) is written to as it is.
    """
    if output == "-":
        yield sys.stdout
        return
    path = Path(os.path.realpath(output))
    if path.is_dir():
        raise UsageError(f"--output is to name a file; {output!r} is none")
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror}") from None
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


async def export_session(
    session: Session, file: TextIO, advance: Callable[[int], object] | None = None
) -> None:
    """Write one session as of one version, holding a page of its log in memory.

    Head, document, cells and the ends of all streams are read together; then each stream up to
    that end, which nobody changes unless it is cut meanwhile. Then, or if the session is
    replaced, ``CommandError``: the lines written have no end line and no import will take
    them. Attachments, of which each is what its name says, are those there at the end.
    """
    seen = await _look(session)
    head = seen.head
    if head is None:
        return  # deleted since it was listed
    lineage = await session.lineage()
    key = session.key

    def write(line: dict[str, object]) -> None:
        file.write(json_line(line) + "\n")

    write(begin_line(key.tenant, key.kind, key.id, head, lineage_facts(lineage)))
    if seen.document is not None:
        write(document_line(seen.document.value))
    count = 0
    for stream, end in seen.ends.items():
        log = session.stream(stream) if stream else session
        async for entries in _pages_up_to(log, key, end, head):
            for value in entries:
                write(entry_line(value, stream))
            count += len(entries)
            if advance is not None:
                advance(len(entries))
    for name, value, expires_at in seen.cells:
        write(cell_line(name, value, expires_at))
    attachments = await session.attachments.list()
    for attachment in attachments:
        write(attachment_line(attachment))
        try:
            async with aclosing(session.attachments.open(attachment.digest)) as pieces:
                async for piece in pieces:
                    write(piece_line(piece))
        except AttachmentNotFound:
            raise _cut(key) from None
    write(end_line(key.id, count, len(seen.cells), len(attachments)))


class CellsWithExpiry(Request[list[tuple[str, object, int | None]]]):
    """All cells by key: name, value, and when it expires in ms, if it does."""

    def compile(self) -> Scan:
        return Scan(CELL, CELL_STOP)

    def answer(self, items: Sequence[Item], view: View) -> list[tuple[str, object, int | None]]:
        codec = view.codec
        return [
            (
                item.key[len(CELL) :].decode(),
                codec.open(view.key, item),
                codec.expires_at(item.value),
            )
            for item in live_cells(items, view)
        ]


class Seen(msgspec.Struct, frozen=True):
    """What is exported, as far as it is read at once: as of one version."""

    head: Head | None
    document: Versioned[object] | None
    cells: list[tuple[str, object, int | None]]
    ends: dict[str, Entries]
    """The last entry of each stream, by name; the main log, which has none, is the first."""


async def _look(session: Session) -> Seen:
    names = await session.streams()
    while True:
        streams = ["", *names]
        logs = [Log(last=1, stream=stream) for stream in streams]
        cells, document, *ends = await session.read(CellsWithExpiry(), Document(), *logs)
        now = await session.streams()
        if set(now) <= set(names):  # else one may have been there, and was not read
            return Seen(ends[0].head, document, cells, dict(zip(streams, ends, strict=True)))
        names = now


async def _pages_up_to(
    log: Session | Stream[Any], key: SessionKey, end: Entries, head: Head
) -> AsyncIterator[list[object]]:
    """The log up to the one entry in ``end``, the last as of ``head``."""
    after, last = START, end.positions[-1] if end else START
    while after < last:
        page = await log.entries(after=after, limit=PAGE)
        now = page.head
        if now is None or now.incarnation != head.incarnation or now.last_delete > head.version:
            raise _cut(key)
        within = [position for position in page.positions if position <= last]
        yield list(page[: len(within)])
        after = within[-1] if len(within) == len(page) and page else last


def _cut(key: SessionKey) -> CommandError:
    return CommandError(
        f"{key.id!r} was cut or deleted while it was exported; what was written of it is "
        "incomplete: export it again"
    )
