"""Many sessions at once on SQLite, in a process of its own, so that fsyncs can be slowed down.

``python -m benchmarks.sqlite_concurrency`` is that process: it takes a :class:`Plan` as JSON
on standard input and prints the rates as JSON.
"""

import asyncio
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.bare_sqlite import BareSqlite
from benchmarks.concurrency import SESSIONS, rates
from benchmarks.contenders import memory, sqlite
from benchmarks.slow_fsync import SlowDisk, delay_commits
from benchmarks.table import Row, Target, Values
from benchmarks.workload import Workload

TARGETS = {0.0: Target(2.5, at_least=True), 2.0: Target(5, at_least=True)}
"""By how many ms an fsync is slower than it is here."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure, and how slow commits are made in Python."""

    directory: str
    seed: int
    turns: int
    """Per session, round and contender."""
    rounds: int
    commit_delay_ms: float = 0


def measure(plan: Plan, disk: SlowDisk, delay_ms: float) -> Row:
    """The row at one speed of fsync."""
    plan = msgspec.structs.replace(plan, commit_delay_ms=disk.in_python(delay_ms))
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.sqlite_concurrency"],
        input=msgspec.json.encode(plan),
        stdout=subprocess.PIPE,
        env=disk.environment(delay_ms),
        check=True,
    )
    values = msgspec.json.decode(child.stdout, type=Values)
    return Row(
        measure=f"{SESSIONS} sessions" + (f", fsync +{delay_ms:g} ms" if delay_ms else ""),
        unit="appends/s",
        values=values,
        judged=values["sqlite"] / values["bare"],
        target=TARGETS.get(delay_ms),
    )


async def _local(plan: Plan) -> Values:
    with TemporaryDirectory(dir=plan.directory) as name:
        directory = Path(name)
        contenders = (BareSqlite(directory), sqlite(directory), memory())
        for contender in contenders:
            await contender.open()
        values = await rates(contenders, Workload(plan.seed), plan.turns, plan.rounds)
        for contender in contenders:
            await contender.close()
    return values


def _child() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    if plan.commit_delay_ms:
        delay_commits(plan.commit_delay_ms)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_local(plan))))


if __name__ == "__main__":
    _child()
