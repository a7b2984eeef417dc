"""``perdure demo`` as a whole: real processes, a real SIGKILL, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

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


def is_running(pid: int) -> bool:
    """Whether a process is at work: one that has died and waits to be reaped is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(") ")[2][0] != "Z"


def processes_in(line: str) -> set[int]:
    return {int(pid) for pid in re.findall(r"process (\d+)", line)}


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
    assert len(summary["proof"]) == 7
    assert all(verdict["ok"] for verdict in summary["proof"])
    assert not is_running(summary["killed_pid"])
    assert summary["acknowledged_before_kill"] >= 11
    assert summary["resumed_at_turn"] > 5
    assert summary["seen"] == 30  # every entry of every turn of the session


def test_a_late_turn_of_a_long_session_writes_about_what_an_early_one_does(
    summary: dict[str, Any],
) -> None:
    long_session = summary["long_session"]
    assert long_session["turns"] == 1000
    if long_session["meter"] is None:
        pytest.skip("this system offers no way to measure bytes written")
    assert long_session["first_bytes"] > 500
    assert long_session["ratio"] < 2


def test_plain_output_tells_the_story_and_has_no_escape_codes(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("agent 1") and "SIGKILL" in line for line in lines)
    assert any(line.startswith("agent 2") and "finds" in line for line in lines)
    assert any(line.startswith("watcher") and "t15.1" in line for line in lines)
    assert any(line.startswith("figure\tturn 1,000 / turn 1\t") for line in lines)
    assert lines[-1] == "verdict\tproved"


def test_on_a_terminal_every_process_has_its_panel(tmp_path: Path) -> None:
    shown = run_in_terminal("demo", cwd=tmp_path, width=130)
    assert shown.code == 0
    text = plain(shown.out)
    assert re.search(r"╭─+ agent 1 ─+╮╭─+ agent 2 ─+╮╭─+ watcher ─+╮", text)
    assert "│ SIGKILL: process" in text
    assert text.rstrip().endswith("Nothing acknowledged was lost.")


def test_the_demo_uses_the_store_it_is_given_and_cleans_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    assert run(tmp_path, "--url", url, "--json").returncode == 0
    left = subprocess.run(
        [sys.executable, "-m", "perdure_cli", "-u", url, "--kind", "demo", "ls", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert left.stdout == ""


def test_kept_sessions_can_be_looked_at(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", "--keep")
    (folder,) = tmp_path.iterdir()
    assert done.stderr == f"kept: cd {folder} && perdure ls --kind demo\n"
    listed = subprocess.run(
        [sys.executable, "-m", "perdure_cli", "ls", "--kind", "demo", "--json"],
        cwd=folder,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    ids = [json.loads(line)["session"] for line in listed.stdout.splitlines()]
    assert [id[11:] for id in ids] == ["", "-fork", "-long"]


def test_a_store_that_does_not_outlive_a_process_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--url", "memory://")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("perdure: the demo needs a store that outlives a process")
    assert done.stderr.count("\n") == 1


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND,
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pids: set[int] = set()
    for line in process.stdout:
        pids |= processes_in(line)
        if "turn  2" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")
    assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_demo_takes_its_processes_with_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pids: set[int] = set()
    while len(pids) < 2:
        line = process.stdout.readline()
        pids |= processes_in(line)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in pids)
