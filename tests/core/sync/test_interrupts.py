"""Ctrl-C during a blocking call, and the end of the interpreter with a store left open."""

import os
import signal
import subprocess
import sys
import threading
import time
from secrets import token_hex

import pytest

from perdure.sync import Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


def interrupt_after(seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_an_interrupt_cancels_what_is_under_way_and_the_store_goes_on(any_url: str) -> None:
    with Store(any_url) as store:
        session = store.session(token_hex(8))
        session.append(0)
        watching = session.watch()
        timer = interrupt_after(0.1)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(watching)
        timer.join()
        assert time.monotonic() - began < 5
        assert list(watching) == []  # it has ended
        session.append(1)
        assert session.entries() == [0, 1]


def test_appends_interrupted_at_any_moment_are_whole_or_not_made(any_url: str) -> None:
    with Store(any_url) as store:
        session = store.session(token_hex(8))
        acknowledged: list[int] = []
        interrupted: list[int] = []
        n = 0
        for pause in range(12):
            timer = interrupt_after(0.005 + pause * 0.000_4)
            try:
                while True:
                    n += 1
                    session.append(n, -n)
                    acknowledged.append(n)
            except KeyboardInterrupt:
                interrupted.append(n)
            timer.join()
        found = session.entries()
        made = found[::2]
        assert found[1::2] == [-n for n in made]
        assert len(set(made)) == len(made)  # one given up may come late, but comes once
        assert set(acknowledged) <= set(made)
        assert set(made) - set(acknowledged) <= set(interrupted)


LEFT_OPEN = """
import logging, sys, threading, time
from perdure.sync import Store
logging.getLogger("asyncio").setLevel(logging.ERROR)  # a busy machine is slow
store = Store(sys.argv[1])
session = store.session(sys.argv[2])
session.append(1)
def watch():
    for _ in session.watch():
        pass
threading.Thread(target=watch, daemon=True).start()
time.sleep(0.1)
if sys.argv[3] == "in use":
    other = Store(sys.argv[1])
    other.save("left", 1)
    turn = other.session("left").turn()
    turn.__enter__()
elif sys.argv[3] == "error":
    raise SystemExit(3)
print("end")
"""


@pytest.mark.parametrize("how", ["in use", "error"])
def test_the_interpreter_ends_with_stores_left_open(any_url: str, how: str) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", LEFT_OPEN, any_url, "s", how],
        capture_output=True,
        check=False,
        timeout=60,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode == (3 if how == "error" else 0)
    assert time.monotonic() - began < 15
