"""Slow commits without a C compiler: every commit that writes waits, whoever makes it."""

from pathlib import Path

from benchmarks.slow_fsync import SlowDisk
from benchmarks.sqlite_concurrency import Plan, measure


def test_without_a_library_the_child_delays_its_commits_itself(tmp_path: Path) -> None:
    plan = Plan(directory=str(tmp_path), seed=1, turns=2, rounds=1)
    row = measure(plan, SlowDisk("in Python"), 2)
    assert row.measure == "32 sessions, fsync +2 ms"
    assert row.values["bare"] < 500
    assert row.values["sqlite"] < 32 * 500
    assert list(tmp_path.iterdir()) == []
