"""What depends, or should not depend, on how long a session is: appends, turns and loads.

All sessions of a contender, short and long, lie in one file, so that only their length tells
them apart. An append right after a long load costs several times as much (cold caches, freed
buffers), so loads are measured first, appends afterwards, and the first few of each visit to
a session do not count.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import msgspec

from benchmarks.contenders import Contender, Perdure, bare, memory, sqlite
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Target, Values
from benchmarks.workload import Turn, Workload

WARM_UP = 2
"""Operations at the start of a visit that do not count."""
COUNTED = 4
"""Appends, and turns, of a visit that do."""
GROWTH = WARM_UP + 2 * COUNTED
"""By how many turns a visit makes a session longer."""

LAST_TURNS = 5
"""20 items."""

OURS = ("sqlite", "memory")
ALL = ("bare", *OURS)


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    turns: tuple[int, ...]
    """Lengths of sessions, ascending."""
    visits: int
    """With ``COUNTED`` appends and turns each, per length and contender."""
    loads: int
    """Full loads per length and contender; ten times as many where they are short."""

    @property
    def judged_load(self) -> int:
        """The length at which the full load is judged: 1 000, or the longest there is."""
        return 1000 if 1000 in self.turns else self.turns[-1]

    def sessions(self, turns: int) -> list[str]:
        """Enough sessions of a length that none grows by more than a fifth, or ten turns."""
        visits_each = max(1, turns // 5 // GROWTH)
        return [f"{turns}-{n}" for n in range(ceil(self.visits / visits_each))]


async def measure(plan: Plan, directory: Path, seed: int) -> list[Row]:
    """The rows on appends, turns and loads. Files go to ``directory``."""
    workload = Workload(seed)
    ours = (sqlite(directory), memory())
    contenders = (bare(directory), *ours)
    sessions = {
        session: workload.turns(turns)
        for turns in plan.turns
        for session in plan.sessions(turns)
    }
    for contender in contenders:
        await contender.fill(sessions)
        await contender.open()
    sessions.clear()
    loads = await _loads(plan, contenders)
    appends = await _appends(plan, contenders, ours, workload)
    for contender in contenders:
        await contender.close()
    return [*_append_rows(plan, appends), *_load_rows(plan, loads)]


Key = tuple[str, str, int]
"""What was done, by whom, on how long a session."""


async def _loads(plan: Plan, contenders: Sequence[Contender]) -> Samples[Key]:
    samples = Samples[Key]()
    for count in range(plan.loads + 1):
        counted = samples if count else Samples[Key]()
        for turns in plan.turns:
            session = plan.sessions(turns)[0]
            repeats = 10 if turns <= 100 else 1
            settle()
            for contender in rotated(contenders, count):
                full = ("load", contender.name, turns)
                last = ("last", contender.name, turns)
                for _ in range(repeats):
                    await counted.time(full, lambda c=contender, s=session: c.load(s))
                for _ in range(WARM_UP):
                    await contender.load_last(session, LAST_TURNS)
                for _ in range(COUNTED):
                    await counted.time(
                        last, lambda c=contender, s=session: c.load_last(s, LAST_TURNS)
                    )
    return samples


async def _appends(
    plan: Plan, contenders: Sequence[Contender], ours: Sequence[Perdure], workload: Workload
) -> Samples[Key]:
    for contender in ours:
        for turns in plan.turns:
            for session in plan.sessions(turns):
                await contender.warm(session)
    settle()
    samples = Samples[Key]()
    for visit in range(plan.visits):
        for turns in rotated(plan.turns, visit):
            sessions = plan.sessions(turns)
            session = sessions[visit % len(sessions)]
            batch = workload.turns(GROWTH)
            for contender in rotated(contenders, visit):
                await _visit(contender, session, turns, batch, samples)
    return samples


async def _visit(
    contender: Contender, session: str, turns: int, batch: list[Turn], samples: Samples[Key]
) -> None:
    for turn in batch[:WARM_UP]:
        await contender.append(session, turn)
    for turn in batch[WARM_UP : WARM_UP + COUNTED]:
        key = ("append", contender.name, turns)
        await samples.time(key, lambda turn=turn: contender.append(session, turn))
    for turn in batch[WARM_UP + COUNTED :]:
        if isinstance(contender, Perdure):
            key = ("turn", contender.name, turns)
            await samples.time(key, lambda turn=turn: contender.turn(session, turn))
        else:  # so that its session grows as the others do
            await contender.append(session, turn)


def _append_rows(plan: Plan, samples: Samples[Key]) -> list[Row]:
    p50 = _medians(plan, samples, "append", ALL)
    turns_p50 = _medians(plan, samples, "turn", OURS)
    rows = [
        Row(
            measure="append, p50",
            turns=turns,
            unit="µs",
            values=_scaled(p50[turns], 1e6),
            judged=p50[turns]["sqlite"] / p50[turns]["bare"],
            target=Target(1.5),
        )
        for turns in plan.turns
    ]
    rows.append(_flatness("append, p50", p50))
    for turns in plan.turns:
        p99 = {name: samples.quantile(("append", name, turns), 0.99) for name in ALL}
        rows.append(
            Row(measure="append, p99", turns=turns, unit="µs", values=_scaled(p99, 1e6))
        )
    rows += [
        Row(measure="warm turn, p50", turns=n, unit="µs", values=_scaled(turns_p50[n], 1e6))
        for n in plan.turns
    ]
    for turns in plan.turns:
        times = {name: turns_p50[turns][name] / p50[turns][name] for name in OURS}
        rows.append(
            Row(
                measure="warm turn / append",
                turns=turns,
                unit="×",
                values=times,
                judged=max(times.values()),
                target=Target(1.5),
            )
        )
    return rows


def _load_rows(plan: Plan, samples: Samples[Key]) -> list[Row]:
    rows: list[Row] = []
    last = _medians(plan, samples, "last", ALL)
    for measure, p50, judged_at in (
        ("full load, cold", _medians(plan, samples, "load", ALL), plan.judged_load),
        ("last 20 items, cold", last, None),
    ):
        rows += [
            Row(
                measure=measure,
                turns=turns,
                unit="ms",
                values=_scaled(p50[turns], 1e3),
                judged=p50[turns]["sqlite"] / p50[turns]["bare"],
                target=Target(1.3) if turns == judged_at else None,
            )
            for turns in plan.turns
        ]
    rows.append(_flatness("last 20 items, cold", last))
    return rows


def _medians(
    plan: Plan, samples: Samples[Key], what: str, names: tuple[str, ...]
) -> dict[int, Values]:
    """By length."""
    return {n: {name: samples.median((what, name, n)) for name in names} for n in plan.turns}


def _scaled(seconds: Values, factor: float) -> Values:
    return {name: factor * value for name, value in seconds.items()}


def _flatness(measure: str, p50: dict[int, Values]) -> Row:
    """The longest sessions against the shortest."""
    shortest, longest = min(p50), max(p50)
    ratios = {name: p50[longest][name] / p50[shortest][name] for name in ALL}
    return Row(
        measure=f"{measure}: {longest:,} / {shortest:,} turns",
        unit="×",
        values=ratios,
        judged=max(ratios[name] for name in OURS),
        target=Target(1.15),
    )
