"""The tables: their rows, what those are judged by, and how they look."""

import sys
from collections.abc import Sequence

import msgspec

_LEFT = {"measure", "unit", "verdict"}
"""Columns of text; the others hold numbers."""
_STYLES = {"ok": "green", "missed": "red", "": ""}


class Target(msgspec.Struct, frozen=True):
    """What a value must not exceed, or with ``at_least`` not fall below."""

    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


Values = dict[str, float]
"""By contender."""


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

    def cells(self, contenders: Sequence[str]) -> tuple[str, ...]:
        """The line as text, in the order of a table's ``header``."""
        return (
            self.measure,
            "" if self.turns is None else f"{self.turns:,}",
            self.unit,
            *(_number(self.values.get(name)) for name in contenders),
            _number(self.judged),
            "" if self.target is None else str(self.target),
            self.verdict,
        )


class Table(msgspec.Struct, frozen=True):
    """The rows on one thing that was measured."""

    title: str
    contenders: tuple[str, ...]
    """The columns of values: the floor first."""
    rows: list[Row]
    notes: list[str]
    """What to know about it."""

    @property
    def header(self) -> tuple[str, ...]:
        """What the columns are called."""
        return ("measure", "turns", "unit", *self.contenders, "judged", "target", "verdict")


def show(table: Table) -> None:
    """Print a table as aligned text, coloured on a terminal, and its notes."""
    lines = [table.header, *(row.cells(table.contenders) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(
            cell.ljust(width) if name in _LEFT else cell.rjust(width)
            for name, cell, width in zip(table.header, line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]
    styles = ["bold", *(_STYLES[row.verdict] for row in table.rows)]
    print(f"{table.title}\n")
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        for text, style in zip(texts, styles, strict=True):
            console.print(text, style=style, soft_wrap=True)
    else:
        print("\n".join(texts))
    print("\n" + "".join(f"{note}\n" for note in table.notes))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
