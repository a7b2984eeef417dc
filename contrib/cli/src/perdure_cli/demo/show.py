"""The parent of the demo: starts processes, kills one, listens, and sums up."""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import msgspec

from perdure_cli.demo.messages import (
    Acknowledged,
    Claim,
    Doing,
    Failed,
    Forked,
    Job,
    Measured,
    Ready,
    Report,
    Role,
    Seen,
    Sighting,
    Verdict,
    decode,
)
from perdure_cli.demo.screen import NARROW, Lines, Panels, Screen, Silent
from perdure_cli.demo.script import FILES, FORK_TURN, SCRIPT
from perdure_cli.demo.summary import print_summary, summary_facts
from perdure_cli.errors import FAILED, CommandError
from perdure_cli.output import console, json_row, note, on_terminal
from perdure_cli.target import DEFAULT_TENANT, Target

PACE = 0.09
"""Seconds that the scripted model thinks per turn."""
KILL_AFTER = 5
"""Turns acknowledged before the SIGKILL, which comes at a random moment of the next."""
PATIENCE = 60.0
"""Seconds after which a process that says nothing has failed."""

FIRST, SECOND, WATCHER = "agent 1", "agent 2", "watcher"

Listener = Callable[[Report], None]


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
    location: str = ""
    seconds: float = 0.0

    @property
    def proved(self) -> bool:
        """Whether there is a proof, and all of it holds."""
        return bool(self.verdicts) and all(verdict.ok for verdict in self.verdicts)

    @property
    def median_ms(self) -> float:
        """Of the turns of the show."""
        return median(self.turn_ms) if self.turn_ms else 0.0


class Child:
    """One process of the demo. It ends with us, whatever happens to us."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self._process = process
        self._errors = errors
        self._killed = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def listen(self, listener: Listener) -> None:
        """Pass its reports on until it has gone and its pipe is empty.

        Raises ``CommandError`` if it failed, unless it was killed.
        """
        assert self._process.stdout is not None
        while line := await asyncio.wait_for(self._process.stdout.readline(), PATIENCE):
            if not line.endswith(b"\n"):
                break  # killed in the middle of a report, which is none then
            report = decode(line)
            if isinstance(report, Failed):
                raise CommandError(f"demo: {report.reason}")
            listener(report)
        code = await self._process.wait()
        if code != 0 and not self._killed:
            said = self._errors.read_text(errors="replace").strip().splitlines()
            raise CommandError(
                f"demo: process {self.pid} ended with {code}: {said[-1] if said else 'silently'}"
            )

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """See that it has gone."""
        if self._process.returncode is None:
            self.kill()
            await self._process.wait()


class Director:
    """Starts processes for one run of the demo."""

    def __init__(self, target: Target, folder: Path, session: str) -> None:
        self._url = target.url or os.environ.get("PERDURE_URL") or None
        self._target = target
        self._folder = folder
        self._session = session
        self._children: list[Child] = []

    def job(self, role: Role, claim: Claim | None = None) -> Job:
        """A job on this run's session."""
        return Job(
            role=role,
            url=self._url,
            tenant=DEFAULT_TENANT if self._target.tenant is None else self._target.tenant,
            kind="demo" if self._target.kind is None else self._target.kind,
            session=self._session,
            workspace=str(self._folder / "files"),
            pace=PACE,
            claim=claim,
        )

    async def start(self, role: Role, claim: Claim | None = None) -> Child:
        """A process that does a job.

        Where no store is named, it runs in a folder of its own, so that the usual store, a
        file below the working directory, is one of its own.
        """
        environment = dict(os.environ)
        environment.pop("PERDURE_URL", None)  # the job has it
        if path := environment.get("PYTHONPATH"):
            parts = [os.path.abspath(part) for part in path.split(os.pathsep) if part]
            environment["PYTHONPATH"] = os.pathsep.join(parts)
        number = len(self._children)
        errors = self._folder / f"stderr-{number}"
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "perdure_cli.demo.agent",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=self._folder if self._url is None else None,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us; we see to them
                limit=1 << 20,
            )
        child = Child(process, errors)
        self._children.append(child)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self.job(role, claim)) + b"\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.drain()
        return child

    async def end(self) -> None:
        """End every process that is still there."""
        for child in self._children:
            await child.end()


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
    if kept:
        note(f"kept: cd {folder} && perdure ls --kind demo")
    elif keep:
        note("kept: perdure ls --kind demo")
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
    director = Director(target, folder, f"demo-{secrets.token_hex(3)}")
    outcome = Outcome()
    try:
        await _play(director, screen, outcome)
        screen.status("1,000 turns in one session: what does the last one cost?")
        measurer = await director.start(Role.MEASURER)
        await measurer.listen(lambda report: _take_measured(report, outcome))
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


def _take_measured(report: Report, outcome: Outcome) -> None:
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
    watching = asyncio.Event()
    watcher = await director.start(Role.WATCHER)

    def seen(report: Report) -> None:
        watching.set()
        if isinstance(report, Ready):
            screen.say(WATCHER, f"process {watcher.pid} waits", "dim")
        if isinstance(report, Seen):
            outcome.seen.append(report.sighting)
            screen.say(WATCHER, f"{report.sighting.id} {report.text}")

    async with asyncio.TaskGroup() as group:
        watched = group.create_task(watcher.listen(seen))
        await _first_or_failure(watching.wait(), watched)
        await _first_agent(director, screen, outcome)
        await _second_agent(director, screen, outcome)
        await _until(lambda: len(outcome.seen) >= len(outcome.acknowledged), seconds=5)
        watcher.kill()


async def _first_or_failure(event: Awaitable[object], task: asyncio.Task[None]) -> None:
    """Wait for the event, or let the task's failure show."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()


async def _until(reached: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not reached() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)


async def _first_agent(director: Director, screen: Screen, outcome: Outcome) -> None:
    screen.status("agent 1 works; every turn is in the store before the next begins")
    child = await director.start(Role.AGENT)
    dying: list[asyncio.Task[None]] = []

    async def die() -> None:
        await asyncio.sleep(random.uniform(0, PACE * 1.2))
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
            text = f"{_branch(session)}{turn:>2}  acknowledged: {len(ids)} entries, {ms:.1f} ms"
            screen.say(who, text, "ok")
            if turn == len(SCRIPT) and not forked:
                screen.status("the task is done; now the session is forked")
        case Forked(turn=turn, fork=fork):
            screen.say(who, f"forked behind turn {turn}: {fork}", "bold cyan")
            screen.status("the session and its fork go on, at the same time")
        case _:
            pass


def _branch(session: str) -> str:
    return "fork " if session.endswith("-fork") else "turn "
