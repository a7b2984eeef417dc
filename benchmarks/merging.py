"""What it is worth that appends to one session which are made at once share commits, and what
one that is made alone pays for it."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import perdure
from perdure.client import Client, new_id
from perdure.handle import Handle
from perdure.layout import LOG
from perdure.merging import append, last_entry
from perdure.position import Position, position_of
from perdure.types import Append, SessionKey, append_key

from benchmarks import servers
from benchmarks.contenders import Perdure, sqlite
from benchmarks.effort import Effort, step
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Table, Target
from benchmarks.workload import Turn, Workload

AT_ONCE = 50
"""Appends to one session."""

ALONE = 1.0
"""µs that an append that meets no other may cost more."""

BLOCK = 20
"""Appends between two looks at the clock."""

SHORT = ({"role": "user", "content": "hi"},)

APART, MERGED = "apart", "merged"


def measure(
    effort: Effort, directory: Path, seed: int, urls: Mapping[str, str | None]
) -> Table:
    """The table. ``directory`` takes the databases; ``urls``: of servers that run already."""
    rows: list[Row] = []
    folder = directory / "merging"
    folder.mkdir()
    with step("merging: sqlite"):
        rows += asyncio.run(_at_once(effort, seed, sqlite(folder)))
    for start in (servers.redis, servers.postgres):
        with start(folder / start.__name__, urls.get(start.__name__)) as server:
            with step(f"merging: {server.name}"):
                rows += asyncio.run(_at_once(effort, seed, server.ours()))
            asyncio.run(server.clear())
    with step("merging: an append alone"):
        rows.append(asyncio.run(_alone(effort)))
    notes = [
        f"at once: {AT_ONCE} tasks append a turn each to one session; until all have been "
        "acknowledged. apart: each through a store of its own, on the same backend.",
    ]
    return Table("merging", (APART, MERGED), rows, notes)


async def _at_once(effort: Effort, seed: int, ours: Perdure) -> list[Row]:
    workload = Workload(seed)
    samples = Samples[str]()
    versions = dict.fromkeys((APART, MERGED), 0)
    await ours.open()
    merged = [ours.store.session(MERGED) for _ in range(AT_ONCE)]
    apart = [perdure.Store(ours.store.backend).session(APART) for _ in range(AT_ONCE)]
    for round_ in range(effort.runs + 1):
        turns = workload.turns(AT_ONCE)
        settle()
        for name, sessions in rotated([(APART, apart), (MERGED, merged)], round_):
            started = perf_counter()
            await _append_to_each(sessions, turns)
            if round_:  # the first creates the session
                samples.add(name, 1e3 * (perf_counter() - started))
    for name in versions:
        head = await ours.store.session(name).head()
        versions[name] = head.version if head is not None else 0
    await ours.close()
    values = {name: samples.median(name) for name in versions}
    return [
        Row(
            measure=f"{AT_ONCE} at once, {ours.name}",
            unit="ms",
            values=values,
            judged=values[MERGED] / values[APART],
            target=Target(1.1),
        ),
        Row(
            measure=f"commits of {AT_ONCE} at once, {ours.name}",
            unit="",
            values={name: version / (effort.runs + 1) for name, version in versions.items()},
        ),
    ]


async def _append_to_each(sessions: Sequence[perdure.Session], turns: Sequence[Turn]) -> None:
    await asyncio.gather(
        *(session.append(*turn) for session, turn in zip(sessions, turns, strict=True))
    )


async def _alone(effort: Effort) -> Row:
    """CPU time on the memory backend: the median of differences between short blocks."""
    client = Client("memory://", deadline=30)
    handle = Handle(client, SessionKey.of("bench", "session", "alone"))
    ways = {APART: _unmerged, MERGED: append}
    samples = Samples[str]()
    differences: list[float] = []
    settle()
    for block in range(effort.blocks * effort.block // BLOCK + 1):
        took: dict[str, float] = {}
        for name in rotated(list(ways), block):
            way = ways[name]
            started = process_time()
            for _ in range(BLOCK):
                await way(handle, LOG, SHORT)
            took[name] = 1e6 * (process_time() - started) / BLOCK
        if block:  # the first warms up
            differences.append(took[MERGED] - took[APART])
            for name, value in took.items():
                samples.add(name, value)
    await client.aclose()
    return Row(
        measure="an append alone, memory",
        unit="µs",
        values={name: samples.median(name) for name in ways},
        judged=median(differences),
        target=Target(ALONE),
    )


async def _unmerged(handle: Handle, prefix: bytes, entries: Sequence[object]) -> Position:
    """What an append does, and nothing about others."""
    client = handle.client
    id = new_id()
    rows = client.codec.pack(handle.key, id, entries)
    result = await handle.commit(id=id, appends=(Append(prefix, rows),))
    ordinal, index = last_entry(client.codec, rows, len(entries))
    return position_of(append_key(prefix, result.version, ordinal), index)
