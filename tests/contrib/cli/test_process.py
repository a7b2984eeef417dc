"""The command as a process of its own: pipes, signals, closed streams, exit codes."""

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from perdure_cli import __version__
from tests.contrib.cli.command import COMMAND, environment, run_in_terminal, run_process

URL = "sqlite:///sessions.db"


def appended(count: int, *, first: int = 0) -> str:
    """JSON Lines of messages."""
    return "".join(
        json.dumps({"role": "user", "content": f"message {n}"}) + "\n"
        for n in range(first, first + count)
    )


@contextmanager
def running(*arguments: str, cwd: Path) -> Generator[subprocess.Popen[str]]:
    """The command in pipes, killed at the end if it still runs."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_first_session_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text(appended(3))
    done = run_process("import", "chat.jsonl", cwd=tmp_path)
    assert done.rows == [["chat", "3", "0", "OpenAI chat messages", "chat.jsonl"]]
    assert [row[0] for row in run_process("ls", cwd=tmp_path).rows] == ["chat"]
    exported = run_process("export", cwd=tmp_path)
    assert run_process("rm", "--yes", "chat", cwd=tmp_path).out == "deleted chat\n"
    assert run_process("ls", cwd=tmp_path).out == ""
    done = run_process("import", "--json", "-", cwd=tmp_path, stdin=exported.out.encode())
    assert done.json[0]["added"] == 3
    shown = run_process("tail", "chat", cwd=tmp_path).rows
    assert [json.loads(row[1])["content"] for row in shown] == [
        "message 0",
        "message 1",
        "message 2",
    ]


def test_the_version_is_told_without_loading_anything(tmp_path: Path) -> None:
    done = run_process("--version", cwd=tmp_path)
    assert (done.code, done.out) == (0, f"perdure {__version__}\n")
    assert run_process("ls", "--version", cwd=tmp_path).code == 2


def test_the_command_alone_prints_its_help(tmp_path: Path) -> None:
    alone = run_process(cwd=tmp_path)
    assert alone.code == 0
    assert alone.out == run_process("--help", cwd=tmp_path).out
    assert "..." not in alone.out.replace("[ARGS]...", "")
    assert list(tmp_path.iterdir()) == []


def test_output_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    text = '{"role":"user","content":"Grüße 👋"}\n'
    done = run_process(
        "import", "--id", "ü", "-", cwd=tmp_path, stdin=text.encode(), LC_ALL="C"
    )
    assert done.rows[0][0] == "ü"
    assert text.strip() in run_process("tail", "ü", cwd=tmp_path, LC_ALL="C").out


def test_rm_needs_yes_where_it_cannot_ask(tmp_path: Path) -> None:
    run_process("import", "--id", "a", "-", cwd=tmp_path, stdin=appended(1).encode())
    said = run_process("rm", "a", cwd=tmp_path).error(2)
    assert said == "rm deletes for good: without a terminal to ask on, give --yes"
    assert run_process("ls", cwd=tmp_path).rows[0][0] == "a"


def test_a_closed_pipe_ends_the_command_quietly(tmp_path: Path) -> None:
    text = appended(5000).encode()
    assert run_process("import", "--id", "a", "-", cwd=tmp_path, stdin=text).code == 0
    for line in ("show a", "show --json a", "export", "tail -n5000 a"):
        with running(*line.split(), cwd=tmp_path) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(timeout=30) == 141


def test_streams_that_are_closed_do_no_harm(tmp_path: Path) -> None:
    def sh(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line.replace("perdure", f"{sys.executable} -m perdure_cli")],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert sh("perdure backends >&-").returncode == 0
    assert sh("perdure import - <&-").stderr == "perdure: <stdin> is empty\n"
    assert sh("perdure show missing 2>&-").returncode == 1
    if Path("/dev/full").exists():
        full = sh("perdure backends >/dev/full")
        assert full.returncode == 1
        assert full.stderr == "perdure: standard output: No space left on device\n"


def test_followed_entries_come_as_another_process_writes_them(tmp_path: Path) -> None:
    with running("tail", "--follow", "--json", "a", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "perdure: there is no session 'a' yet; waiting for it\n"
        )
        for first in (0, 2):
            path = tmp_path / "a.jsonl"
            path.write_text(appended(first + 2))
            assert run_process("import", path, cwd=tmp_path).code == 0
            for number in (first, first + 1):
                value = json.loads(process.stdout.readline())["value"]
                assert value["content"] == f"message {number}"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""


def test_following_ends_with_the_session(tmp_path: Path) -> None:
    run_process("import", "--id", "a", "-", cwd=tmp_path, stdin=appended(1).encode())
    with running("tail", "--follow", "a", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        run_process("rm", "--yes", "a", cwd=tmp_path)
        assert process.stderr.readline() == "perdure: session 'a' was deleted while watched\n"
        assert process.wait(timeout=30) == 1


def test_an_import_that_is_killed_is_completed_by_the_next(tmp_path: Path) -> None:
    count = 40_000
    (tmp_path / "a.jsonl").write_text(appended(count))
    log = tmp_path / ".perdure" / "sessions.db-wal"
    with running("import", "a.jsonl", cwd=tmp_path) as process:
        while not (log.exists() and log.stat().st_size > 200_000):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    ((_, added, present, *_),) = run_process("import", "a.jsonl", cwd=tmp_path).rows
    assert int(added) + int(present) == count
    assert 0 < int(present) < count
    (shown,) = run_process("show", "--json", "a", cwd=tmp_path).json
    assert [entry["value"]["content"] for entry in shown["entries"]] == [
        f"message {n}" for n in range(count)
    ]


def test_a_store_of_a_newer_format_and_a_corrupt_one_are_refused(tmp_path: Path) -> None:
    run_process("import", "--id", "a", "-", cwd=tmp_path, stdin=appended(50).encode())
    file = tmp_path / ".perdure" / "sessions.db"
    with sqlite3.connect(file) as database:
        (format,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {format + 1}")
    database.close()
    assert "newer" in run_process("ls", cwd=tmp_path).error()

    data = bytearray(file.read_bytes())
    data[100:] = os.urandom(len(data) - 100)
    file.write_bytes(data)
    run_process("ls", cwd=tmp_path).error()


def test_memory_does_not_grow_with_what_is_imported_and_exported(tmp_path: Path) -> None:
    # What cannot be compressed, so that no cache could hide it.
    random = Random(7)
    rows = [
        json.dumps(
            {"role": "user", "content": base64.b64encode(random.randbytes(1440)).decode()}
        )
        for _ in range(10_000)
    ]
    (tmp_path / "small.jsonl").write_text("\n".join(rows[:500]))
    (tmp_path / "large.jsonl").write_text("\n".join(rows))
    size = (tmp_path / "large.jsonl").stat().st_size
    assert size > 19_000_000
    measure = textwrap.dedent(
        """
        import sys, tracemalloc
        from perdure_cli.main import run
        tracemalloc.start()
        code = run(sys.argv[1:])
        print(tracemalloc.get_traced_memory()[1], code, file=sys.stderr)
        """
    )

    def peak(*arguments: str) -> int:
        """The most bytes that Python held."""
        done = subprocess.run(
            [sys.executable, "-c", measure, *arguments, "--url", URL],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        held, code = done.stderr.splitlines()[-1].split()
        assert code == "0", done.stderr
        return int(held)

    assert peak("import", "large.jsonl") - peak("import", "small.jsonl") < size * 0.6
    # The second time everything is compared with what is there.
    assert peak("import", "large.jsonl") - peak("import", "small.jsonl") < size / 4
    assert peak("export", "-o", "l", "large") - peak("export", "-o", "s", "small") < size / 4
    with (tmp_path / "l").open() as lines:
        assert sum(1 for _ in lines) == 10_002


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("y\n", False), ("\x04", True)])
def test_rm_asks_on_a_terminal(tmp_path: Path, answer: str, left: bool) -> None:
    run_process("import", "--id", "a", "-", cwd=tmp_path, stdin=appended(1).encode())
    asked = run_in_terminal("rm", "a", cwd=tmp_path, typed=answer)
    assert "Delete a for good? [y/N]:" in asked.out
    assert "Traceback" not in asked.out
    assert ("deleted a" in asked.out) != left
    assert (asked.code == 0) != left
    assert bool(run_process("ls", cwd=tmp_path).rows) is left
