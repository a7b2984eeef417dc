"""The parent of the demo: starts processes, kills one, listens, and sums up."""

import asyncio
import contextlib
import random
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec

from perdure.uri import parse

from perdure_cli.demo.messages import (
    Acknowledged,
    Claim,
    Doing,
    Forked,
    Measured,
    Progress,
    Ready,
    Report,
    Role,
    Seen,
    Sighting,
    Verdict,
)
from perdure_cli.demo.processes import DEMO_KIND, Child, Director
from perdure_cli.demo.screen import NARROW, Lines, Panels, Screen, Silent
from perdure_cli.demo.script import FILES, FORK_TURN, SCRIPT
from perdure_cli.demo.summary import print_summary, summary_facts
from perdure_cli.errors import FAILED, CommandError
from perdure_cli.output import console, json_row, note, on_terminal
from perdure_cli.target import Target
from perdure_cli.text import plural

PACE = 0.2
"""Seconds that the scripted model thinks per turn: about what eyes can follow."""
PACE_UNSEEN = 0.05
"""The same where nobody watches."""
KILL_AFTER = 5
"""Turns acknowledged before the SIGKILL, which comes at a random moment of the next."""

WATCHER_PATIENCE = 10.0
"""Seconds that the watcher may be behind."""

FIRST, SECOND, WATCHER = "agent 1", "agent 2", "watcher"


class Outcome(msgspec.Struct, kw_only=True):
    """What happened, as the parent was told."""

    acknowledged: list[str] = []
    fork_acknowledged: list[str] = []
    turn_ms: list[float] = []
    seen: list[Sighting] = []
    killed_pid: int = 0
    acknowledged_before_kill: int = 0
    resumed_at: int = 0
    measured: Measured | None = None
    verdicts: list[Verdict] = []
    seconds: float = 0.0

    @property
    def proved(self) -> bool:
        """Whether there is a proof, and all of it holds."""
        return bool(self.verdicts) and all(verdict.ok for verdict in self.verdicts)

    @property
    def median_ms(self) -> float:
        """Of the turns of the show."""
        return median(self.turn_ms) if self.turn_ms else 0.0


def run_demo(target: Target, *, as_json: bool, keep: bool) -> int:
    """Run the demo; 1 if any proof fails."""
    _refuse_volatile(target)
    screen = _screen(as_json=as_json)
    folder = Path(tempfile.mkdtemp(prefix="perdure-demo-"))
    kept = keep and not target.is_named
    try:
        try:
            outcome = asyncio.run(_demo(target, folder, screen, keep=keep))
        finally:
            screen.close()
        facts = summary_facts(outcome)
        if as_json:
            json_row(facts)
        else:
            print_summary(outcome)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        kind = target.kind or DEMO_KIND
        if kept:
            note(f"kept: cd {folder} && perdure ls --kind {kind}")
        else:
            option = "" if target.url is None else f" -u {parse(target.url)}"
            note(f"kept: perdure{option} ls --kind {kind}")
    return 0 if outcome.proved else FAILED


def _refuse_volatile(target: Target) -> None:
    """A store that ends with its process cannot show what the demo shows."""
    from perdure.backend import Durability

    if target.is_named and target.store().backend.capabilities.durability is Durability.NONE:
        raise CommandError(
            "the demo needs a store that outlives a process, and this one does not; leave "
            "--url and PERDURE_URL out to use a temporary file"
        )


def _screen(*, as_json: bool) -> Screen:
    if as_json:
        return Silent()
    if on_terminal():
        terminal = console()
        if terminal.width >= NARROW:
            return Panels(terminal, (FIRST, SECOND, WATCHER))
    return Lines()


async def _demo(target: Target, folder: Path, screen: Screen, *, keep: bool) -> Outcome:
    started = time.monotonic()
    files = folder / "files"
    files.mkdir()
    for name, text in FILES.items():
        (files / name).write_text(text, encoding="utf-8")
    pace = PACE_UNSEEN if isinstance(screen, Silent) else PACE
    director = Director(target, folder, f"demo-{secrets.token_hex(3)}", pace)
    outcome = Outcome()
    try:
        await _play(director, screen, outcome)
        screen.status("1,000 turns in one session: what does the last one cost?")
        measurer = await director.start(Role.MEASURER)
        await measurer.listen(lambda report: _take_measured(screen, report, outcome))
        screen.status("the proof: a new process asks the store")
        claim = Claim(
            acknowledged=outcome.acknowledged,
            fork_acknowledged=outcome.fork_acknowledged,
            seen=outcome.seen,
            fork_turn=FORK_TURN,
        )
        prover = await director.start(Role.PROVER, claim)
        await prover.listen(lambda report: _take_verdict(report, outcome))
        if target.is_named and not keep:
            cleaner = await director.start(Role.CLEANER)
            await cleaner.listen(_ignore)
    finally:
        await director.end()
    outcome.seconds = time.monotonic() - started
    screen.status(f"done in {outcome.seconds:.1f} s")
    return outcome


