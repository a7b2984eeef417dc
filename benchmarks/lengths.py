"""What depends, or should not depend, on how long a session is: appends, turns and loads.

All sessions of a contender, short and long, lie in one database, so that only their length
tells them apart. What follows a long load costs several times as much (cold caches, freed
buffers), so full loads are measured first, then loads of the last turns, then appends, and the
first few of each visit to a session do not count.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import msgspec

from benchmarks.contenders import Contender, Perdure
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

    def filling(self, workload: Workload) -> dict[str, list[Turn]]:
        """The sessions that contenders are to be filled with."""
        return {
            session: workload.turns(turns)
            for turns in self.turns
            for session in self.sessions(turns)
        }

    def sessions(self, turns: int) -> list[str]:
        """Enough sessions of a length that none grows by more than a fifth, or ten turns."""
        visits_each = max(1, turns // 5 // GROWTH)
        return [f"{turns}-{n}" for n in range(ceil(self.visits / visits_each))]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of ours, as a multiple of the first floor's time if not said otherwise."""

    append: float
    load: float = 1.3
    """Of the full load."""
    turn: float | None = 1.5
    """Of our own append's time, for a whole turn."""


class Names(NamedTuple):
    """Who takes part. The first of each is what is judged: the first of ours by the floor."""

    floors: tuple[str, ...]
    ours: tuple[str, ...]
    judged: tuple[str, ...]
    """Of ours, those whose worst counts where there is no floor to compare with."""

    @property
    def all(self) -> tuple[str, ...]:
        return self.floors + self.ours


async def measure(
    plan: Plan, contenders: Sequence[Contender], workload: Workload, limits: Limits
) -> list[Row]:
    """The rows on appends, turns and loads, of contenders that are filled and open."""
    ours = [contender for contender in contenders if isinstance(contender, Perdure)]
    names = Names(
        floors=tuple(c.name for c in contenders if c not in ours),
        ours=tuple(c.name for c in ours),
        judged=tuple(c.name for c in ours if not c.beside),
    )
    loads = await _loads(plan, contenders)
    appends = await _appends(plan, contenders, ours, workload)
    return [
        *_append_rows(plan, names, appends, limits),
        *_load_rows(plan, names, loads, limits),
    ]


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
                key = ("load", contender.name, turns)
                for _ in range(repeats):
                    await counted.time(key, lambda c=contender, s=session: c.load(s))
    for count in range(plan.loads):
        for turns in rotated(plan.turns, count):
            session = plan.sessions(turns)[0]
            for contender in rotated(contenders, count):
                key = ("last", contender.name, turns)
                for _ in range(WARM_UP):
                    await contender.load_last(session, LAST_TURNS)
                for _ in range(COUNTED):
                    await samples.time(
                        key, lambda c=contender, s=session: c.load_last(s, LAST_TURNS)
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


def _append_rows(plan: Plan, names: Names, samples: Samples[Key], limits: Limits) -> list[Row]:
    p50 = _medians(plan, samples, "append", names.all)
    turns_p50 = _medians(plan, samples, "turn", names.ours)
    rows = [
        Row(
            measure="append, p50",
            turns=turns,
            unit="µs",
            values=_scaled(p50[turns], 1e6),
            judged=_ratio(names, p50[turns]),
            target=Target(limits.append),
        )
        for turns in plan.turns
    ]
    rows.append(_flatness(names, "append, p50", p50))
    for turns in plan.turns:
        p99 = {name: samples.quantile(("append", name, turns), 0.99) for name in names.all}
        rows.append(
            Row(measure="append, p99", turns=turns, unit="µs", values=_scaled(p99, 1e6))
        )
    rows += [
        Row(measure="warm turn, p50", turns=n, unit="µs", values=_scaled(turns_p50[n], 1e6))
        for n in plan.turns
    ]
    for turns in plan.turns:
        times = {name: turns_p50[turns][name] / p50[turns][name] for name in names.ours}
        rows.append(
            Row(
                measure="warm turn / append",
                turns=turns,
                unit="×",
                values=times,
                judged=max(times[name] for name in names.judged),
                target=None if limits.turn is None else Target(limits.turn),
            )
        )
    return rows


def _load_rows(plan: Plan, names: Names, samples: Samples[Key], limits: Limits) -> list[Row]:
    rows: list[Row] = []
    full = _medians(plan, samples, "load", names.all)
    last = _medians(plan, samples, "last", names.all)
    for measure, p50, judged_at in (
        ("full load, cold", full, plan.judged_load),
        ("last 20 items, cold", last, None),
    ):
        rows += [
            Row(
                measure=measure,
                turns=turns,
                unit="ms",
                values=_scaled(p50[turns], 1e3),
                judged=_ratio(names, p50[turns]),
                target=Target(limits.load) if turns == judged_at else None,
            )
            for turns in plan.turns
        ]
    rows.append(_flatness(names, "last 20 items, cold", last))
    return rows


def _medians(
    plan: Plan, samples: Samples[Key], what: str, names: tuple[str, ...]
) -> dict[int, Values]:
    """By length."""
    return {n: {name: samples.median((what, name, n)) for name in names} for n in plan.turns}


def _scaled(seconds: Values, factor: float) -> Values:
    return {name: factor * value for name, value in seconds.items()}


def _ratio(names: Names, values: Values) -> float:
    return values[names.ours[0]] / values[names.floors[0]]


def _flatness(names: Names, measure: str, p50: dict[int, Values]) -> Row:
    """The longest sessions against the shortest."""
    shortest, longest = min(p50), max(p50)
    ratios = {name: p50[longest][name] / p50[shortest][name] for name in names.all}
    return Row(
        measure=f"{measure}: {longest:,} / {shortest:,} turns",
        unit="×",
        values=ratios,
        judged=max(ratios[name] for name in names.judged),
        target=Target(1.15),
    )
