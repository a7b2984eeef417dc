"""The benchmark command runs to its end, and its table says what it promises to say."""

import subprocess
import sys

import msgspec
import pytest

from benchmarks.table import HEADER, Target
from tests.quality.workspace import ROOT

TARGETS = {
    "append, p50": Target(1.5),
    "append, p50: 6 / 3 turns": Target(1.15),
    "warm turn / append": Target(1.5),
    "full load, cold": Target(1.3),
    "last 20 items, cold: 6 / 3 turns": Target(1.15),
    "written per turn: 6 / 3 turns": Target(1.15),
    "32 sessions": Target(2.5, at_least=True),
    "32 sessions, fsync +2 ms": Target(5, at_least=True),
    "backend commit, CPU": Target(30),
    "Session.append, CPU": Target(80),
    "import perdure over bare start": Target(60),
    "discovery of plugins, on top": Target(10),
    "drivers that both import": Target(0),
}
"""The speed to be reached, by measure."""

AT_EACH_LENGTH = {
    "append, p50": {"bare", "sqlite", "memory"},
    "append, p99": {"bare", "sqlite", "memory"},
    "warm turn, p50": {"sqlite", "memory"},
    "warm turn / append": {"sqlite", "memory"},
    "full load, cold": {"bare", "sqlite", "memory"},
    "last 20 items, cold": {"bare", "sqlite", "memory"},
    "written per turn": {"bare", "sqlite"},
    "stored per turn": {"bare", "sqlite"},
}
"""Whose figures a row holds, by measure."""


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A row as ``--json`` writes it."""

    measure: str
    unit: str
    turns: int | None
    values: dict[str, float]
    judged: float | None
    target: Target | None
    verdict: str


class Result(msgspec.Struct):
    """What the command printed and wrote."""

    text: str
    rows: list[Line]
    notes: list[str]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    directory = tmp_path_factory.mktemp("benchmarks")
    file = directory / "table.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--turns", "6,3"]
    done = subprocess.run(
        [*command, "--dir", str(directory), "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(directory.iterdir()) == [file]
    written = msgspec.json.decode(file.read_bytes())
    return msgspec.convert({"text": done.stdout, **written}, Result)


def test_every_target_is_a_judged_row(result: Result) -> None:
    judged = {row.measure: row for row in result.rows if row.target is not None}
    assert {measure: row.target for measure, row in judged.items()} == TARGETS
    assert {row.verdict for row in judged.values()} <= {"ok", "missed"}
    assert all(row.judged is not None for row in judged.values())


def test_each_length_has_its_rows_with_the_figures_of_every_contender(result: Result) -> None:
    for turns in (3, 6):
        rows = {row.measure: row for row in result.rows if row.turns == turns}
        assert {measure: set(row.values) for measure, row in rows.items()} == AT_EACH_LENGTH
        assert all(value > 0 for row in rows.values() for value in row.values.values())


def test_a_turn_writes_at_least_itself(result: Result) -> None:
    for row in result.rows:
        if row.measure in ("written per turn", "stored per turn"):
            assert min(row.values.values()) > 2


def test_the_slow_fsync_slows_down_the_one_that_waits_for_each(result: Result) -> None:
    (slow,) = [row for row in result.rows if row.measure.endswith("fsync +2 ms")]
    assert slow.values["bare"] < 500


def test_finding_the_plugins_imports_no_driver(result: Result) -> None:
    (row,) = [row for row in result.rows if row.measure == "drivers that both import"]
    assert row.verdict == "ok"


def test_what_is_printed_to_a_pipe_is_one_plain_table(result: Result) -> None:
    table, _, notes = result.text.partition("\n\n")
    header, *lines = table.splitlines()
    assert header.split() == " ".join(HEADER).split()
    assert [line.split("  ")[0] for line in lines] == [row.measure for row in result.rows]
    assert notes.splitlines() == result.notes
    assert "\x1b" not in result.text


def test_a_length_that_is_none_is_refused() -> None:
    for bad in ("0", "ten", ""):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--turns", bad],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "--turns" in done.stderr
