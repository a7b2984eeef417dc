"""``perdure export``: whole sessions as JSON Lines, each as of one moment."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from pathlib import Path
from typing import TextIO

from perdure import START, Cells, Document, Entries, Log, Session, Store
from perdure.types import Head

from perdure_cli.errors import CommandError, UsageError
from perdure_cli.output import note, on_terminal, progress
from perdure_cli.sessions import PAGE, existing, lineage_facts
from perdure_cli.target import Target
from perdure_cli.text import escape, plural
from perdure_cli.transcripts.exchange import (
    begin_line,
    cell_line,
    document_line,
    end_line,
    entry_line,
)
from perdure_cli.values import json_line


def run_export(target: Target, *, ids: tuple[str, ...], output: str) -> int:
    """Export the sessions named, or all of the tenant's of this kind."""
    return target.run(partial(export_to, ids=ids, output=output))


async def export_to(store: Store, *, ids: tuple[str, ...], output: str) -> int:
    """Write the sessions named, or all of the store's scope, to a file or ``-``."""
    for id in ids:  # all are there, or nothing is written
        await existing(store.session(id))
    count = 0
    quiet = output == "-" and on_terminal()  # the result itself is what can be watched
    with (
        _opened(output) as file,
        contextlib.nullcontext(None) if quiet else progress("export", None, "entries") as bar,
    ):
        async for id in _ids(store, ids):
            await export_session(store.session(id), file, bar)
            count += 1
    if output != "-":
        note(f"exported {plural(count, 'session')} to {escape(output)}")
    return 0


async def _ids(store: Store, ids: tuple[str, ...]) -> AsyncIterator[str]:
    if ids:
        for id in dict.fromkeys(ids):
            yield id
        return
    async for entry in store.list():
        yield entry.key.id


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
    session: Session, file: TextIO, advance: Callable[[int], None] | None = None
) -> None:
    """Write one session as of one version, holding a page of its log in memory.

    Head, document, cells and the end of the log are read together; then the log up to that
    end, which nobody changes unless it is cut meanwhile. Then, or if the session is replaced,
    ``CommandError``: the lines written have no end line and no import will take them.
    """
    end, cells, document = await session.read(Log(last=1), Cells(), Document())
    lineage = await session.lineage()
    head: Head | None = end.head
    if head is None:
        return  # deleted since it was listed
    key = session.key

    def write(line: dict[str, object]) -> None:
        file.write(json_line(line) + "\n")

    write(begin_line(key.tenant, key.kind, key.id, head, lineage_facts(lineage)))
    if document is not None:
        write(document_line(document.value))
    count = 0
    async for entries in _pages_up_to(session, end, head):
        for value in entries:
            write(entry_line(value))
        count += len(entries)
        if advance is not None:
            advance(len(entries))
    for name, value in cells.items():
        write(cell_line(name, value))
    write(end_line(key.id, count, len(cells)))


async def _pages_up_to(
    session: Session, end: Entries, head: Head
) -> AsyncIterator[list[object]]:
    """The log up to the one entry in ``end``, the last as of ``head``."""
    after, last = START, end.positions[-1] if end else START
    while after < last:
        page = await session.entries(after=after, limit=PAGE)
        now = page.head
        if now is None or now.incarnation != head.incarnation or now.last_delete > head.version:
            raise CommandError(
                f"{session.key.id!r} was cut or deleted while it was exported; what was "
                "written of it is incomplete: export it again"
            )
        within = [position for position in page.positions if position <= last]
        yield list(page[: len(within)])
        after = within[-1] if len(within) == len(page) and page else last
