"""The command: measures everything, prints one table."""

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import msgspec

from benchmarks import concurrency, disk, lengths, processor, startup
from benchmarks.slow_fsync import fsync_seconds, slow_disk
from benchmarks.table import Row, show

SEED = 20261122


class Effort(msgspec.Struct, frozen=True):
    """How often each thing is measured."""

    visits: int
    loads: int
    appends: int
    blocks: int
    rounds: int
    turns: int
    slow_turns: int
    runs: int


FULL = Effort(
    visits=100, loads=15, appends=500, blocks=25, rounds=7, turns=50, slow_turns=10, runs=25
)
QUICK = Effort(visits=3, loads=1, appends=20, blocks=2, rounds=1, turns=3, slow_turns=2, runs=2)


class Report(msgspec.Struct, frozen=True):
    """The table, and what to know about it."""

    rows: list[Row]
    notes: list[str]


def main() -> None:
    """Run the command with the arguments of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures perdure on its memory and SQLite backends against bare sqlite3 "
        "and msgspec doing the same writes, interleaved, and prints one table.",
    )
    parser.add_argument(
        "--turns",
        type=_lengths,
        default=(10, 1000, 5000),
        metavar="N,N,...",
        help="lengths of sessions to measure at (default: 10,1000,5000)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="too few measurements to mean anything"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="DIRECTORY",
        help="put the databases there (default: the system's temporary directory)",
    )
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="perdure-bench-", dir=arguments.dir) as directory:
        report = run(effort, arguments.turns, Path(directory))
    show(report.rows, report.notes)
    if arguments.json is not None:
        arguments.json.write_bytes(
            msgspec.json.format(msgspec.json.encode(_with_verdicts(report)))
        )


def run(effort: Effort, turns: tuple[int, ...], directory: Path) -> Report:
    """Measure everything. ``directory`` is empty and takes the databases."""
    load = _load()
    slow = slow_disk(directory)
    fsync = fsync_seconds(directory)
    rows: list[Row] = []
    with _step("appends, turns and loads"):
        plan = lengths.Plan(turns, visits=effort.visits, loads=effort.loads)
        folder = _folder(directory, "lengths")
        rows += asyncio.run(lengths.measure(plan, folder, SEED))
    with _step("bytes"):
        folder = _folder(directory, "disk")
        rows += asyncio.run(disk.measure(turns, effort.appends, folder, SEED))
    for delay_ms in (0, 0.1, 2):
        with _step(f"32 sessions at once, fsync +{delay_ms:g} ms"):
            plan = concurrency.Plan(
                directory=str(directory),
                seed=SEED,
                turns=effort.slow_turns if delay_ms >= 1 else effort.turns,
                rounds=effort.rounds,
            )
            rows.append(concurrency.measure(plan, slow, delay_ms))
    with _step("CPU time"):
        rows += asyncio.run(processor.measure(effort.blocks, SEED))
    with _step("start-up"):
        started, plugins = startup.measure(effort.runs)
        rows += started
    missed = [row for row in rows if row.verdict == "missed"]
    judged = [row for row in rows if row.verdict]
    notes = [
        f"{len(judged) - len(missed)} of {len(judged)} targets met.",
        "bare: sqlite3 and msgspec, one INSERT per turn, in a thread. sqlite, memory: perdure.",
        "SQLite: WAL and synchronous=FULL, bare and perdure. All is interleaved in one run.",
        "judged: sqlite / bare; of 'turn / append' and of long to short sessions the worse of "
        "ours; else the value itself.",
        f"An fsync of 8 KiB takes {1e6 * fsync:.0f} µs here. {slow.how}",
        disk.HOW,
        plugins,
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"msgspec {msgspec.__version__}, {platform.system()} {platform.machine()}.",
    ]
    if load is not None and load > 0.5:
        notes.append(
            f"Others were using this machine ({load:.1f} processes ready to run per CPU before "
            "the start): waits for a CPU or the disk are in these figures."
        )
    return Report(rows, notes)


def _load() -> float | None:
    """How busy the machine is: the load average of a minute per CPU."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (OSError, AttributeError):  # not on Windows
        return None


def _with_verdicts(report: Report) -> dict[str, object]:
    rows = [{**msgspec.structs.asdict(row), "verdict": row.verdict} for row in report.rows]
    return {"rows": rows, "notes": report.notes}


def _lengths(text: str) -> tuple[int, ...]:
    """Lengths of sessions, ascending."""
    values = sorted({int(part) for part in text.split(",")})
    if values[0] < 1:
        raise argparse.ArgumentTypeError("a session has at least one turn")
    return tuple(values)


def _folder(directory: Path, name: str) -> Path:
    folder = directory / name
    folder.mkdir()
    return folder


@contextmanager
def _step(what: str) -> Generator[None]:
    """Say on standard error what is being done, and how long it took."""
    print(f"bench: {what} ...", end="", file=sys.stderr, flush=True)
    started = perf_counter()
    yield
    print(f" {perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
