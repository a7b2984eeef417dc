"""What a turn costs at turn 1 and at turn 1,000: measured on a session of that length.

``python -m perdure_cli.demo.measure`` runs it, with its job on standard input.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import fmean, median

import msgspec

from perdure import Cell, Log, Session

from perdure_cli.demo.messages import Job, Measured, Progress, perform, send

TURNS = 1000
WINDOW = 20
"""Turns at either end over which the median is taken."""
MOST_SECONDS = 20.0
"""Slow stores get a shorter session; the result says how long it was."""
COUNTERS = Path("/proc/self/io")
"""Linux counts here what a process writes: https://docs.kernel.org/filesystems/proc.html."""

_TEXT = """
    session agent order report invoice total price result value error retry customer supplier
    shipment delay region quarter forecast margin budget query table column row
"""
_WORDS = _TEXT.split()

Meter = Callable[[], int]
"""Bytes written so far."""


def payload(number: int) -> list[dict[str, object]]:
    """The entries of a realistic turn, about 3 KiB of JSON: question, call, result, answer."""
    random = Random(number)

    def words(count: int) -> str:
        return " ".join(random.choices(_WORDS, k=count))

    rows = "\n".join(f"{words(2)},{random.randrange(10_000)}" for _ in range(112))
    call = {"name": "query", "arguments": {"sql": f"SELECT {words(3)}"}}
    return [
        {"role": "user", "content": words(20)},
        {"role": "assistant", "content": words(8), "tool_calls": [call]},
        {"role": "tool", "content": rows},
        {"role": "assistant", "content": words(60)},
    ]


def find_meter(directory: Path | None) -> tuple[Meter | None, str]:
    """A way to count the bytes that this process writes, and what to call it.

    Linux counts what a process hands to the kernel. Elsewhere the growth of the store's files
    is taken, where their directory is known.
    """
    if COUNTERS.exists():
        return _handed_to_kernel, "wchar of /proc/self/io, all that the process writes"
    if directory is not None:
        return lambda: _size_of(directory), "growth of the store's files"
    return None, "this system does not count what a process writes"


def _handed_to_kernel() -> int:
    return int(dict(line.split(": ") for line in COUNTERS.read_text().splitlines())["wchar"])


def _size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


class Series:
    """The turns of one session, and what each took."""

    def __init__(self, job: Job, meter: Meter) -> None:
        self._job = job
        self._meter = meter
        self.ms: list[float] = []
        self.written: list[int] = []
        self.payload: list[int] = []

    async def extend(self, count: int, deadline: float) -> None:
        """Write so many turns more, or as many as there is time for, on a newly opened store.

        What a store does when it is opened and closed, or puts off for long (a checkpoint of
        a write-ahead log), thus falls into neither end of the session; the average has it.
        """
        async with self._job.store() as store:
            await self._warm_up(store.session(f"{self._job.long}-warm-up"))
            session = store.session(self._job.long)
            await session.read(Log(last=4), Cell("turn", 0))
            for _ in range(count):
                if time.monotonic() > deadline:
                    return
                number = len(self.ms) + 1
                entries = payload(number)
                self.payload.append(len(msgspec.json.encode(entries)))
                before, clock = self._meter(), time.perf_counter()
                await _persist(session, number, entries)
                self.ms.append((time.perf_counter() - clock) * 1000)
                self.written.append(self._meter() - before)
                if number % 50 == 0:
                    send(Progress(number))

    async def _warm_up(self, scratch: Session) -> None:
        for number in range(1, 6):
            await _persist(scratch, number, payload(number))
        await scratch.delete()


async def _persist(session: Session, number: int, entries: Sequence[object]) -> None:
    """As the agents do it."""
    async with session.turn() as turn:
        turn.append(*entries)
        turn.cells["turn"] = number


async def measure(job: Job, directory: Path | None) -> Measured:
    """Write a long session turn by turn, and see what its first and last turns took."""
    meter, name = find_meter(directory)
    series = Series(job, meter or (lambda: 0))
    before = meter() if meter else 0
    deadline = time.monotonic() + MOST_SECONDS
    await series.extend(WINDOW, float("inf"))
    await series.extend(TURNS - 2 * WINDOW, deadline)
    await series.extend(WINDOW, float("inf"))
    written = (meter() if meter else 0) - before
    turns, size = len(series.ms), round(fmean(series.payload))
    first, last = median(series.written[:WINDOW]), median(series.written[-WINDOW:])
    counted = meter is not None
    if counted and min(first, last) < size / 10:  # compression alone does not explain that
        counted, name = False, "something else than this process writes the store's files"
    return Measured(
        turns=turns,
        payload_bytes=size,
        meter=name,
        first_bytes=round(first) if counted else None,
        last_bytes=round(last) if counted else None,
        average_bytes=round(written / turns) if counted else None,
        first_ms=median(series.ms[:WINDOW]),
        last_ms=median(series.ms[-WINDOW:]),
    )


async def main(job: Job) -> None:
    """Do the job."""
    send(await measure(job, Path(job.directory) if job.directory else None))


if __name__ == "__main__":
    perform(main)
