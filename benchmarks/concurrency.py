"""Many sessions at once, in one process."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

from benchmarks.contenders import Contender
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Values
from benchmarks.workload import Turn, Workload

SESSIONS = 32


async def rates(
    contenders: Sequence[Contender], workload: Workload, turns: int, rounds: int
) -> Values:
    """Appends a second of each contender, when as many sessions get ``turns`` each at once."""
    samples = Samples[str]()
    for round_ in range(rounds + 1):
        batch = workload.turns(turns)
        settle()
        for contender in rotated(contenders, round_):
            started = perf_counter()
            await append_to_all(contender, batch)
            if round_:  # the first creates the sessions
                samples.add(contender.name, SESSIONS * turns / (perf_counter() - started))
    return {contender.name: samples.median(contender.name) for contender in contenders}


async def append_to_all(contender: Contender, turns: Sequence[Turn]) -> None:
    """Append turns to every session, one after the other to each, to all at once."""
    await asyncio.gather(
        *[_append_all(contender, f"session-{n}", turns) for n in range(SESSIONS)]
    )


async def _append_all(contender: Contender, session: str, turns: Sequence[Turn]) -> None:
    for turn in turns:
        await contender.append(session, turn)
