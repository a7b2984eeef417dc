"""What a call costs that does not come from the event loop a store lives in: from code that
does not await, and from another loop."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter
from typing import Any

import perdure
from perdure.sync import Store as SyncStore

from benchmarks import servers
from benchmarks.effort import Effort, step
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Table, Target
from benchmarks.workload import Workload

NATIVE, SYNC, FOREIGN = "native", "sync", "foreign"

SYNC_MICROSECONDS = 150
FOREIGN_MICROSECONDS = 200
"""What a call may take longer than one that is awaited in the loop of its store."""

LISTED = 200
"""Sessions in a list."""


def measure(
    effort: Effort, directory: Path, seed: int, urls: Mapping[str, str | None]
) -> Table:
    """The table. ``directory`` takes the databases; ``urls``: of servers that run already."""
    rows: list[Row] = []
    folder = directory / "loops"
    folder.mkdir()
    for name, url in (("memory", "memory://"), ("sqlite", f"sqlite:///{folder}/loops.db")):
        with step(f"loops: {name}"):
            rows += _rows(name, url, effort, seed)
    for start in (servers.redis, servers.postgres):
        with start(folder / start.__name__, urls.get(start.__name__)) as server:
            with step(f"loops: {server.name}"):
                rows += _rows(server.name, server.ours().url, effort, seed)
            asyncio.run(server.clear())
    notes = [
        "native: awaited in the one event loop that uses its store. sync: perdure.sync. "
        "foreign: awaited in another loop than the first, where the driver is bound to one.",
        "asyncio.run: each call in an event loop of its own, beside one that awaits nothing; "
        "the store stays, and connects for the first only.",
    ]
    return Table("loops", (NATIVE, SYNC, FOREIGN), rows, notes)


def _rows(name: str, url: str, effort: Effort, seed: int) -> list[Row]:
    rows = asyncio.run(_appends(name, url, effort, seed))
    rows.append(asyncio.run(_lists(name, url, effort)))
    rows.append(_one_loop_per_call(name, url, effort, seed))
    return rows


async def _appends(name: str, url: str, effort: Effort, seed: int) -> list[Row]:
    native, elsewhere, blocking = perdure.Store(url), perdure.Store(url), SyncStore(url)
    first = Thread(target=asyncio.run, args=(_use(elsewhere),))
    first.start()
    first.join()  # from now on each loop is another one to it
    workload = Workload(seed)
    samples = Samples[str]()
    over: dict[str, list[float]] = {SYNC: [], FOREIGN: []}
    sessions = {
        NATIVE: native.session("loops-native"),
        FOREIGN: elsewhere.session("loops-foreign"),
    }
    sync = blocking.session("loops-sync")
    settle()
    for round_ in range(effort.appends + 10):
        turn = workload.turn()
        took: dict[str, float] = {}
        for way in rotated((NATIVE, SYNC, FOREIGN), round_):
            started = perf_counter()
            if way == SYNC:
                sync.append(*turn)
            else:
                await sessions[way].append(*turn)
            took[way] = 1e6 * (perf_counter() - started)
        if round_ >= 10:  # the first ones connect and warm up
            for way, value in took.items():
                samples.add(way, value)
            for way, differences in over.items():
                differences.append(took[way] - took[NATIVE])
    bound = elsewhere.backend.capabilities.loop_bound
    blocking.close()
    for store in (native, elsewhere):
        await store.aclose()
    limits = {SYNC: SYNC_MICROSECONDS}
    if bound:
        limits[FOREIGN] = FOREIGN_MICROSECONDS
    return [
        Row(
            measure=f"append, {name}: {way} over native",
            unit="µs",
            values={NATIVE: samples.median(NATIVE), way: samples.median(way)},
            judged=median(over[way]),
            target=Target(limit),
        )
        for way, limit in limits.items()
    ]


async def _use(store: perdure.Store) -> None:
    await store.session("loops-first").append("x")


async def _lists(name: str, url: str, effort: Effort) -> Row:
    """Iterating over sessions, each of which is another call of ``next``."""
    native, blocking = perdure.Store(url), SyncStore(url)
    samples = Samples[str]()
    for n in range(LISTED):
        await native.kind("listed").session(f"{n}").append(n)
        if not blocking.kind("listed").session(f"{n}").head():  # in memory: another store
            blocking.kind("listed").session(f"{n}").append(n)
    for round_ in range(effort.runs + 1):
        started = perf_counter()
        found = [entry async for entry in native.kind("listed").list()]
        between = perf_counter()
        same = list(blocking.kind("listed").list())
        ended = perf_counter()
        assert len(found) == len(same) == LISTED
        if round_:
            samples.add(NATIVE, 1e6 * (between - started) / LISTED)
            samples.add(SYNC, 1e6 * (ended - between) / LISTED)
    await native.aclose()
    blocking.close()
    return Row(
        measure=f"list of {LISTED}, {name}: each",
        unit="µs",
        values={way: samples.median(way) for way in (NATIVE, SYNC)},
    )


def _one_loop_per_call(name: str, url: str, effort: Effort, seed: int) -> Row:
    store = perdure.Store(url)
    workload = Workload(seed)
    samples = Samples[str]()

    async def append() -> None:
        await store.session("loops-run").append(*workload.turn())

    async def nothing() -> None:
        pass

    def run(work: Callable[[], Coroutine[Any, Any, None]]) -> float:
        started = perf_counter()
        asyncio.run(work())
        return 1e6 * (perf_counter() - started)

    for round_ in range(effort.runs * 4 + 3):
        took, alone = run(append), run(nothing)
        if round_ >= 3:
            samples.add(FOREIGN, took)
            samples.add("nothing", took - alone)
    asyncio.run(store.aclose())
    return Row(
        measure=f"append by asyncio.run, {name}; without run itself",
        unit="µs",
        values={FOREIGN: samples.median(FOREIGN)},
        judged=samples.median("nothing"),
    )
