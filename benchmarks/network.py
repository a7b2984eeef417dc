"""Backends on a server: everything that is measured on one."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from benchmarks import lengths, wire
from benchmarks.concurrency import SESSIONS, rates
from benchmarks.contenders import Contender
from benchmarks.effort import Effort, step
from benchmarks.processor import Limit, per_append
from benchmarks.servers import Server
from benchmarks.table import Row, Table, Target, Values
from benchmarks.workload import Turn, Workload


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked on a server."""

    times: lengths.Limits
    sessions: float | None = None
    """At least so many times the floor's rate."""
    processor: Limit = Limit()
    traffic: wire.Limits = wire.Limits()


REDIS = Targets(
    times=lengths.Limits(append=1.4), sessions=1.5, processor=Limit(microseconds=100)
)
POSTGRES = Targets(
    times=lengths.Limits(append=1.6), sessions=1.2, processor=Limit(microseconds=250)
)
DYNAMODB = Targets(
    times=lengths.Limits(append=1.4, load=1.4, turn=None),
    processor=Limit(times=1.4),
    traffic=wire.Limits(besides=None, page=1 << 20),
)
DURABLE_OBJECTS = Targets(
    times=lengths.Limits(append=1.4, load=1.4, turn=None),
    sessions=0.8,
    traffic=wire.Limits(besides=None),
)


async def measure(server: Server, targets: Targets, effort: Effort, seed: int) -> Table:
    """The table of one server, on which nothing is left."""
    name = server.name
    contenders = (*server.floors(), server.ours(), *server.beside())
    workload = Workload(seed)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.clear)
        about = await server.about()
        with step(f"{name}: filling"):
            sessions = effort.plan.filling(workload)
            stored = await _fill(server, contenders, sessions, stack)
            del sessions
        with step(f"{name}: appends, turns and loads"):
            rows = await lengths.measure(effort.plan, contenders, workload, targets.times)
        with step(f"{name}: {SESSIONS} sessions at once"):
            values = await rates(contenders, workload, effort.turns, effort.rounds)
        with step(f"{name}: CPU time"):
            cpu = await per_append(contenders, name, workload, effort, targets.processor)
        with step(f"{name}: requests and bytes"):
            async with wire.Proxy(*server.address) as proxy:
                ours = server.ours(proxy.port)
                wired = await wire.measure(
                    ours,
                    proxy,
                    effort.lengths,
                    effort.plan.judged_load,
                    seed,
                    targets.traffic,
                )
            own = await server.own_rows(effort, seed)
    together = Row(
        measure=f"{SESSIONS} sessions",
        unit="appends/s",
        values=values,
        judged=values[name] / values["bare"],
        target=None if targets.sessions is None else Target(targets.sessions, at_least=True),
    )
    size = Row(measure="stored per turn", unit="KiB", values=stored)
    return Table(
        name,
        tuple(contender.name for contender in contenders),
        [*rows, together, *cpu, *wired, *own, size],
        [*server.floor_notes, wire.HOW, about],
    )


async def _fill(
    server: Server,
    contenders: Sequence[Contender],
    sessions: dict[str, list[Turn]],
    stack: AsyncExitStack,
) -> Values:
    """Fill and open all, until ``stack`` ends; KiB that each makes the server hold per
    turn."""
    stored: Values = {}
    turns = sum(map(len, sessions.values()))
    for contender in contenders:
        before = await server.size()
        await contender.fill(sessions)
        if not contender.beside:
            stored[contender.name] = (await server.size() - before) / turns / 1024
        await contender.open()
        stack.push_async_callback(contender.close)
    return stored
