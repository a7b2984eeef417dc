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
from benchmarks.effort import Effort
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Target, Values
from benchmarks.workload import Workload


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What an append to one session may cost the client. Exactly one is set, or neither."""

    microseconds: float | None = None
    times: float | None = None
    """The first floor's CPU time."""

    def row(self, measure: str, values: Values, ours: str, *, judged: bool) -> Row:
        """``judged``: by this limit, else only compared."""
        absolute = self.microseconds is not None
        limit = self.microseconds if absolute else self.times
        return Row(
            measure=measure,
            unit="µs",
            values=values,
            judged=values[ours] / (1 if absolute else values["bare"]),
            target=Target(limit) if judged and limit is not None else None,
        )


async def per_append(
    contenders: Sequence[Contender], ours: str, workload: Workload, effort: Effort, limit: Limit
) -> list[Row]:
    """The rows on this process's CPU time per append, of contenders that are open.

    ``ours`` is judged, by what it needs for one session alone.
    """
    alone, together = Samples[str](), Samples[str]()
    turns_each = effort.block // SESSIONS
    for block in range(effort.blocks + 1):
        batch = workload.turns(effort.block)
        settle()
        for contender in rotated(contenders, block):
            started = process_time()
            for turn in batch:
                await contender.append("processor", turn)
            done = process_time()
            await append_to_all(contender, batch[:turns_each])
            done_together = process_time()
            if block:  # the first creates the sessions
                alone.add(contender.name, 1e6 * (done - started) / effort.block)
                appends = SESSIONS * turns_each
                together.add(contender.name, 1e6 * (done_together - done) / appends)
    name = "append, CPU of the client"
    return [
        limit.row(name, _medians(contenders, alone), ours, judged=True),
        limit.row(
            f"{name}, {SESSIONS} sessions", _medians(contenders, together), ours, judged=False
        ),
    ]


def _medians(contenders: Sequence[Contender], samples: Samples[str]) -> Values:
    return {contender.name: samples.median(contender.name) for contender in contenders}


async def measure(effort: Effort, seed: int) -> list[Row]:
    """The rows on CPU time on the memory backend, with no disk and no thread: medians over
    blocks, interleaved."""
    workload = Workload(seed)
    store = perdure.Store("memory://")
    backend, key = store.backend, store.key("backend")
    session = store.session("session")
    incarnation = os.urandom(16)
    values = [msgspec.msgpack.encode(turn) for turn in workload.turns(effort.block)]
    committing: list[float] = []
    appending: list[float] = []
    settle()
    for block in range(effort.blocks + 1):
        commits = [
            Commit(
                id=os.urandom(16),
                digest=os.urandom(8),
                new_incarnation=incarnation,
                incarnation=incarnation if block else None,
                base=block * effort.block,
                appends=(Append(b"l\0", (value,)),),
            )
            for value in values
        ]
        turns = workload.turns(effort.block)
        started = process_time()
        for commit in commits:
            await backend.commit(key, commit)
        committed = process_time()
        for turn in turns:
            await session.append(*turn)
        appended = process_time()
        if block:  # the first warms up
            committing.append((committed - started) / effort.block)
            appending.append((appended - committed) / effort.block)
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
