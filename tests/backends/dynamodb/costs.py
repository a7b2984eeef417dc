"""What sessions cost on DynamoDB, measured, for ``docs/costs.md``.

``python -m tests.backends.dynamodb.costs`` starts a server and writes the page's tables.
"""

import asyncio
import random
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

import msgspec

from perdure import Store
from perdure.testing import TestClock
from perdure.types import ListQuery

from perdure_dynamodb import background, creation
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.capacity import Consumption, measured
from perdure_dynamodb.settings import Settings
from tests.quality.workspace import ROOT
from tests.services.dynamodb import REGION, Dynoxide

PAGE = ROOT / "docs" / "costs.md"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->\n"

TURN = 3072
"""Characters of a turn's one entry: 3 KiB."""

TURNS = 100
"""Of a session that is loaded or deleted."""

SESSIONS = 20
"""On a page of a list."""


class Prices(msgspec.Struct, frozen=True):
    """US dollars, on demand, standard table class, US East (N. Virginia), November 2026.

    https://aws.amazon.com/dynamodb/pricing/on-demand/
    """

    million_writes: float = 0.625
    million_reads: float = 0.125
    gigabyte_month: float = 0.25


class Cost(msgspec.Struct, frozen=True):
    """Of one operation."""

    name: str
    requests: int
    write_units: float
    read_units: float

    def million(self, prices: Prices) -> float:
        """Dollars for a million of it."""
        return self.write_units * prices.million_writes + self.read_units * prices.million_reads


class Meter:
    """Collects costs, on a table of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._random = random.Random(1)
        self.clock = TestClock()
        self.costs: list[Cost] = []

    def turn(self) -> dict[str, str]:
        """An entry that no compression makes smaller."""
        return {"content": self._random.randbytes(TURN // 2).hex()}

    @asynccontextmanager
    async def process(self) -> AsyncGenerator[tuple[Store, DynamoDBBackend]]:
        """One that knows nothing yet; what it does in the background is done at the end."""
        backend = DynamoDBBackend(self._settings, clock=self.clock)
        await backend.open()
        store = Store(backend)
        try:
            yield store, backend
        finally:
            await store.aclose()
            await backend.aclose()

    def note(self, name: str, cost: Consumption) -> None:
        total = cost.total
        self.costs.append(Cost(name, total.requests, total.write_units, total.read_units))


async def measure(settings: Settings) -> list[Cost]:
    """Do everything once. The table is empty before."""
    meter = Meter(settings)
    with patch.object(background, "GRACE", 60.0):  # seconds, where the machine is slow
        async with meter.process() as (store, _):
            session = store.session("long")
            with measured() as cost:
                await session.append(meter.turn())
            meter.note("append the first turn of a session", cost)
            for _ in range(TURNS - 2):
                await session.append(meter.turn())
            with measured() as cost:
                await session.append(meter.turn())
            meter.note("append a turn", cost)
        async with meter.process() as (store, _):
            with measured() as cost:
                await store.session("long").append(meter.turn())
            meter.note("append a turn, in a process that has not met the session", cost)
        async with meter.process() as (store, _):
            session = store.session("long")
            await session.append(meter.turn())
            meter.clock.advance(60_000)
            with measured() as cost:
                await session.append(meter.turn())
            meter.note("append a turn, a minute or more after the last", cost)
        await _read(meter)
        await _delete(meter)
    return meter.costs


async def _read(meter: Meter) -> None:
    async with meter.process() as (store, _):
        session = store.session("read")
        for _ in range(TURNS):
            await session.append(meter.turn())
    async with meter.process() as (store, _):
        session = store.session("read")
        with measured() as cost:
            assert len(await session.entries()) == TURNS
        meter.note(f"load {TURNS} turns", cost)
        with measured() as cost:
            assert len(await session.entries()) == TURNS
        meter.note("load them again, with nothing new", cost)
    async with meter.process() as (store, _):
        session = store.session("read")
        with measured() as cost:
            assert len(await session.entries(last=20)) == 20
        meter.note("load the last 20 of them", cost)
    async with meter.process() as (store, backend):
        for number in range(2 * SESSIONS):
            await store.session(f"listed-{number}").append(meter.turn())
        with measured() as cost:
            page = await backend.list("default", "session", ListQuery(limit=SESSIONS))
            assert len(page.items) == SESSIONS
        meter.note(f"list {SESSIONS} sessions", cost)


async def _delete(meter: Meter) -> None:
    async with meter.process() as (store, _):
        with measured() as cost:
            assert await store.delete("read")
            await store.aclose()
    async with meter.process() as (store, _):
        meter.clock.advance(26 * 3600 * 1000)
        with measured() as cost_of_sweep:
            await store.sweep()
    meter.note(f"delete a session of {TURNS} turns", cost)
    meter.note("sweep a day later", cost_of_sweep)


def tables(costs: list[Cost]) -> str:
    """The page's tables, in Markdown."""
    prices = Prices()
    lines = [
        "| 3 KiB a turn | requests | write units | read units | dollars a million |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {cost.name} | {cost.requests} | {cost.write_units:g} | {cost.read_units:g} "
        f"| {cost.million(prices):,.2f} |"
        for cost in costs
    ]
    return "\n".join(lines) + "\n"


def with_tables(text: str, costs: list[Cost]) -> str:
    """``text`` with the tables between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables(costs)}{END}{after}"


async def write() -> None:
    with tempfile.TemporaryDirectory() as directory, Dynoxide.start(Path(directory)) as server:
        settings = Settings(table="costs", region=REGION, endpoint=server.url)
        await creation.create(settings)
        costs = await measure(settings)
    PAGE.write_text(with_tables(PAGE.read_text(), costs))


if __name__ == "__main__":
    asyncio.run(write())
