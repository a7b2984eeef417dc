"""``perdure demo`` as a whole: real processes, a real SIGKILL, and nothing left behind."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure import Store

from tests.contrib.cli.command import plain, run_in_terminal

COMMAND = [sys.executable, "-m", "perdure_cli", "demo"]


def environment(folder: Path) -> dict[str, str]:
    """Temporary files go to ``folder``; nothing else says where the store is."""
    found = {name: text for name, text in os.environ.items() if name != "PERDURE_URL"}
    return found | {"TMPDIR": str(folder)}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options],
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Running:
    """A demo at work, in a pipe."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *options],
            env=environment(folder),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def until(self, words: str) -> str:
        """Read on until a line has these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return line
        raise AssertionError(f"never said: {words}\n{self.said}")

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it said on standard error."""
        said, errors = self.process.communicate(timeout=60)
        self.said += said
        return self.process.returncode, errors

    @property
    def pids(self) -> set[int]:
        """The processes that it has told of."""
        return {int(pid) for pid in re.findall(r"process (\d+)", self.said)}


@contextmanager
def running(folder: Path, *options: str) -> Generator[Running]:
    demo = Running(folder, *options)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.communicate()


def is_running(pid: int) -> bool:
    """Whether a process is at work: one that has died and waits to be reaped is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(") ")[2][0] != "Z"


def eventually(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


def sessions_in(url: str) -> list[str]:
    async def listed() -> list[str]:
        async with Store(url, kind="demo") as store:
            return [entry.key.id async for entry in store.list()]

    return asyncio.run(listed())


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of one run with ``--json``, which left no file behind."""
    folder = tmp_path_factory.mktemp("demo")
    done = run(folder, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


def test_the_demo_proves_what_it_shows(summary: dict[str, Any]) -> None:
    assert summary["proved"] is True
    assert [verdict["name"] for verdict in summary["proof"]] == [
        "killed",
        "session-exactly-once",
        "session-in-order",
        "whole-turns",
        "watcher",
        "fork-exactly-once",
        "fork-in-order",
        "fork",
        "lineage",
        "answers",
    ]
    assert all(verdict["ok"] for verdict in summary["proof"])
    assert summary["watcher"]["entries"] >= summary["session"]["acknowledged_entries"]
    assert summary["session"]["answers"][-1] == "Cadiz sold most: 2833.17."
    assert summary["fork"]["answers"] == ["6 shops sold 1977.50 each on average."]


def test_the_first_agent_really_died_of_sigkill_at_its_work(summary: dict[str, Any]) -> None:
    killed = summary["killed"]
    assert (killed["status"], killed["signal"]) == (-signal.SIGKILL, "SIGKILL")
    assert not is_running(killed["pid"])
    assert killed["turn"] - 1 <= killed["acknowledged"] <= killed["turn"] < 19
    assert summary["resumed_behind_turn"] in {killed["acknowledged"], killed["turn"]}


def test_a_late_turn_of_a_long_session_writes_about_what_an_early_one_does(
    summary: dict[str, Any],
) -> None:
    measured = summary["long_session"]
    assert measured["turns"] == 1000
    assert 2800 < measured["payload_bytes"] < 3400
    if measured["first_bytes"] is None:
        pytest.skip(measured["meter"])
    assert measured["first_bytes"] > measured["payload_bytes"] / 10
    assert measured["bytes_ratio"] == measured["last_bytes"] / measured["first_bytes"] < 2


def test_plain_output_tells_the_story_and_has_no_escape_codes(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for said in (
        r"s  agent 1  turn  1 +[\d.]+ ms  list_files\(\) → 8 lines\n",
        r"s  agent 1  SIGKILL (while it wrote|just after) turn \d+",
        r"s  agent 2  process \d+ finds \d+ turns, \d+ entries",
        r"s  fork     demo-\w+-fork shares turns 1 to 13\n",
        r"\nproof\tok\tevery acknowledged entry of the session is there exactly once\t",
        r"\nfigure\tturn 1 → 1,000 wrote\t",
        r"\nverdict\tProved: of \d+ entries acknowledged, none was lost",
    ):
        assert re.search(said, done.stdout), said


def test_on_a_terminal_every_process_has_its_lane(tmp_path: Path) -> None:
    shown = run_in_terminal("demo", cwd=tmp_path, width=80)
    assert shown.code == 0
    text = plain(shown.out)
    assert re.search(r"agent 1  ■{7,12}✗·+  pid \d+ · SIGKILL in turn \d+\n", text)
    assert re.search(r"agent 2  ·{7,12}■{9,14}·  pid \d+ · resumed behind turn \d+\n", text)
    assert re.search(r"fork     ·{12}└■■■·+  pid \d+ · shares turns 1 to 13\n", text)
    assert "none was lost, doubled or reordered." in text


def test_a_narrow_terminal_gets_lines(tmp_path: Path) -> None:
    shown = run_in_terminal("demo", cwd=tmp_path, width=60)
    assert shown.code == 0
    assert "■" not in shown.out
    assert "agent 1  turn  1" in shown.out


def test_what_the_store_lost_is_named_and_fails_the_demo(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"

    async def lose_an_entry(id: str) -> None:
        async with Store(url, kind="demo") as store:
            await store.session(id).pop()

    with running(tmp_path, "--url", url) as demo:
        session = demo.until("-fork shares turns").split()[3].removesuffix("-fork")
        demo.until("a session of 1,000 turns")
        asyncio.run(lose_an_entry(session))
        status, errors = demo.end()
    assert status == 1
    assert errors.startswith("perdure: demo: not so: every acknowledged entry of the session ")
    assert errors.count("\n") == 1
    assert "proof\tFAILED\tevery acknowledged entry of the session" in demo.said
    assert demo.said.endswith("verdict\tNOT proved.\n")


def test_the_demo_uses_the_store_it_is_given_and_cleans_up(tmp_path: Path) -> None:
    done = run(tmp_path, "--url", "sqlite:///own.db", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["store"]["location"].endswith("own.db")
    assert sessions_in(f"sqlite:///{tmp_path / 'own.db'}") == []


def test_kept_sessions_can_be_looked_at(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", "--keep")
    look = json.loads(done.stdout)["kept"]
    assert re.fullmatch(r"cd \S+ && perdure show demo-\w{6} --kind demo", look)
    folder, session = look.split()[1], look.split()[5]
    assert sessions_in(f"sqlite:///{folder}/.perdure/sessions.db") == [
        session,
        f"{session}-fork",
        f"{session}-long",
    ]


def test_a_store_that_does_not_outlive_a_process_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--url", "memory://")
    assert (done.returncode, done.stdout) == (2, "")
    assert "this store does not outlive a process" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("This is no database. " * 100)
    done = run(tmp_path, "--url", "sqlite:///notes.txt")
    assert done.returncode == 1
    assert done.stderr.startswith("perdure: demo: ")
    assert "notes.txt" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str
)
def test_an_interrupted_demo_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with running(tmp_path) as demo:
        demo.until("turn  2")
        demo.process.send_signal(number)
        assert demo.end() == (status, "")
    assert len(demo.pids) == 2
    assert not any(is_running(pid) for pid in demo.pids)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_demo_leaves_no_sessions_in_a_given_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    with running(tmp_path, "--url", url) as demo:
        demo.until("turn  2")
        assert len(sessions_in(url)) == 1
        demo.process.send_signal(signal.SIGINT)
        assert demo.end() == (130, "")
    assert sessions_in(url) == []


def test_a_killed_demo_takes_its_processes_with_it(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        demo.until("turn  1")
        demo.process.kill()
        demo.end()
    assert len(demo.pids) == 2
    assert eventually(lambda: not any(is_running(pid) for pid in demo.pids))
