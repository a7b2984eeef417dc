"""What the demo says at its end."""

import msgspec

from perdure_cli.demo.measure import WINDOW
from perdure_cli.demo.outcome import Outcome
from perdure_cli.output import console, flush, line, on_terminal, row
from perdure_cli.text import plural, readable, size


def facts(outcome: Outcome, *, kept: str | None) -> dict[str, object]:
    """The figures and the proof, for scripts."""
    kill, resumed, measured = outcome.kill, outcome.resumed, outcome.measured
    lag = outcome.lag_ms_median
    return {
        "proved": outcome.proved,
        "proof": [msgspec.structs.asdict(verdict) for verdict in outcome.verdicts],
        "seconds": round(outcome.seconds, 2),
        "store": None if outcome.store is None else msgspec.structs.asdict(outcome.store),
        "killed": None
        if kill is None
        else msgspec.structs.asdict(kill) | {"signal": kill.signal},
        "resumed_behind_turn": None if resumed is None else resumed.turn,
        "session": {
            "acknowledged_turns": outcome.session.acknowledged,
            "acknowledged_entries": outcome.session.entries,
            "answers": outcome.session.answers,
        },
        "fork": {
            "id": outcome.fork_id,
            "acknowledged_turns": outcome.fork.acknowledged,
            "acknowledged_entries": outcome.fork.entries,
            "answers": outcome.fork.answers,
        },
        "watcher": {
            "entries": len(outcome.seen),
            "lag_ms_median": None if lag is None else round(lag, 3),
        },
        "turn_ms_median": round(outcome.turn_ms_median, 3),
        "long_session": None
        if measured is None
        else msgspec.structs.asdict(measured)
        | {"bytes_ratio": measured.bytes_ratio, "time_ratio": measured.time_ratio},
        "kept": kept,
    }


def figures(outcome: Outcome) -> list[tuple[str, str]]:
    """Name and value of what was measured, for people."""
    count = outcome.session.acknowledged + outcome.fork.acknowledged
    found = [("a turn took", f"{outcome.turn_ms_median:.2f} ms (median of {count})")]
    if (lag := outcome.lag_ms_median) is not None:
        found.append(("the watcher was behind", f"{max(lag, 0):.1f} ms (median)"))
    if (m := outcome.measured) is None:
        return found
    turns = f"turn 1 → {m.turns:,}"
    times = f"{m.first_ms:.2f} ms → {m.last_ms:.2f} ms (× {m.time_ratio:.2f})"
    found.append((f"{turns} took", times))
    if m.first_bytes is None or m.last_bytes is None or m.bytes_ratio is None:
        return [*found, (f"{turns} wrote", f"n/a: {m.meter}")]
    whole, turn = size(m.payload_bytes * m.turns), size(m.payload_bytes)
    written = f"{size(m.first_bytes)} → {size(m.last_bytes)} (× {m.bytes_ratio:.2f})"
    return [
        *found,
        (f"{turns} wrote", f"{written}, where the history is {turn} → {whole}"),
        ("all turns wrote", f"{size(m.average_bytes or 0)} on average"),
        ("counted as", f"medians of {WINDOW} turns; {m.meter}"),
    ]


def print_summary(outcome: Outcome) -> None:
    """The proof and the figures."""
    entries = plural(outcome.session.entries + outcome.fork.entries, "entry")
    verdict = f"Proved: of {entries} acknowledged, none was lost, doubled or reordered."
    if not outcome.proved:
        verdict = "NOT proved."
    if on_terminal():
        _draw(outcome, verdict)
        return
    if (store := outcome.store) is not None:
        row("store", store.backend, store.location)
        row("durability", store.durability)
    for found in outcome.verdicts:
        row("proof", "ok" if found.ok else "FAILED", found.claim, found.detail)
    for name, value in figures(outcome):
        row("figure", name, value)
    row("verdict", verdict)


def _draw(outcome: Outcome, verdict: str) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    screen = console()
    proof, table = Table.grid(padding=(0, 1)), Table.grid(padding=(0, 2))
    for found in outcome.verdicts:
        detail = Text(f"  {readable(found.detail)}", "dim" if found.ok else "red")
        mark = Text("✓", "green") if found.ok else Text("✗", "bold red")
        proof.add_row(mark, Text.assemble(found.claim, detail))
    for name, value in figures(outcome):
        table.add_row(Text(name, "dim"), readable(value))
    if outcome.store is not None:
        table.add_row(Text("an acknowledgement", "dim"), readable(outcome.store.durability))
    for shown in (proof, table):
        line()
        flush()
        screen.print(Padding(shown, (0, 0, 0, 2)))
    line()
    flush()
    screen.print(Text(verdict, "bold green" if outcome.proved else "bold red"))
