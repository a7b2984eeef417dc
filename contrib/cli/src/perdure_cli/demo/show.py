"""``perdure demo``: from the command line to the exit code."""

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

from perdure.uri import parse

from perdure_cli.demo.messages import Job
from perdure_cli.demo.outcome import Outcome
from perdure_cli.demo.screen import Screen, choose_screen
from perdure_cli.demo.stage import Stage
from perdure_cli.demo.summary import facts, print_summary
from perdure_cli.demo.tools import make_files
from perdure_cli.errors import FAILED, UsageError
from perdure_cli.output import fail, json_row, note, on_terminal
from perdure_cli.target import DEFAULT_TENANT, Target

KIND = "demo"
"""The kind of the demo's sessions, so that no usual list of a user's shows them."""
PACE_FOR_PEOPLE = 0.17
PACE_FOR_PIPES = 0.02
"""Seconds that the scripted model thinks per turn."""
FORK_AFTER = 13
"""The last turn that the fork shares: by then the agent has read six files."""
TERMINATED = 128 + 15
"""As shells report SIGTERM."""


def run_demo(target: Target, *, as_json: bool, keep: bool) -> int:
    """Run the demo; 1 if any proof fails. Raises ``CommandError``, ``PerdureError``."""
    refuse_volatile(target)
    folder = Path(tempfile.mkdtemp(prefix="perdure-demo-"))
    kept = False
    try:
        job = _job(target, folder, PACE_FOR_PEOPLE if _for_people(as_json) else PACE_FOR_PIPES)
        screen = choose_screen(as_json=as_json)
        try:
            outcome = asyncio.run(_play(job, folder, screen, keep=keep))
        finally:
            screen.close()
        kept = keep and job.directory is not None
    except asyncio.CancelledError:
        return TERMINATED
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    look = how_to_look(target, job) if keep else None
    if as_json:
        json_row(facts(outcome, kept=look))
    else:
        print_summary(outcome)
        if look is not None:
            note(f"kept: {look}")
    if failed := [verdict.claim for verdict in outcome.verdicts if not verdict.ok]:
        fail(f"demo: not so: {'; '.join(failed)}")
    return 0 if outcome.proved else FAILED


def refuse_volatile(target: Target) -> None:
    """A store that ends with its process cannot show what the demo shows.

    Raises ``UsageError``, ``BackendNotFound``, ``InvalidURL``.
    """
    if target.is_volatile:
        raise UsageError(
            "the demo kills a process and goes on in another, and this store does not outlive "
            "a process; leave --url and PERDURE_URL out to use a temporary one that does"
        )


def how_to_look(target: Target, job: Job) -> str:
    """A command that shows the session, for the shell. A password in the URL is hidden."""
    words = ["perdure", "show", job.session, "--kind", job.kind]
    if target.tenant is not None:
        words += ["--tenant", target.tenant]
    if target.url is not None:
        words += ["--url", str(parse(target.url))]
    command = shlex.join(words)
    return f"cd {shlex.quote(job.directory)} && {command}" if job.directory else command


def _for_people(as_json: bool) -> bool:
    return on_terminal() and not as_json


def _job(target: Target, folder: Path, pace: float) -> Job:
    """What the processes are told; makes the directories that they work in."""
    url = target.url or os.environ.get("PERDURE_URL") or None
    files, directory = folder / "shops", folder / "store"
    make_files(files)
    directory.mkdir()
    return Job(
        url=url,
        tenant=DEFAULT_TENANT if target.tenant is None else target.tenant,
        kind=KIND if target.kind is None else target.kind,
        session=f"demo-{secrets.token_hex(3)}",
        workspace=str(files),
        pace=pace,
        fork_after=FORK_AFTER,
        directory=str(directory) if url is None else None,
    )


async def _play(job: Job, folder: Path, screen: Screen, *, keep: bool) -> Outcome:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # Windows
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
    stage = Stage(job, folder, screen)
    try:
        await stage.play()
    finally:
        if not keep and job.directory is None and stage.outcome.store is not None:
            await stage.clean()
    return stage.outcome
