"""How the demo looks: a lane for each process on a terminal, plain lines elsewhere."""

import time
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from perdure_cli.output import console, flush, line, on_terminal
from perdure_cli.text import escape

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

FIRST, SECOND, FORK, WATCHER, LONG = "agent 1", "agent 2", "fork", "watcher", "measure"

NARROW = 72
"""Terminals with fewer columns, or fewer rows than ``LOW``, get plain lines."""
LOW = 20
TURNS = 22
"""Columns of a lane, one a turn."""
EVENTS = 7
"""Lines of what happened last."""


class Mood(Enum):
    """How to show what somebody did."""

    PLAIN = "plain"
    BUSY = "busy"
    GOOD = "good"
    BAD = "bad"
    BRANCH = "branch"


class Screen(Protocol):
    """Where the demo tells what happens. ``who`` is one of the names above."""

    def status(self, text: str) -> None:
        """What is going on as a whole."""
        ...

    def say(self, who: str, text: str, mood: Mood = Mood.PLAIN) -> None:
        """Something that happened."""
        ...

    def mark(self, who: str, turn: int, mood: Mood) -> None:
        """How far somebody is."""
        ...

    def remark(self, who: str, text: str) -> None:
        """Where somebody stands now."""
        ...

    def progress(self, turns: int) -> None:
        """How far the long session is, of 1,000 turns."""
        ...

    def close(self) -> None:
        """The show is over; what follows is printed below it."""
        ...


def choose_screen(*, as_json: bool) -> Screen:
    """The screen for where the output goes."""
    if as_json:
        return Silent()
    if on_terminal():
        terminal = console()
        if terminal.width >= NARROW and terminal.height >= LOW:
            return Lanes(terminal)
    return Lines()


class Silent:
    """For ``--json``: only the summary counts."""

    def status(self, text: str) -> None:
        """Nothing."""

    def say(self, who: str, text: str, mood: Mood = Mood.PLAIN) -> None:
        """Nothing."""

    def mark(self, who: str, turn: int, mood: Mood) -> None:
        """Nothing."""

    def remark(self, who: str, text: str) -> None:
        """Nothing."""

    def progress(self, turns: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines(Silent):
    """One plain line per event, as it happens: seconds, who, what."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def status(self, text: str) -> None:
        """A line that nobody did."""
        self.say("--", text)

    def say(self, who: str, text: str, mood: Mood = Mood.PLAIN) -> None:
        """A line that begins with who did it."""
        line(f"{time.monotonic() - self._started:5.2f} s  {who:<8} {escape(text)}")
        flush()


SYMBOLS = {
    Mood.BUSY: ("▒", "yellow"),
    Mood.GOOD: ("■", "green"),
    Mood.BAD: ("✗", "bold red"),
    Mood.BRANCH: ("└", "cyan"),
}
STYLES = {Mood.GOOD: "green", Mood.BAD: "bold red", Mood.BRANCH: "cyan"}


class Lanes:
    """Who has come how far, what happened last, and what is going on."""

    def __init__(self, terminal: "Console") -> None:
        from rich.live import Live

        self._started = time.monotonic()
        self._marks: dict[str, dict[int, Mood]] = {
            who: {} for who in (WATCHER, FIRST, SECOND, FORK)
        }
        self._remarks: dict[str, str] = {}
        self._events: deque[Text] = deque(maxlen=EVENTS)
        self._status = ""
        self._turns = 0
        self._over = False
        self._live = Live(console=terminal, get_renderable=self._render, refresh_per_second=20)
        self._live.start()

    def status(self, text: str) -> None:
        """The line at the top."""
        self._status = text

    def say(self, who: str, text: str, mood: Mood = Mood.PLAIN) -> None:
        """One of the last few events."""
        from rich.text import Text

        style = STYLES.get(mood, "")
        self._events.append(
            Text.assemble(
                (f"{time.monotonic() - self._started:5.2f} s  {who:<8} ", "dim"),
                (escape(text), style),
                no_wrap=True,
                overflow="ellipsis",
            )
        )

    def mark(self, who: str, turn: int, mood: Mood) -> None:
        """A square in somebody's lane."""
        self._marks[who][turn] = mood

    def remark(self, who: str, text: str) -> None:
        """What stands right of the lane."""
        self._remarks[who] = text

    def progress(self, turns: int) -> None:
        """The bar of the long session."""
        self._turns = turns

    def close(self) -> None:
        """Leave the lanes, without the events."""
        self._over = True
        self._live.stop()

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        seconds = time.monotonic() - self._started
        head = Text.assemble(
            ("perdure demo", "bold"),
            (f"  {seconds:4.1f} s  " if not self._over else "  ", "dim"),
            (escape(self._status), "bold yellow" if not self._over else ""),
            no_wrap=True,
            overflow="ellipsis",
        )
        lanes = [self._lane(who) for who in self._marks]
        lanes.append(self._bar())
        if self._over:
            return Group(head, Text(), *lanes)
        events = [*self._events, *[Text()] * (EVENTS - len(self._events))]
        return Group(head, Text(), *lanes, Text(), *events)

    def _lane(self, who: str) -> "Text":
        from rich.text import Text

        shown = Text(f"  {who:<8} ", style="", no_wrap=True, overflow="ellipsis")
        for turn in range(1, TURNS + 1):
            mood = self._marks[who].get(turn)
            symbol, style = SYMBOLS[mood] if mood is not None else ("·", "dim")
            shown.append(symbol, "magenta" if who == WATCHER and mood else style)
        return shown.append(f"  {escape(self._remarks.get(who, ''))}", "dim")

    def _bar(self) -> "Text":
        from rich.text import Text

        done = self._turns * TURNS // 1000
        shown = Text(f"  {LONG:<8} ", no_wrap=True, overflow="ellipsis")
        shown.append("━" * done, "blue").append("·" * (TURNS - done), "dim")
        return shown.append(f"  {escape(self._remarks.get(LONG, ''))}", "dim")
