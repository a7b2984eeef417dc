"""How the demo looks: three panels side by side on a terminal, plain lines elsewhere."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from perdure_cli.output import flush, line
from perdure_cli.text import escape

NARROW = 100
"""Terminals with fewer columns get plain lines."""

ROWS = 14
"""Lines of a panel."""

STYLES = {"ok": "green", "bad": "bold red", "kill": "bold white on red", "dim": "dim"}


class Screen(Protocol):
    """Where the demo tells what happens."""

    def say(self, who: str, text: str, style: str = "") -> None:
        """Something that one of the processes did. ``who`` is its title."""
        ...

    def status(self, text: str) -> None:
        """What is going on as a whole."""
        ...

    def progress(self, text: str) -> None:
        """How far it has come, where that can be shown in place."""
        ...

    def close(self) -> None:
        """The show is over; what follows is printed below it."""
        ...


class Silent:
    """For ``--json``: only the summary counts."""

    def say(self, who: str, text: str, style: str = "") -> None:
        """Nothing."""

    def status(self, text: str) -> None:
        """Nothing."""

    def progress(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One plain line per event, when it happens."""

    def say(self, who: str, text: str, style: str = "") -> None:
        """A line that begins with who did it."""
        del style
        line(f"{who:<9} {escape(text)}")
        flush()

    def status(self, text: str) -> None:
        """A line that nobody did."""
        self.say("demo", text)

    def progress(self, text: str) -> None:
        """Nothing: a line cannot be taken back."""

    def close(self) -> None:
        """Nothing: every line stands already."""


class Panels:
    """A panel for each process, redrawn as things happen."""

    def __init__(self, console: Console, titles: Sequence[str]) -> None:
        self._events: dict[str, deque[Text]] = {title: deque(maxlen=ROWS) for title in titles}
        self._status = Text("")
        self._live = Live(
            console=console, auto_refresh=False, get_renderable=self._render, screen=False
        )
        self._live.start(refresh=True)

    def say(self, who: str, text: str, style: str = "") -> None:
        """A line in that process's panel."""
        shown = Text(escape(text), no_wrap=True, overflow="ellipsis")
        shown.stylize(STYLES.get(style, style))
        self._events[who].append(shown)
        self._live.refresh()

    def status(self, text: str) -> None:
        """The line below the panels."""
        self._status = Text(escape(text), style="bold")
        self._live.refresh()

    def progress(self, text: str) -> None:
        """The same line."""
        self.status(text)

    def close(self) -> None:
        """Leave the panels as they are."""
        self._live.stop()

    def _render(self) -> RenderableType:
        grid = Table.grid(expand=True)
        panels: list[Panel] = []
        for title, events in self._events.items():
            grid.add_column(ratio=1)
            body = Group(*events, *[Text("")] * (ROWS - len(events)))
            panels.append(Panel(body, title=title, height=ROWS + 2, border_style="dim"))
        grid.add_row(*panels)
        return Group(grid, self._status)
