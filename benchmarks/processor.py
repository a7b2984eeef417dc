"""CPU time: what perdure itself costs, and what each append costs a database's client."""

import os
from collections.abc import Sequence
from statistics import median
from time import process_time

import msgspec

import perdure
from perdure.types import Append, Commit

from benchmarks.concurrency import SESSIONS, append_to_all
from benchmarks.contenders import Contender
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Target
from benchmarks.workload import Workload

BLOCK = 200
"""Operations timed together: one is too short for the clock."""


async def per_append(
    contenders: Sequence[Contender], workload: Workload, blocks: int, limit: float
) -> list[Row]:
    """The rows on this process's CPU time per append, of contenders that are open.

    The last is judged by ``limit`` (µs), by what it needs for one session alone.
    """
    alone, together = Samples[str](), Samples[str]()
    turns_each = BLOCK // SESSIONS
    for block in range(blocks + 1):
        batch = workload.turns(BLOCK)
        settle()
        for contender in rotated(contenders, block):
            started = process_time()
            for turn in batch:
                await contender.append("processor", turn)
            done = process_time()
            await append_to_all(contender, batch[:turns_each])
            done_together = process_time()
            if block:  # the first creates the sessions
                alone.add(contender.name, 1e6 * (done - started) / BLOCK)
                appends = SESSIONS * turns_each
                together.add(contender.name, 1e6 * (done_together - done) / appends)
    judged = contenders[-1].name
    return [
        Row(
            measure="append, CPU of the client",
            unit="µs",
            values={c.name: alone.median(c.name) for c in contenders},
            judged=alone.median(judged),
            target=Target(limit),
        ),
        Row(
            measure=f"append, CPU of the client, {SESSIONS} sessions",
            unit="µs",
            values={c.name: together.median(c.name) for c in contenders},
            judged=together.median(judged),
        ),
    ]


async def measure(blocks: int, seed: int) -> list[Row]:
    """The rows on CPU time on the memory backend, with no disk and no thread: medians over
    ``blocks`` blocks, interleaved."""
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
