"""``perdure copy``: what it says, and that it may be stopped at any moment and run again."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure import Store

from tests.contrib.cli.command import (
    COMMAND,
    Command,
    environment,
    plain,
    run_in_terminal,
    run_process,
)
from tests.core.copies import everything


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The URL of a second store."""
    return f"sqlite:///{tmp_path / 'other.db'}?synchronous=normal"


def put(
    url: str,
    count: int,
    *,
    entries: int = 1,
    tenants: tuple[str, ...] = ("t0", "t1", "t2"),
) -> None:
    """So many sessions of these tenants in turn; the first is larger than the others."""

    async def write() -> None:
        async with Store(url) as store:
            for n in range(count):
                tenant = store.tenant(tenants[n % len(tenants)])
                await tenant.session(f"s{n:04}").append(*range(entries))
            large = store.tenant(tenants[0]).session("s0000")
            for _ in range(10):
                await large.append(random.randbytes(1 << 20))

    asyncio.run(write())


def same(one: str, other: str) -> bool:
    """Whether two stores answer the same."""

    async def compare() -> bool:
        async with Store(one) as here, Store(other) as there:
            return await everything(here) == await everything(there)

    return asyncio.run(compare())


def test_sessions_are_copied_and_told_in_columns(command: Command, other: str) -> None:
    command.put("a", 1, 2)
    command.put("b", "x")
    done = command.bare("copy", command.url, other)
    assert done.code == 0
    assert sorted(row[:6] for row in done.rows) == [
        ["a", "default", "session", "copied", "1", "1"],
        ["b", "default", "session", "copied", "1", "1"],
    ]
    assert done.err.startswith("2 sessions copied; ")
    assert done.err.endswith(" B read\n")
    again = command.bare("copy", command.url, other)
    assert {row[3] for row in again.rows} == {"present"}
    assert again.err == "0 sessions copied, 2 there already; 0 B read\n"
    assert same(command.url, other)


def test_as_json_each_session_is_an_object_with_its_digest(
    command: Command, other: str
) -> None:
    command.put("a", 1, 2)
    (first,) = command.bare("copy", "--json", command.url, other).json
    assert first | {"digest": "", "bytes": 0} == {
        "session": "a",
        "tenant": "default",
        "kind": "session",
        "fate": "copied",
        "version": 1,
        "items": 1,
        "bytes": 0,
        "digest": "",
        "reason": None,
    }
    (again,) = command.bare("copy", "--json", "--verify", command.url, other).json
    assert again == first | {"fate": "present"}
    assert len(again["digest"]) == 64


def test_what_is_refused_is_said_and_the_exit_code_shows_it(
    command: Command, other: str
) -> None:
    command.put("a", 1)
    command.put("b", 1)
    command.bare("copy", command.url, other)
    mine = Command(other, command.capsys)
    mine.put("a", "mine")
    command.put("b", 2)
    done = command.bare("copy", command.url, other)
    assert done.code == 1
    (size,) = (row[6] for row in done.rows if row[0] == "b")
    assert done.err.splitlines() == [
        "perdure: refused: 'a' (default, session): it is there, and not as an earlier copy "
        "left it",
        f"0 sessions copied, 1 brought up to date, 1 refused; {size} B read",
        "what was refused is left as it is; --overwrite replaces it",
    ]
    assert mine.log("a") == [1, "mine"]
    assert mine.log("b") == [1, 2]
    assert command.bare("copy", "--overwrite", command.url, other).code == 0
    assert mine.log("a") == [1]


def test_tenants_kinds_and_ids_are_chosen(command: Command, other: str) -> None:
    put(command.url, 9)
    for arguments, expected in (
        (("--tenant", "t1", "--prefix", "s000"), {"s0001", "s0004", "s0007"}),
        (
            ("--tenant", "t1", "--tenant", "t2", "--kind", "session", "--prefix", "s0002"),
            {"s0002"},
        ),
        (
            (
                "--kind",
                "none",
            ),
            set[str](),
        ),
        ((), {"s0000", "s0003", "s0005", "s0006", "s0008"}),
    ):
        done = command.bare("copy", command.url, other, *arguments)
        assert {row[0] for row in done.rows if row[3] == "copied"} == expected
        assert (done.err == "there is nothing at SRC to copy\n") is (not expected)
    put(command.url, 1)
    done = command.bare("--tenant", "t2", "copy", command.url, other)
    assert {row[1] for row in done.rows} == {"t2"}


