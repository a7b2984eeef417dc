"""The table: its rows, what they are judged by, and how they look."""

import sys
from collections.abc import Sequence

import msgspec

HEADER = (
    "measure",
    "turns",
    "unit",
    "bare sqlite3",
    "perdure sqlite",
    "perdure memory",
    "judged",
    "target",
    "verdict",
)
_LEFT = {0, 2, 8}
"""Columns of text; the others hold numbers."""


class Target(msgspec.Struct, frozen=True):
    """What a value must not exceed, or with ``at_least`` not fall below."""

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


Values = dict[str, float]
"""By contender: ``bare``, ``sqlite``, ``memory``."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a measure of each contender, and perhaps a judgement."""

    measure: str
    unit: str
    turns: int | None = None
    """Length of the sessions, where it matters."""
    values: Values
    judged: float | None = None
    """What the target is about: mostly a ratio."""
    target: Target | None = None

    @property
    def verdict(self) -> str:
        """``ok``, ``missed``, or nothing where there is no target."""
        if self.target is None or self.judged is None:
            return ""
        return "ok" if self.target.met(self.judged) else "missed"

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of ``HEADER``."""
        return (
            self.measure,
            "" if self.turns is None else f"{self.turns:,}",
            self.unit,
            *(_number(self.values.get(name)) for name in ("bare", "sqlite", "memory")),
            _number(self.judged),
            "" if self.target is None else str(self.target),
            self.verdict,
        )


def show(rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Print the table: ruled and coloured on a terminal, aligned text elsewhere."""
    if sys.stdout.isatty():
        _show_rich(rows, notes)
        return
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    for line in lines:
        cells = [
            cell.ljust(width) if column in _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print()
    for note in notes:
        print(note)


def _show_rich(rows: Sequence[Row], notes: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column, name in enumerate(HEADER):
        table.add_column(name, justify="left" if column in _LEFT else "right")
    styles = {"missed": "red", "ok": "green", "": ""}
    before = rows[0].measure if rows else ""
    for row in rows:
        if row.measure != before:
            table.add_section()
        before = row.measure
        *cells, verdict = row.cells()
        table.add_row(*cells, verdict, style=styles[row.verdict])
    console = Console(highlight=False)
    console.print(table)
    for note in notes:
        console.print(note)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
