"""The table: its rows, what they are judged by, and how they look."""

import sys
from collections.abc import Sequence

import msgspec

HEADER = (
    "measure",
    "turns",
    "unit",
    "bare",
    "sqlite",
    "memory",
    "judged",
    "target",
    "verdict",
)
_LEFT = {0, 2, 8}
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
    """Print the table as aligned text, coloured on a terminal."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    texts = [
        "  ".join(
            cell.ljust(width) if column in _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    styles = ["bold", *(_STYLES[row.verdict] for row in rows)]
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False, markup=False)
        for text, style in zip(texts, styles, strict=True):
            console.print(text, style=style, soft_wrap=True)
    else:
        print("\n".join(texts))
    print()
    print("\n".join(notes))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