def _take_measured(screen: Screen, report: Report, outcome: Outcome) -> None:
    if isinstance(report, Progress):
        screen.progress(f"a long session: turn {report.turns:,} of {report.of:,}")
    if isinstance(report, Measured):
        outcome.measured = report


def _take_verdict(report: Report, outcome: Outcome) -> None:
    if isinstance(report, Verdict):
        outcome.verdicts.append(report)


def _ignore(report: Report) -> None:
    del report


async def _play(director: Director, screen: Screen, outcome: Outcome) -> None:
    """Watcher, first agent, SIGKILL, second agent, fork."""
    screen.status("a watcher waits for a session that does not exist yet")
    watching, caught_up = asyncio.Event(), asyncio.Event()
    awaited: list[str] = []
    watcher = await director.start(Role.WATCHER)

    def seen(report: Report) -> None:
        watching.set()
        if isinstance(report, Ready):
            screen.say(WATCHER, f"process {watcher.pid} waits", "dim")
        if isinstance(report, Seen):
            outcome.seen.append(report.sighting)
            if report.sighting.id in awaited:
                caught_up.set()
            screen.say(WATCHER, f"{report.sighting.id} {report.text}")

    async def play() -> None:
        await _reached(watching)
        await _first_agent(director, screen, outcome)
        await _second_agent(director, screen, outcome)
        last = outcome.acknowledged[-1]
        if not any(sighting.id == last for sighting in outcome.seen):
            awaited.append(last)
            await _reached(caught_up)

    watched = asyncio.create_task(watcher.listen(seen))
    played = asyncio.create_task(play())
    try:
        await asyncio.wait((watched, played), return_when=asyncio.FIRST_COMPLETED)
        if watched.done():
            watched.result()  # raises what was wrong with it
            raise CommandError("demo: the watcher ended before the session did")
        played.result()
    finally:
        played.cancel()
        watcher.kill()
        await asyncio.wait((watched, played))


async def _reached(event: asyncio.Event) -> None:
    """Wait for the watcher a while; if it is late, the proof will say what it missed."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), WATCHER_PATIENCE)


async def _first_agent(director: Director, screen: Screen, outcome: Outcome) -> None:
    screen.status("agent 1 works; every turn is in the store before the next begins")
    child = await director.start(Role.AGENT)
    dying: list[asyncio.Task[None]] = []

    async def die() -> None:
        await asyncio.sleep(random.uniform(0, director.pace * 1.2))
        child.kill()

    def listener(report: Report) -> None:
        _narrate(screen, FIRST, child, report, outcome)
        if isinstance(report, Acknowledged) and report.turn == KILL_AFTER:
            dying.append(asyncio.create_task(die()))

    await child.listen(listener)
    await asyncio.gather(*dying)
    outcome.killed_pid = child.pid
    outcome.acknowledged_before_kill = len(outcome.acknowledged)
    screen.say(FIRST, f"SIGKILL: process {child.pid} is gone", "kill")
    screen.status(
        f"agent 1 is dead, {len(outcome.acknowledged)} entries were acknowledged; "
        "agent 2 knows only the session's name"
    )


async def _second_agent(director: Director, screen: Screen, outcome: Outcome) -> None:
    child = await director.start(Role.CLOSER)

    def listener(report: Report) -> None:
        if isinstance(report, Ready):
            outcome.resumed_at = report.turns + 1
        _narrate(screen, SECOND, child, report, outcome)

    await child.listen(listener)


def _narrate(screen: Screen, who: str, child: Child, report: Report, outcome: Outcome) -> None:
    match report:
        case Ready(turns=0):
            screen.say(who, f"process {child.pid} starts a session", "dim")
        case Ready(turns=turns, entries=entries):
            screen.say(who, f"process {child.pid} finds {turns} turns, {entries} entries", "ok")
        case Doing(session=session, turn=turn, text=text):
            screen.say(who, f"{_branch(session)}{turn:>2}  {text}")
        case Acknowledged(session=session, turn=turn, ids=ids, ms=ms):
            forked = session.endswith("-fork")
            (outcome.fork_acknowledged if forked else outcome.acknowledged).extend(ids)
            outcome.turn_ms.append(ms)
            kept = f"{plural(len(ids), 'entry')} acknowledged, {ms:.1f} ms"
            screen.say(who, f"{_branch(session)}{turn:>2}  {kept}", "ok")
            if turn == len(SCRIPT) and not forked:
                screen.status("the task is done; now the session is forked")
        case Forked(turn=turn, fork=fork):
            screen.say(who, f"forked behind turn {turn}: {fork}", "bold cyan")
            screen.status("the session and its fork go on, at the same time")
        case _:
            pass


def _branch(session: str) -> str:
    return "fork " if session.endswith("-fork") else "turn "
