"""SQLite and memory: everything that is measured without a server."""

import asyncio
import sqlite3
from pathlib import Path

from benchmarks import disk, lengths, sqlite_concurrency
from benchmarks.bare_sqlite import BareSqlite
from benchmarks.contenders import memory, sqlite
from benchmarks.effort import Effort, step
from benchmarks.slow_fsync import fsync_seconds, slow_disk
from benchmarks.table import Row, Table
from benchmarks.workload import Workload


def measure(effort: Effort, directory: Path, seed: int) -> Table:
    """The table. ``directory`` takes the databases."""
    slow = slow_disk(directory)
    fsync = fsync_seconds(directory)
    rows: list[Row] = []
    with step("sqlite: appends, turns and loads"):
        rows += asyncio.run(_by_length(effort, _folder(directory, "lengths"), seed))
    with step("sqlite: bytes"):
        folder = _folder(directory, "disk")
        rows += asyncio.run(disk.measure(effort.lengths, effort.appends, folder, seed))
    for delay_ms in (0, 0.1, 2):
        with step(f"sqlite: 32 sessions at once, fsync +{delay_ms:g} ms"):
            plan = sqlite_concurrency.Plan(
                directory=str(directory),
                seed=seed,
                turns=effort.slow_turns if delay_ms >= 1 else effort.turns,
                rounds=effort.rounds,
            )
            rows.append(sqlite_concurrency.measure(plan, slow, delay_ms))
    notes = [
        "bare: sqlite3 and msgspec, one INSERT per turn, in a thread. sqlite, memory: perdure.",
        "SQLite: WAL and synchronous=FULL, bare and perdure.",
        f"An fsync of 8 KiB takes {1e6 * fsync:.0f} µs here. {slow.how}",
        disk.HOW,
        f"SQLite {sqlite3.sqlite_version}.",
    ]
    return Table("sqlite", ("bare", "sqlite", "memory"), rows, notes)


async def _by_length(effort: Effort, directory: Path, seed: int) -> list[Row]:
    workload = Workload(seed)
    contenders = (BareSqlite(directory), sqlite(directory), memory())
    sessions = effort.plan.filling(workload)
    for contender in contenders:
        await contender.fill(sessions)
        await contender.open()
    del sessions
    rows = await lengths.measure(effort.plan, contenders, workload, lengths.Limits(append=1.5))
    for contender in contenders:
        await contender.close()
    return rows


def _folder(directory: Path, name: str) -> Path:
    folder = directory / name
    folder.mkdir()
    return folder
