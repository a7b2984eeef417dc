"""What encryption costs: the same turns on the same database, sealed and in plain."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import perdure
from perdure.encryption import as_stored
from perdure.types import Scan, SessionKey

from benchmarks import serverless, servers
from benchmarks.contenders import encode, memory, sqlite
from benchmarks.effort import Effort, step
from benchmarks.sampling import Samples, rotated, settle
from benchmarks.table import Row, Table, Target
from benchmarks.workload import Turn, Workload

PLAIN, SEALED = "plain", "encrypted"

LOADED_TURNS = 1000
"""Or as many as the longest session is to have."""

NOTES = [
    "Both perdure, on sessions of one database: without keys, and with. Encrypted rows are "
    "compressed from 1 KiB on, and plain ones from 8 KiB on, which no turn has.",
    "append: what is judged is the difference. stored: bytes of keys and values of the log's "
    "rows, against the same entries as bare MessagePack.",
]


def measure(
    effort: Effort, directory: Path, seed: int, urls: Mapping[str, str | None]
) -> Table:
    """The table. ``directory`` takes the databases; ``urls``: of servers that run already."""
    folder = directory / "encryption"
    folder.mkdir()
    rows: list[Row] = []
    with step("encryption: memory"):
        rows += asyncio.run(_compare(effort, seed, "memory", memory().url))
    with step("encryption: sqlite"):
        rows += asyncio.run(_compare(effort, seed, "sqlite", sqlite(folder).url))
    for make in (
        lambda: servers.redis(folder / "redis", urls.get("redis")),
        lambda: servers.postgres(folder / "postgres", urls.get("postgres")),
        lambda: serverless.dynamodb(folder / "dynamodb"),
    ):
        with make() as server, step(f"encryption: {server.name}"):
            rows += asyncio.run(_compare(effort, seed, server.name, server.ours().url))
            asyncio.run(server.clear())
    return Table("encryption", (PLAIN, SEALED), rows, NOTES)


async def _compare(effort: Effort, seed: int, name: str, url: str) -> list[Row]:
    """The rows on one database."""
    ring = perdure.KeyRing({"bench": os.urandom(32)}, primary="bench")
    samples: Samples[tuple[str, str]] = Samples()
    async with perdure.Store(url) as plain, perdure.Store(url, keys=ring) as sealed:
        stores = {PLAIN: plain, SEALED: sealed}
        turns = Workload(seed).turns(max(min(LOADED_TURNS, effort.lengths[-1]), 1))
        sessions = {name: store.session(f"{name} turns") for name, store in stores.items()}
        settle()
        for number, turn in enumerate(turns):
            for kind in rotated((PLAIN, SEALED), number):
                await samples.time(
                    ("append", kind), lambda kind=kind, turn=turn: sessions[kind].append(*turn)
                )
        for count in range(effort.loads + 1):
            settle()
            for kind in rotated((PLAIN, SEALED), count):
                key = ("load" if count else "warm-up", kind)
                await samples.time(key, lambda kind=kind: _load(stores[kind], kind))
        stored = await _stored(sealed, sessions[SEALED].key)
    return _rows(name, samples, turns, stored)


def _rows(
    name: str, samples: Samples[tuple[str, str]], turns: list[Turn], stored: int
) -> list[Row]:
    append = {kind: 1e6 * samples.median(("append", kind)) for kind in (PLAIN, SEALED)}
    load = {kind: 1e3 * samples.median(("load", kind)) for kind in (PLAIN, SEALED)}
    bare = sum(len(encode(turn)) for turn in turns) / len(turns)
    return [
        Row(
            measure=f"{name}: append, p50",
            unit="µs",
            values=append,
            judged=append[SEALED] - append[PLAIN],
            target=Target(60),
        ),
        Row(
            measure=f"{name}: full load, cold",
            turns=len(turns),
            unit="ms",
            values=load,
            judged=load[SEALED] / load[PLAIN],
            target=Target(1.3),
        ),
        Row(
            measure=f"{name}: stored per turn",
            unit="bytes",
            values={PLAIN: bare, SEALED: stored / len(turns)},
            judged=stored / len(turns) / bare,
            target=Target(0.7),
        ),
    ]


async def _load(store: perdure.Store, name: str) -> object:
    """Everything, decoded, by one who has seen nothing of the session."""
    return await store.session(f"{name} turns").entries()


async def _stored(store: perdure.Store, key: SessionKey) -> int:
    """Bytes of a session's items, keys included, as its database has them."""
    backend = as_stored(store.backend)
    size, start, more = 0, b"", True
    while more:
        (rows,) = (await backend.read(key, Scan(start))).rows
        size += sum(len(item.key) + len(item.value) for item in rows.items)
        more = rows.more
        start = rows.items[-1].key + b"\0"
    return size
