"""CPU time on the memory backend: what perdure itself costs, with no disk and no thread."""

import os
from statistics import median
from time import process_time

import msgspec

import perdure
from perdure.types import Append, Commit

from benchmarks.sampling import settle
from benchmarks.table import Row, Target
from benchmarks.workload import Workload

BLOCK = 200
"""Operations timed together: one is too short for the clock."""


async def measure(blocks: int, seed: int) -> list[Row]:
    """The rows on CPU time: medians over ``blocks`` blocks, interleaved."""
    workload = Workload(seed)
    store = perdure.Store("memory://")
    backend, key = store.backend, store.key("backend")
    session = store.session("session")
    incarnation = os.urandom(16)
    values = [msgspec.msgpack.encode(turn) for turn in workload.turns(BLOCK)]
    committing: list[float] = []
    appending: list[float] = []
    settle()
    for block in range(blocks + 1):
        commits = [
            Commit(
                id=os.urandom(16),
                digest=os.urandom(8),
                new_incarnation=incarnation,
                incarnation=incarnation if block else None,
                base=block * BLOCK,
                appends=(Append(b"l\0", (value,)),),
            )
            for value in values
        ]
        turns = workload.turns(BLOCK)
        started = process_time()
        for commit in commits:
            await backend.commit(key, commit)
        committed = process_time()
        for turn in turns:
            await session.append(*turn)
        appended = process_time()
        if block:  # the first warms up
            committing.append((committed - started) / BLOCK)
            appending.append((appended - committed) / BLOCK)
    await store.aclose()
    return [
        _row("backend commit, CPU", committing, 30),
        _row("Session.append, CPU", appending, 80),
    ]


def _row(measure: str, seconds: list[float], limit: float) -> Row:
    value = 1e6 * median(seconds)
    return Row(
        measure=measure,
        unit="µs",
        values={"memory": value},
        judged=value,
        target=Target(limit),
    )
