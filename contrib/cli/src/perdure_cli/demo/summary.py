"""What the demo says at its end."""

from typing import TYPE_CHECKING

import msgspec

from perdure_cli.output import console, line, on_terminal, row
from perdure_cli.text import size

if TYPE_CHECKING:
    from perdure_cli.demo.show import Outcome


def summary_facts(outcome: "Outcome") -> dict[str, object]:
    """The figures and the proof, for scripts."""
    measured = outcome.measured
    return {
        "proved": outcome.proved,
        "proof": [msgspec.structs.asdict(verdict) for verdict in outcome.verdicts],
        "seconds": round(outcome.seconds, 2),
        "killed_pid": outcome.killed_pid,
        "acknowledged_before_kill": outcome.acknowledged_before_kill,
        "resumed_at_turn": outcome.resumed_at,
        "acknowledged": len(outcome.acknowledged),
        "seen": len(outcome.seen),
        "turns": len(outcome.turn_ms),
        "turn_ms_median": round(outcome.median_ms, 3),
        "long_session": None
        if measured is None
        else msgspec.structs.asdict(measured) | {"ratio": measured.ratio},
    }


def figures(outcome: "Outcome") -> list[tuple[str, str]]:
    """Name and value of what was measured, for people."""
    found = [
        (
            "killed with SIGKILL",
            f"process {outcome.killed_pid}, {outcome.acknowledged_before_kill} entries "
            f"acknowledged; resumed at turn {outcome.resumed_at} by another process",
        ),
        ("a turn of the agents", f"{outcome.median_ms:.2f} ms in the store (median)"),
    ]
    measured = outcome.measured
    if measured is None:
        return found
    last = f"{measured.turns:,}"
    found.append(
        (
            f"a session of {last} turns",
            f"{measured.median_ms:.2f} ms a turn (median); {measured.early_ms:.2f} ms in its "
            f"first hundred, {measured.late_ms:.2f} ms in its last",
        )
    )
    if measured.first_bytes is None or measured.last_bytes is None:
        return [*found, ("bytes written", "no way to measure them here")]
    return [
        *found,
        (
            "written at turn 1",
            f"{size(measured.first_bytes)} for {size(measured.payload_bytes)} of JSON",
        ),
        (f"written at turn {last}", size(measured.last_bytes)),
        (f"turn {last} / turn 1", f"{measured.ratio or 0:.2f}"),
        ("on average", f"{size(measured.average_bytes or 0)} a turn, checkpoints and all"),
        ("measured as", measured.meter or ""),
    ]


def print_summary(outcome: "Outcome") -> None:
    """The proof and the figures."""
    if not on_terminal():
        for verdict in outcome.verdicts:
            row("proof", "ok" if verdict.ok else "FAILED", verdict.claim, verdict.detail)
        for name, value in figures(outcome):
            row("figure", name, value)
        row("verdict", "proved" if outcome.proved else "NOT PROVED")
        return
    from rich.text import Text

    screen = console()
    line()
    for verdict in outcome.verdicts:
        mark = ("✓ ", "green") if verdict.ok else ("✗ ", "bold red")
        screen.print(Text.assemble(mark, verdict.claim, (f"  {verdict.detail}", "dim")))
    line()
    for name, value in figures(outcome):
        screen.print(Text.assemble((f"{name:<28}", "dim"), value))
    line()
    good = "Nothing acknowledged was lost." if outcome.proved else "The proof failed."
    screen.print(Text(good, style="bold green" if outcome.proved else "bold red"))
