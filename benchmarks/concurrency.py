"""32 sessions at once, in a process of its own, so that its fsyncs can be slowed down.

``python -m benchmarks.concurrency`` is that process: it takes a :class:`Plan` as JSON on
standard input and prints the rates as JSON.
"""

import asyncio
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import msgspec

from benchmarks.contenders import Contender, bare, memory, sqlite
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.slow_fsync import SlowDisk, delay_commits
from benchmarks.table import Row, Target, Values
from benchmarks.workload import Turn, Workload

SESSIONS = 32

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
        [sys.executable, "-m", "benchmarks.concurrency"],
        input=msgspec.json.encode(plan),
        stdout=subprocess.PIPE,
        env=disk.environment(delay_ms),
        check=True,
    )
    rates = msgspec.json.decode(child.stdout, type=Values)
    return Row(
        measure=f"{SESSIONS} sessions" + (f", fsync +{delay_ms:g} ms" if delay_ms else ""),
        unit="appends/s",
        values=rates,
        judged=rates["sqlite"] / rates["bare"],
        target=TARGETS.get(delay_ms),
    )


async def _rates(plan: Plan) -> Values:
    samples = Samples[str]()
    workload = Workload(plan.seed)
    with TemporaryDirectory(dir=plan.directory) as name:
        directory = Path(name)
        contenders = (bare(directory), sqlite(directory), memory())
        for contender in contenders:
            await contender.open()
        for round_ in range(plan.rounds + 1):
            turns = workload.turns(plan.turns)
            settle()
            for contender in rotated(contenders, round_):
                started = perf_counter()
                await asyncio.gather(
                    *[_append_all(contender, f"session-{n}", turns) for n in range(SESSIONS)]
                )
                if round_:  # the first creates the sessions
                    rate = SESSIONS * plan.turns / (perf_counter() - started)
                    samples.add(contender.name, rate)
        for contender in contenders:
            await contender.close()
    return {contender.name: samples.median(contender.name) for contender in contenders}


async def _append_all(contender: Contender, session: str, turns: list[Turn]) -> None:
    for turn in turns:
        await contender.append(session, turn)


def _child() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    if plan.commit_delay_ms:
        delay_commits(plan.commit_delay_ms)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_rates(plan))))


if __name__ == "__main__":
    _child()
