"""Fenced blocks of our Markdown, and what their info strings ask for.

=============================  ==========================================================
```` ```python ````            runs, after the blocks before it, in one event loop
```` ```python file=NAME ````  goes into a file of that name, behind earlier ones of it;
                               a test of the document's own runs the file
```` ```python skip="why" ```` does not run
```` ```text output ````       what the Python block before it prints
=============================  ==========================================================
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.quality.workspace import ROOT, members

_FENCE = re.compile(r"^```(?P<language>\w*) *(?P<info>.*)$")

DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(member.directory / "README.md" for member in members()),
]


class Block(NamedTuple):
    """One fenced block."""

    language: str
    info: str
    """The rest of the opening line."""
    source: str
    line: int
    """Where its first line stands, from 0."""


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    return list(_blocks(document.read_text().splitlines(keepends=True)))


def files(document: Path) -> dict[str, str]:
    """The files that a document shows, in one block or several."""
    parts: dict[str, list[str]] = {}
    for block in blocks(document):
        if block.info.startswith("file="):
            parts.setdefault(block.info.removeprefix("file="), []).append(block.source)
    return {name: "\n\n".join(sources) for name, sources in parts.items()}


def _blocks(lines: list[str]) -> Iterator[Block]:
    opened: re.Match[str] | None = None
    start = 0
    for number, line in enumerate(lines):
        if opened is not None and line.rstrip() == "```":
            source = "".join(lines[start:number])
            yield Block(opened["language"], opened["info"].strip(), source, start)
            opened = None
        elif opened is None and (opened := _FENCE.match(line.rstrip())) is not None:
            start = number + 1
    assert opened is None, f"a block opened at line {start} is never closed"
