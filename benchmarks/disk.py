"""What a turn writes to disk, and what it leaves there."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from benchmarks.bare_sqlite import BareSqlite
from benchmarks.contenders import Contender, sqlite
from benchmarks.table import Row, Target
from benchmarks.workload import Workload

PROCESS_IO = Path("/proc/self/io")
"""Linux counts here what a process writes: https://docs.kernel.org/filesystems/proc.html."""

COUNTED = PROCESS_IO.exists()

HOW = (
    "Bytes written: all that the process writes (wchar of /proc/self/io), checkpoints included."
    if COUNTED
    else "Bytes written: the growth of the write-ahead log, checkpoints not included."
)

WITHOUT_CHECKPOINT = 100
"""After so few turns no contender has moved its log into the database yet."""

CONTENDERS: dict[str, Callable[[Path], Contender]] = {"bare": BareSqlite, "sqlite": sqlite}


async def measure(
    lengths: tuple[int, ...], appends: int, directory: Path, seed: int
) -> list[Row]:
    """The rows on bytes, over ``appends`` turns more at each length."""
    written: dict[tuple[str, int], float] = {}
    stored: dict[tuple[str, int], float] = {}
    for turns in lengths:
        for name, make in CONTENDERS.items():
            folder = directory / f"{name}-{turns}"
            folder.mkdir()
            workload = Workload(seed)
            contender = make(folder)
            await contender.fill({"session": workload.turns(turns)})
            size = sum(file.stat().st_size for file in folder.iterdir())
            stored[name, turns] = size / turns / 1024
            written[name, turns] = await _written(contender, folder, workload, appends)
    growth = {
        name: written[name, lengths[-1]] / written[name, lengths[0]] for name in CONTENDERS
    }
    return [
        *(
            Row(
                measure="written per turn",
                turns=turns,
                unit="KiB",
                values={name: written[name, turns] for name in CONTENDERS},
            )
            for turns in lengths
        ),
        Row(
            measure=f"written per turn: {lengths[-1]:,} / {lengths[0]:,} turns",
            unit="×",
            values=growth,
            judged=growth["sqlite"],
            target=Target(1.15),
        ),
        *(
            Row(
                measure="stored per turn",
                turns=turns,
                unit="KiB",
                values={name: stored[name, turns] for name in CONTENDERS},
            )
            for turns in lengths
        ),
    ]


async def _written(
    contender: Contender, folder: Path, workload: Workload, appends: int
) -> float:
    """KiB that appending one turn writes, on average. Opens and closes."""
    batch = workload.turns(appends if COUNTED else WITHOUT_CHECKPOINT)
    await contender.open()
    before = await _settled(folder)
    for turn in batch:
        await contender.append("session", turn)
    after = await _settled(folder)
    await contender.close()
    return (after - before) / len(batch) / 1024


async def _settled(folder: Path) -> int:
    """Bytes written so far, once nothing in the background writes any more."""
    before, now = -1, _count(folder)
    while before != now:
        await asyncio.sleep(0.02)
        before, now = now, _count(folder)
    return now


def _count(folder: Path) -> int:
    if COUNTED:
        fields = dict(line.split(": ") for line in PROCESS_IO.read_text().splitlines())
        return int(fields["wchar"])
    return sum(file.stat().st_size for file in folder.glob("*-wal"))