def test_stores_that_cannot_be_copied_are_refused_as_a_wrong_call(
    command: Command, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.put("a", 1)
    monkeypatch.chdir(tmp_path)
    for url in (command.url, "sqlite:///sessions.db", f"sqlite:///{tmp_path}/./sessions.db"):
        assert command.bare("copy", command.url, url).error(2) == (
            "SRC and DST are the same store"
        )
    ends = "is in this process only, and ends with it"
    assert command.bare("copy", command.url, "memory://").error(2) == f"DST {ends}"
    assert command.bare("copy", "memory://", other).error(2) == f"SRC {ends}"
    assert "not by --url" in command.bare("--url", other, "copy", other, other).error(2)
    command.bare("copy", command.url, "nonsense").error(1)
    assert not (tmp_path / "other.db").exists()


def test_a_target_that_goes_away_is_one_line_and_what_is_done_stays(
    command: Command, other: str, tmp_path: Path
) -> None:
    put(command.url, 3)
    command.bare("copy", command.url, other)
    command.put("more", 1)
    (tmp_path / "other.db").write_bytes(b"not a database at all" * 1000)
    said = command.bare("copy", command.url, other).error()
    assert "other.db" in said


@contextmanager
def copying(one: str, other: str, cwd: Path) -> Generator[subprocess.Popen[str]]:
    """A copy in a process of its own."""
    with subprocess.Popen(
        [*COMMAND, "copy", one, other],
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


def test_a_copy_that_is_killed_again_and_again_is_completed(
    url: str, other: str, tmp_path: Path
) -> None:
    put(url, 200, entries=20)
    for done in (0, 5, 60):
        with copying(url, other, tmp_path) as process:
            assert process.stdout is not None
            for _ in range(done + 1):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    last = run_process("copy", url, other, cwd=tmp_path)
    fates = [row[3] for row in last.rows]
    assert last.code == 0
    assert fates.count("copied") + fates.count("present") == 200
    assert 0 < fates.count("present") < 200
    assert same(url, other)


def test_an_interrupted_copy_says_how_to_go_on(url: str, other: str, tmp_path: Path) -> None:
    put(url, 200)
    with copying(url, other, tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        said = process.stderr.read()
    assert said.startswith("interrupted; ")
    assert said.endswith("what is copied stays; run the command again to go on\n")
    assert said.count("\n") == 1
    assert run_process("copy", url, other, cwd=tmp_path).code == 0
    assert same(url, other)


def test_a_terminal_shows_what_went_wrong_and_the_sum(
    command: Command, other: str, tmp_path: Path
) -> None:
    command.put("a", 1)
    command.put("b", 1)
    Command(other, command.capsys).put("b", "mine")
    shown = plain(run_in_terminal("copy", command.url, other, cwd=tmp_path).out)
    assert shown.splitlines()[:2] == [
        "perdure: refused: 'b' (default, session): another session of this name is there",
        "1 session copied, 1 refused; 42 B read",
    ]


SLOW = """
import sys, time
from perdure.testing.faults import Forwarding
from perdure_memory.backend import MemoryBackend
from perdure_cli.main import run

class Slow(Forwarding):
    async def stage(self, *arguments):
        time.sleep(0.6)
        await super().stage(*arguments)

import perdure_sqlite.url as url
open_url = url.open_url
url.open_url = lambda url: Slow(open_url(url))
sys.exit(run(sys.argv[1:]))
"""


def test_a_long_copy_shows_its_progress(url: str, other: str, tmp_path: Path) -> None:
    put(url, 2)
    slow = (sys.executable, "-c", SLOW)
    shown = run_in_terminal("copy", url, other, cwd=tmp_path, command=slow)
    assert shown.code == 0
    assert "copying" in shown.out
    assert "/? sessions" in plain(shown.out)  # how many there are nobody knows beforehand
    assert "MiB" in plain(shown.out).split("sessions copied")[0]
    assert plain(shown.out).splitlines()[-1] == "2 sessions copied; 10.0 MiB read"


def test_the_environment_names_no_store_for_a_copy(
    command: Command, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PERDURE_URL", other)
    assert command.bare("copy", other).error(2).startswith("missing argument 'DST'")
