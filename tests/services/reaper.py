"""Ends the servers of a process that was itself killed, and removes what it left on disk.

A server runs in a session of its own, so that Ctrl-C in a terminal stops the tests and leaves
it to them to stop the server. What becomes of it when the tests are killed is this module's
business: it starts one small process, which holds the other end of a pipe. When the pipe
closes, for whatever reason, it ends all servers that it was not told of as gone.
"""

import atexit
import contextlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable

import psutil

PATIENCE = 10.0
"""Seconds that a server has to shut down before it is killed."""

_lock = threading.Lock()
_reaper: subprocess.Popen[str] | None = None


def guard(pid: int) -> None:
    """End this process when ours is gone."""
    _tell("guard", pid)


def release(pid: int) -> None:
    """This process has ended."""
    _tell("release", pid)


def remove(directory: str) -> None:
    """Remove this directory when our process is gone, and its servers."""
    _tell("remove", directory)


def _tell(*words: object) -> None:
    global _reaper  # noqa: PLW0603  (one for each process)
    with _lock:
        if _reaper is None:
            _reaper = subprocess.Popen(
                [sys.executable, "-I", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            atexit.register(_dismiss, _reaper)
        assert _reaper.stdin is not None
        print(*words, file=_reaper.stdin, flush=True)


def _dismiss(reaper: subprocess.Popen[str]) -> None:
    assert reaper.stdin is not None
    reaper.stdin.close()
    reaper.wait()


def wait(processes: Iterable[psutil.Process], patience: float) -> None:
    """Wait until all have ended, or this many seconds."""
    deadline = time.monotonic() + patience
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.002)


def _runs(process: psutil.Process) -> bool:
    try:
        # An orphan that has ended is a zombie until init looks for it, which can take seconds.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """The small process. Ends when nothing is left to do."""
    guarded: dict[int, psutil.Process] = {}
    directories: list[str] = []
    for line in sys.stdin:
        order, _, subject = line.rstrip("\n").partition(" ")
        if order == "guard":
            with contextlib.suppress(psutil.NoSuchProcess):
                guarded[int(subject)] = psutil.Process(int(subject))
        elif order == "release":
            guarded.pop(int(subject), None)
        else:
            directories.append(subject)
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in filter(_runs, guarded.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        wait(guarded.values(), PATIENCE)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
