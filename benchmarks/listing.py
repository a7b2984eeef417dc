"""What a page of a list costs, and that it does not matter how many sessions there are."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import perdure
from perdure.workers import for_each

from benchmarks import serverless, servers
from benchmarks.contenders import Perdure, memory, sqlite
from benchmarks.effort import Effort, step
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.servers import Server
from benchmarks.table import Row, Table, Target, Values

LABEL = "starred"
UNLABELLED = 10
"""One session of so many does not carry the label."""

WRITERS = 64
"""Sessions made at the same time."""

FEW, MANY = "few", "many"
"""Tenants."""

LISTS = BY_ID, BY_LABEL, BY_RECENCY = "by id", "by label", "by recency"

Start = Callable[[], AbstractContextManager[Perdure]]


def measure(effort: Effort, directory: Path, urls: Mapping[str, str | None]) -> Table:
    """The table. ``directory`` takes the databases; ``urls``: of servers that run already."""
    folder = directory / "listing"
    folder.mkdir()
    few, many = effort.sessions
    # What stands in for the serverless ones takes long to fill.
    places: dict[str, tuple[Start, int]] = {
        "memory": (_local(memory), many),
        "sqlite": (_local(lambda: sqlite(folder)), many),
        "redis": (_on(lambda: servers.redis(folder / "redis", urls.get("redis"))), many),
        "postgres": (
            _on(lambda: servers.postgres(folder / "postgres", urls.get("postgres"))),
            many,
        ),
        "dynamodb": (_on(lambda: serverless.dynamodb(folder / "dynamodb")), many // 10),
        "durable-objects": (
            _on(lambda: serverless.durable_objects(folder / "objects")),
            many // 20,
        ),
    }
    page = min(100, few // 2)
    found: dict[str, Samples[tuple[str, str]]] = {}
    for name, (start, size) in places.items():
        with step(f"listing: {name}"), start() as ours:
            found[name] = asyncio.run(_pages(ours, {FEW: few, MANY: size}, page, effort.visits))
    rows: list[Row] = []
    for how in LISTS:
        values: dict[str, Values] = {
            tenant: {name: 1e3 * each.median((tenant, how)) for name, each in found.items()}
            for tenant in (FEW, MANY)
        }
        rows.append(Row(measure=f"page {how}, of few", unit="ms", values=values[FEW]))
        rows.append(
            Row(
                measure=f"page {how}, of many",
                unit="ms",
                values=values[MANY],
                judged=max(values[MANY][name] / values[FEW][name] for name in found),
                target=Target(1.3),
            )
        )
    notes = [
        f"a page: {page} heads, the second page of the list. few: {few:,} sessions of one "
        f"tenant, many: {many:,} of another, {many // 10:,} on dynamodb, {many // 20:,} on "
        "durable-objects. judged: the worst of many / few.",
    ]
    return Table("listing", tuple(places), rows, notes)


async def _pages(
    ours: Perdure, sizes: Mapping[str, int], limit: int, visits: int
) -> Samples[tuple[str, str]]:
    """How long pages took, by tenant and kind of list."""
    await ours.open()
    for tenant, size in sizes.items():
        await _fill(ours.store.tenant(tenant), size)
    limits = ours.store.backend.capabilities
    await asyncio.sleep(limits.list_lag / 1000)
    pages = {
        (tenant, how): await _second_page(ours.store.tenant(tenant), how, limit)
        for tenant in sizes
        for how in LISTS
    }
    samples = Samples[tuple[str, str]]()
    settle()
    for visit in range(visits):
        for place in rotated(list(pages), visit):
            await samples.time(place, pages[place])
    await ours.close()
    return samples


async def _fill(scope: perdure.Scope, size: int) -> None:
    """Make so many sessions, in no order, with meta and labels."""
    step = 7919  # a prime: it meets every number

    async def make(number: int) -> None:
        labels = ("archived",) if number % UNLABELLED == 0 else (LABEL,)
        await scope.session(f"{number * step % size:07}").set(meta=bytes(40), labels=labels)

    await for_each(range(size), make, at_once=WRITERS)


async def _second_page(
    scope: perdure.Scope, how: str, limit: int
) -> Callable[[], Awaitable[object]]:
    """What reads the second page of a list."""
    label = LABEL if how == BY_LABEL else None
    order = perdure.Order.RECENCY if how == BY_RECENCY else perdure.Order.ID
    page = partial(scope.page, limit=limit, label=label, order=order)
    first = await page()
    return partial(page, cursor=first.cursor)


def _local(make: Callable[[], Perdure]) -> Start:
    @contextmanager
    def start() -> Generator[Perdure]:
        yield make()

    return start


def _on(serve: Callable[[], AbstractContextManager[Server]]) -> Start:
    @contextmanager
    def start() -> Generator[Perdure]:
        with serve() as server:
            yield server.ours()
            asyncio.run(server.clear())

    return start
