"""What DynamoDB charges, as its replies say, and what a change of several items costs."""

from collections.abc import Awaitable, Callable

from benchmarks.bare_dynamodb import BareDynamoDB
from benchmarks.contenders import Perdure
from benchmarks.lengths import LAST_TURNS
from benchmarks.sampling import Samples, settle
from benchmarks.table import Row, Target, Values
from benchmarks.workload import Turn, Workload
from perdure_dynamodb.capacity import measured

EACH = 20
"""How often each operation is counted."""

HOW = (
    "Units: as the replies say. A change sets four cells; bare: a PutItem each, and for its "
    "time a transaction. A turn with cells appends four items and sets three cells; it is "
    "judged by their PutItems and a unit more, which an append may cost."
)

SESSION = "units"
CELLS = "cells"
"""Where the floor keeps them, so that loads do not find them."""

Operation = Callable[[Turn], Awaitable[object]]


async def measure(
    bare: BareDynamoDB, ours: Perdure, turns: int, visits: int, seed: int
) -> list[Row]:
    """The rows on a new session of ``turns`` turns; times of ``visits`` changes."""
    workload = Workload(seed)
    await ours.open()
    for turn in workload.turns(turns):
        await bare.append(SESSION, turn)
        await ours.append(SESSION, turn)
    count = _Count(bare, ours.name, workload.turns(EACH))

    async def turn_with_cells(turn: Turn) -> None:
        async with ours.session(SESSION).turn() as turning:
            turning.append(*turn)
            for name, item in _cells(turn[1:]).items():
                turning.cells[name] = item

    async def bare_turn_with_cells(turn: Turn) -> None:
        await bare.append(SESSION, turn)
        await bare.put_each(CELLS, turn[1:])

    async def change(turn: Turn) -> None:
        await ours.change(SESSION, _cells(turn))

    appended = await count.written(
        lambda turn: ours.append(SESSION, turn), lambda turn: bare.append(SESSION, turn)
    )
    last = await count.read(
        lambda _: ours.load_last(SESSION, LAST_TURNS),
        lambda _: bare.load_last(SESSION, LAST_TURNS),
    )
    loaded = await count.read(lambda _: ours.load(SESSION), lambda _: bare.load(SESSION))
    both = await count.written(turn_with_cells, bare_turn_with_cells)
    changed = await count.written(change, lambda turn: bare.put_each(CELLS, turn))
    times = Samples[str]()
    settle()
    for turn in workload.turns(visits):
        await times.time(bare.name, lambda t=turn: bare.put_together(CELLS, t))
        await times.time(ours.name, lambda t=turn: change(t))
    p50 = {name: 1e6 * times.median(name) for name in (bare.name, ours.name)}
    await ours.close()
    name = ours.name
    return [
        Row(
            measure="append: write units",
            unit="",
            values=appended,
            judged=appended[name] - appended["bare"],
            target=Target(1),
        ),
        Row(
            measure="turn with cells: write units",
            unit="",
            values=both,
            judged=both[name] / (both["bare"] + 1),
            target=Target(2),
        ),
        _compared("change: write units", changed, name),
        _compared("last 20 items, cold: read units", last, name),
        _compared("full load, cold: read units", loaded, name),
        _compared("change, p50", p50, name, unit="µs"),
    ]


class _Count:
    """Units for each of the operations on some turns."""

    def __init__(self, bare: BareDynamoDB, ours: str, turns: list[Turn]) -> None:
        self._bare = bare
        self._ours = ours
        self._turns = turns

    async def written(self, ours: Operation, bare: Operation) -> Values:
        """Write units."""
        with measured() as cost:
            charged = await self._do(ours, bare)
        return charged | {self._ours: cost.total.write_units / len(self._turns)}

    async def read(self, ours: Operation, bare: Operation) -> Values:
        """Read units."""
        with measured() as cost:
            charged = await self._do(ours, bare)
        return charged | {self._ours: cost.total.read_units / len(self._turns)}

    async def _do(self, ours: Operation, bare: Operation) -> Values:
        for turn in self._turns:
            await ours(turn)
        self._bare.metered = True
        before = self._bare.units
        for turn in self._turns:
            await bare(turn)
        self._bare.metered = False
        return {self._bare.name: (self._bare.units - before) / len(self._turns)}


def _cells(values: Turn) -> dict[str, object]:
    return {f"cell-{number}": value for number, value in enumerate(values)}


def _compared(measure: str, values: Values, ours: str, *, unit: str = "") -> Row:
    """Ours as a multiple of the floor, without a target."""
    return Row(measure=measure, unit=unit, values=values, judged=values[ours] / values["bare"])
