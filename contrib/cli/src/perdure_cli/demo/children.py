"""The demo's processes, as the parent sees them."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import random

import msgspec

from perdure_cli.demo.messages import Failed, Job, Report, decode
from perdure_cli.errors import CommandError

PATIENCE = 60.0
"""Seconds after which a process that says nothing has failed."""
LONGEST_REPORT = 1 << 20


class Child:
    """A process that reports."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self._process = process
        self._errors = errors
        self._killed = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill_within(self, seconds: float) -> None:
        """SIGKILL at a random moment of the next few milliseconds; blocks as long."""
        time.sleep(random() * seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        self._killed = True
        with suppress(ProcessLookupError):
            self._process.kill()

    async def status(self) -> int:
        """How it ended: its exit status, or minus the number of the signal that ended it."""
        return await self._process.wait()

    async def reports(self) -> AsyncGenerator[Report, None]:
        """What it reports, until it has gone and its pipe is empty.

        Raises ``CommandError`` if it failed, unless it was killed.
        """
        assert self._process.stdout is not None
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                raise CommandError(f"demo: process {self.pid} has stopped working") from None
            if not line.endswith(b"\n"):  # gone; in the middle of a report, it is none
                break
            report = decode(line)
            if isinstance(report, Failed):
                raise CommandError(f"demo: {report.reason}")
            yield report
        status = await self._process.wait()
        if status != 0 and not self._killed:
            said = self._errors.read_text(errors="replace").strip().splitlines()
            last = said[-1] if said else "and said nothing"
            raise CommandError(f"demo: process {self.pid} ended with status {status}: {last}")

    async def end(self) -> None:
        """See that it has gone."""
        if self._process.returncode is None:
            self.kill()
            await self._process.wait()


@asynccontextmanager
async def child(module: str, job: Job, folder: Path) -> AsyncGenerator[Child, None]:
    """A process that does a job, and is gone when the block ends.

    Where the job names no store it runs in the job's directory: the usual store, a file below
    the working directory, is then one of the demo's own. Its errors go to ``folder``.
    """
    errors = folder / f"errors-of-{module}"
    with errors.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a file in the working directory is not a module
            "-m",
            f"perdure_cli.demo.{module}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            cwd=job.directory,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for us; we see to them
            limit=LONGEST_REPORT,
        )
    started = Child(process, errors)
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.drain()
        yield started
    finally:
        await started.end()


def _environment() -> dict[str, str]:
    """Ours, without the store (the job has it), and good for another working directory."""
    found = {name: value for name, value in os.environ.items() if name != "PERDURE_URL"}
    if path := found.get("PYTHONPATH"):
        parts = [os.path.abspath(part) for part in path.split(os.pathsep)]
        found["PYTHONPATH"] = os.pathsep.join(parts)
    return found
