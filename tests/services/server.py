"""One server process: started, waited for, stopped, killed, started again."""

import os
import random
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from tests.services import reaper

START = 30.0
"""Seconds in which a server must be ready. They start in well below one."""


class ServerMissing(Exception):
    """The package that brings the server is not installed."""


class ServerFailed(Exception):
    """The server did not start. Says why in its own words."""


class PortTaken(ServerFailed):
    """Somebody else took the port first."""


class Identity(NamedTuple):
    """Whom a process runs as; ``None`` is whom this one runs as."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None


MYSELF = Identity()


class Server(ABC):
    """A server on a loopback port, with its data in a directory of its own.

    Not for use by several threads at once. As a context manager it stops at the end.
    """

    patience = reaper.PATIENCE
    """Seconds that it has to shut down in good order."""
    port: int
    directory: Path
    """Where its data lies, and its output in the file ``log``."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory.resolve()
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client connects to."""

    @property
    def pid(self) -> int:
        """Raises ``ServerFailed`` if it does not run."""
        if self._process is None:
            raise ServerFailed(f"{type(self).__name__} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Shut down in good order and wait. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.terminate()
            self._ended(self.patience)

    def kill(self) -> None:
        """SIGKILL, and wait. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._ended(None)

    def restart(self) -> None:
        """Stop it if it runs; start it on the same port and data; wait until it answers."""
        self.stop()
        self._launch()

    def log(self) -> str:
        """What it has said, over all its starts."""
        return (self.directory / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _ready(self, said: str) -> bool:
        """Whether it answers, given what it has said since its start."""

    def _identity(self) -> Identity:
        """Whom the process runs as."""
        return MYSELF

    def _environment(self) -> dict[str, str]:
        """What the process finds in its environment beside what this one has."""
        return {}

    def _launch(self) -> None:
        """Start it and wait until it answers. Raises ``ServerFailed`` if it does not."""
        path = self.directory / "log"
        identity = self._identity()
        with path.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment()},
                start_new_session=True,
                user=identity.user,
                group=identity.group,
                extra_groups=identity.extra_groups,
            )
        self._process = process
        reaper.guard(process.pid)
        deadline = time.monotonic() + START
        while True:
            ended = process.poll() is not None
            with path.open("rb") as log:
                log.seek(start)
                said = log.read().decode(errors="replace")
            if not ended and self._ready(said):
                return
            if ended or time.monotonic() > deadline:
                self.kill()
                failure = PortTaken if "already in use" in said else ServerFailed
                raise failure(f"{type(self).__name__} did not start:\n{said[-2000:]}")
            time.sleep(0.005)

    def _ended(self, patience: float | None) -> None:
        assert self._process is not None
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        reaper.release(self._process.pid)
        self._process = None


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again, for as long as a server may take to start."""
    deadline = time.monotonic() + START
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"not so after {START:.0f} seconds")
        time.sleep(0.02)


def free_port() -> int:
    """A free loopback port that the system will not give to a client's connection.

    A server that is started again needs its port back. One from the range of the clients' own
    ports may meanwhile belong to a connection.
    """
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def package(name: str) -> Path:
    """Where an installed package lies, which is not imported. Raises ``ServerMissing``."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        distribution = name.replace("_", "-")
        raise ServerMissing(f"the server needs: pip install {distribution}")
    return Path(spec.submodule_search_locations[0])
