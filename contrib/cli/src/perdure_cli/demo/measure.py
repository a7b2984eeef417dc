"""What a turn costs at turn 1 and at turn 1,000: measured on a session of that length."""

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from perdure import Store

from perdure_cli.demo.messages import Job, Measured, Progress, send

TURNS = 1000
WINDOW = 20
"""Turns at either end over which the median is taken."""
MOST_SECONDS = 20.0
"""Slow disks get a shorter session; the result says how long it was."""

_WORDS = (
    *("session", "agent", "order", "report", "invoice", "total", "price", "result", "value"),
    *("error", "retry", "customer", "supplier", "shipment", "delay", "region", "quarter"),
    *("forecast", "margin", "budget", "query", "table", "column", "row"),
)

COUNTERS = Path("/proc/self/io")
"""Where Linux says what a process has read and written (proc_pid_io(5))."""

Meter = Callable[[], int]


def payload(turn: int) -> list[dict[str, object]]:
    """The entries of a realistic turn, about 3 KiB of JSON: question, call, result, answer."""
    source = random.Random(turn)

    def words(count: int) -> str:
        return " ".join(source.choices(_WORDS, k=count))

    rows = [[words(2), source.randrange(10_000)] for _ in range(85)]
    call = {"name": "query", "arguments": {"sql": f"SELECT {words(3)}"}}
    return [
        {"role": "user", "content": words(20)},
        {"role": "assistant", "content": words(8), "tool_calls": [call]},
        {"role": "tool", "content": json.dumps(rows)},
        {"role": "assistant", "content": words(60)},
    ]


def find_meter(directory: Path | None) -> tuple[str | None, Meter]:
    """A way to measure the bytes that this process writes, and its name.

    Linux counts what a process hands to the kernel. Elsewhere the growth of the store's files
    is taken, where their directory is known.
    """

    def written() -> int:
        found = dict(line.split(": ") for line in COUNTERS.read_text().splitlines())
        return int(found["wchar"])

    try:
        written()
    except (OSError, KeyError, ValueError):
        pass
    else:
        return "bytes written by the process (/proc/self/io)", written
    if directory is None:
        return None, lambda: 0

    def stored() -> int:
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())

    return "growth of the store's files", stored


async def measure(job: Job) -> Measured:
    """Write a long session turn by turn.

    The store is closed and opened again before the last turns, so that both ends are measured
    on a store that has just been opened, and housekeeping that comes now and then (a
    checkpoint of a write-ahead log) falls into neither; the average over all has it.
    """
    name, meter = find_meter(Path.cwd() if job.url is None else None)
    times: list[float] = []
    sizes: list[int] = []
    started = time.monotonic()
    begin = meter()

    async def turns(stop: int) -> None:
        async with Store(job.url, tenant=job.tenant, kind=job.kind) as store:
            session = store.session(job.long)
            await session.head()
            while len(times) < stop and time.monotonic() - started < MOST_SECONDS:
                entries = payload(len(times))
                before, clock = meter(), time.perf_counter()
                async with session.turn() as turn:
                    turn.append(*entries)
                    turn.cells["turn"] = len(times) + 1
                times.append((time.perf_counter() - clock) * 1000)
                sizes.append(meter() - before)
                if len(times) % 100 == 0:
                    send(Progress(len(times), TURNS))

    await turns(TURNS - WINDOW)
    reached = len(times)
    started = time.monotonic()
    await turns(reached + WINDOW)
    measured = name is not None
    return Measured(
        turns=len(times),
        payload_bytes=len(json.dumps(payload(0))),
        meter=name,
        first_bytes=_median(sizes[:WINDOW]) if measured else None,
        last_bytes=_median(sizes[-WINDOW:]) if measured else None,
        average_bytes=round((meter() - begin) / len(times)) if measured else None,
        median_ms=median(times),
        early_ms=median(times[WINDOW : WINDOW + 100]),
        late_ms=median(times[-WINDOW - 100 : -WINDOW]),
    )


def _median(sizes: Sequence[int]) -> int:
    return round(median(sizes))
