"""A disk whose fsync takes longer, for a child process that measures on it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

SOURCE = Path(__file__).with_name("slow_fsync.c")


class SlowDisk(msgspec.Struct, frozen=True):
    """How fsyncs are delayed. The child calls :func:`delay_commits` with ``in_python`` ms."""

    how: str
    """For people."""
    library: Path | None = None
    """To be preloaded; without one the child delays its commits itself."""

    def environment(self, milliseconds: float) -> dict[str, str]:
        """The child's environment."""
        if self.library is None or not milliseconds:
            return dict(os.environ)
        return {
            **os.environ,
            "LD_PRELOAD": str(self.library),
            "FSYNC_DELAY_US": str(round(milliseconds * 1000)),
        }

    def in_python(self, milliseconds: float) -> float:
        """By how many ms the child must delay its commits itself."""
        return 0 if self.library else milliseconds


def slow_disk(directory: Path) -> SlowDisk:
    """The best way this machine has; a library is built in ``directory``."""
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if sys.platform == "linux" and compiler is not None:
        library = directory / "slow_fsync.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        built = subprocess.run([*command, "-ldl"], capture_output=True, check=False)
        if built.returncode == 0:
            disk = SlowDisk(
                "fsync +: every fsync and fdatasync is delayed, by LD_PRELOAD.", library
            )
            if _delays(disk, directory, 2):
                return disk
    return SlowDisk("fsync +: every commit is delayed, in Python (no C compiler, or no Linux).")


def _delays(disk: SlowDisk, directory: Path, milliseconds: float) -> bool:
    """Whether SQLite in a child process is really slower with the library."""
    program = (
        "import sqlite3, sys, time\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA journal_mode = WAL')\n"
        "db.execute('PRAGMA synchronous = FULL')\n"
        "db.execute('CREATE TABLE t (x)')\n"
        "started = time.perf_counter()\n"
        "for x in range(10): db.execute('INSERT INTO t VALUES (?)', (x,))\n"
        "print((time.perf_counter() - started) / 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory / "probe.db")],
        env=disk.environment(milliseconds),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and float(done.stdout) >= milliseconds / 1000


def delay_commits(milliseconds: float) -> None:
    """Let every commit that wrote something take longer, on connections made from now on."""

    class SlowConnection(sqlite3.Connection):
        _synced = 0

        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            cursor = super().execute(sql, parameters)
            if not self.in_transaction and self._synced != self.total_changes:
                self._synced = self.total_changes
                time.sleep(milliseconds / 1000)
            return cursor

    connect = sqlite3.connect

    def slow_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=SlowConnection, **options)

    sqlite3.__dict__["connect"] = slow_connect


def fsync_seconds(directory: Path, samples: int = 200) -> float:
    """How long an fsync of 8 KiB appended to a file takes here, without any delay."""
    sync = getattr(os, "fdatasync", os.fsync)
    block = os.urandom(8192)
    times: list[float] = []
    with open(directory / "fsync", "wb", buffering=0) as file:
        for _ in range(samples):
            file.write(block)
            started = time.perf_counter()
            sync(file.fileno())
            times.append(time.perf_counter() - started)
    return median(times)
