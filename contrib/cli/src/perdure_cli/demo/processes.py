"""The processes of the demo, as their parent handles them."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from perdure_cli.demo.messages import Claim, Failed, Job, Report, Role, decode
from perdure_cli.errors import CommandError
from perdure_cli.target import DEFAULT_TENANT, Target

PATIENCE = 60.0
"""Seconds after which a process that says nothing has failed."""

DEMO_KIND = "demo"
"""Kind of the demo's sessions, so that they do not mix with a user's."""

Listener = Callable[[Report], None]


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
        while line := await self._line():
            if not line.endswith(b"\n"):
                break  # killed in the middle of a report, which is none then
            report = decode(line)
            if isinstance(report, Failed):
                raise CommandError(f"demo: {report.reason}")
            listener(report)
        code = await self._process.wait()
        if code != 0 and not self._killed:
            said = self._errors.read_text(errors="replace").strip().splitlines()
            reason = said[-1] if said else "silently"
            raise CommandError(f"demo: process {self.pid} ended with {code}: {reason}")

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        try:
            return await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            raise CommandError(
                f"demo: process {self.pid} said nothing for {PATIENCE:.0f} s"
            ) from None

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

    def __init__(self, target: Target, folder: Path, session: str, pace: float) -> None:
        self.pace = pace
        self._url = target.url or os.environ.get("PERDURE_URL") or None
        self._target = target
        self._folder = folder
        self._here = Path.cwd()
        self._session = session
        self._children: list[Child] = []

    def job(self, role: Role, claim: Claim | None = None) -> Job:
        """A job on this run's session."""
        return Job(
            role=role,
            url=self._url,
            tenant=DEFAULT_TENANT if self._target.tenant is None else self._target.tenant,
            kind=DEMO_KIND if self._target.kind is None else self._target.kind,
            session=self._session,
            workspace=str(self._folder / "files"),
            pace=self.pace,
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
            parts = [str(self._here / part) for part in path.split(os.pathsep) if part]
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
