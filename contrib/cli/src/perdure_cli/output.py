"""Where results go: a terminal, a pipe, or a script that reads JSON.

On a terminal rich draws tables and colours; it is only imported then. In a pipe there is plain
text, columns separated by tabs, never an escape code.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING

from perdure_cli.text import escape, readable
from perdure_cli.values import json_line

if TYPE_CHECKING:
    from rich.console import Console


def on_terminal() -> bool:
    """Whether results are read by a person, not by a pipe or a file."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def prepare_streams() -> None:
    """Make both streams UTF-8, able to write anything (a locale of ``C`` is not)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def line(text: str = "") -> None:
    """Write one line of results."""
    sys.stdout.write(text + "\n")


def row(*columns: str) -> None:
    """Write one line of columns, separated by tabs; each is escaped, so that it has none."""
    sys.stdout.write("\t".join(escape(column) for column in columns) + "\n")


def json_row(value: object) -> None:
    """Write one line of JSON."""
    sys.stdout.write(json_line(value) + "\n")


def flush() -> None:
    """Hand over what was written: for output that is followed live."""
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell the user something that is not a result, on standard error."""
    sys.stderr.write(f"{text}\n")


def fail(text: str) -> None:
    """Report an error: one line on standard error, harmless whatever it quotes."""
    sys.stderr.write(f"perdure: {readable(' '.join(text.split()))}\n")


def console() -> "Console":
    """The terminal. Text given to it is never read as markup or emoji codes."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def print_table(title: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal, without columns that are empty in every row. The first column
    is what a row is about."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    used = [n for n in range(len(title)) if n == 0 or any(columns[n] for columns in rows)]
    for n in used:
        table.add_column(title[n], style="cyan" if n == 0 else "", overflow="fold")
    for columns in rows:
        table.add_row(*(Text(columns[n]) for n in used))
    console().print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values on the terminal, in two columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name), Text(readable(value)))
    console().print(table)


@contextmanager
def progress(
    label: str, total: int | None, unit: str, detail: Callable[[], str] = str
) -> Generator[Callable[[int], None]]:
    """Show how far long work has come, on standard error if that is a terminal.

    Yields a function that is told how much more was done; ``detail`` says more each time that
    it is shown. Shows nothing in the first half second, so that quick work leaves no trace.
    """
    if not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class Detail(ProgressColumn):
        def render(self, task: Task) -> Text:
            del task
            return Text(detail())

    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        Detail(),
        TimeElapsedColumn(),
        console=Console(stderr=True, markup=False, emoji=False),
        transient=True,
    )
    started = False
    task = shown.add_task(label, total=total)
    begun = shown.get_time()

    def advance(count: int) -> None:
        nonlocal started
        shown.advance(task, count)
        if not started and shown.get_time() - begun > 0.5:
            started = True
            shown.start()

    try:
        yield advance
    finally:
        if started:
            shown.stop()


def _ignore(count: int) -> None:
    del count
