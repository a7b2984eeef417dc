"""``perdure export``: whole sessions as JSON Lines, each as of one moment."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TextIO

import msgspec

from perdure import Session, Store
from perdure.exporting import (
    AttachmentRecord,
    CellRecord,
    ChunkRecord,
    DocumentRecord,
    EndRecord,
    EntryRecord,
    SessionRecord,
)
from perdure.types import SessionKey

from perdure_cli.errors import CommandError, UsageError
from perdure_cli.output import note, on_terminal, progress
from perdure_cli.sessions import existing, lineage_facts
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
    """Write one session as of one version, holding a page of it in memory.

    If it is cut or deleted while it is read, ``CommandError``: the lines written have no end
    line, and no import will take them.
    """

    def write(line: dict[str, object]) -> None:
        file.write(json_line(line) + "\n")

    missing = 0
    """Bytes of the attachment that are still to come."""
    async with aclosing(session.export()) as records:
        async for record in records:
            if missing and not isinstance(record, ChunkRecord):
                raise _cut(session)
            match record:
                case SessionRecord(key=key, head=head, lineage=lineage):
                    facts = lineage_facts(lineage)
                    write(begin_line(key.tenant, key.kind, key.id, head, facts))
                case DocumentRecord(value=value):
                    write(document_line(value))
                case CellRecord(name=name, value=value, expires_at=expires_at):
                    write(cell_line(name, value, expires_at))
                case EntryRecord(stream=stream, value=value):
                    write(entry_line(value, stream))
                    if advance is not None:
                        advance(1)
                case AttachmentRecord(attachment=attachment):
                    missing = attachment.size
                    write(attachment_line(attachment))
                case ChunkRecord(data=data):
                    missing -= len(data)
                    write(piece_line(data))
                case EndRecord():
                    if not record.whole:
                        raise _cut(session)
                    write(end_line(session.key.id, record))


def _cut(session: Session) -> CommandError:
    return CommandError(
        f"{session.key.id!r} was cut or deleted while it was exported; what was written of it "
        "is incomplete: export it again"
    )
