"""Slots that move between the nodes of a cluster while sessions in them are written."""

import asyncio
import random
from collections.abc import Iterator
from uuid import uuid4

import pytest

from perdure import SessionKey
from perdure.plugins import open_backend

from perdure_redis.keys import Names
from perdure_redis.router import SLOT_OF_BUCKET
from tests.backends.redis.nodes import Move, owner_of
from tests.backends.redis.wire import until
from tests.races.load import LASTING, MORTAL, Load
from tests.races.test_kills import check
from tests.services.cluster import Cluster, Node


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two primaries."""
    with Cluster.start(tmp_path_factory.mktemp("pair"), primaries=2) as cluster:
        yield cluster


async def test_slots_move_there_and_back_under_load(pair: Cluster) -> None:
    """Key by key, so that a session and its bucket's index are apart for a while."""
    tenant = f"moving-{uuid4()}"
    keys = [SessionKey.of(tenant, "session", id) for id in (*LASTING, *MORTAL)]
    buckets = {Names("perdure").session(key)[0] for key in keys}
    load = Load(pair.url)
    busy, stop = asyncio.Event(), asyncio.Event()
    writing = asyncio.create_task(load.run(tenant, busy, stop))
    try:
        await busy.wait()
        for bucket in buckets:
            number = owner_of(pair, bucket)
            source, target = pair.nodes[number], pair.nodes[1 - number]
            for there, back in ((source, target), (target, source)):
                move = Move(SLOT_OF_BUCKET[bucket], there, back)
                move.begin()
                await asyncio.sleep(random.uniform(0, 0.05))
                moved = 1
                while moved:
                    moved = await asyncio.to_thread(move.some, 1)
                    await asyncio.sleep(random.uniform(0, 0.05))
                move.end()
                await asyncio.sleep(random.uniform(0, 0.05))
    finally:
        stop.set()
        await writing
        await load.aclose()
    backend = open_backend(pair.url)
    try:
        await check(backend, tenant, load.take_calls(), load.acknowledged)
    finally:
        await backend.aclose()


async def test_slots_move_as_a_whole_under_load(pair: Cluster) -> None:
    """As Valkey 9 moves them: the target gets a copy and what follows, then the slot."""
    tenant = f"moving-{uuid4()}"
    load = Load(pair.url)
    busy, stop = asyncio.Event(), asyncio.Event()
    writing = asyncio.create_task(load.run(tenant, busy, stop))
    try:
        await busy.wait()
        for _ in range(2):
            for source, target in (pair.nodes, pair.nodes[::-1]):
                # All but one: a primary without slots would become a replica.
                start = 8192 * pair.nodes.index(source)
                slots = range(start, start + 8191)
                await migrate(source, target, slots)
                await asyncio.sleep(random.uniform(0, 0.05))
                await migrate(target, source, slots)
    finally:
        stop.set()
        await writing
        await load.aclose()
    backend = open_backend(pair.url)
    try:
        await check(backend, tenant, load.take_calls(), load.acknowledged)
    finally:
        await backend.aclose()


async def migrate(source: Node, target: Node, slots: range) -> None:
    """Move slots by the servers' own means, and wait until both know of it."""
    name = target.call("CLUSTER", "MYID")
    assert isinstance(name, bytes)
    first, last = slots[0], slots[-1]
    source.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", name)
    await until(lambda: serves(target, first) and not serves(source, first))


def serves(node: Node, slot: int) -> bool:
    """Whether a node thinks that a slot is its own."""
    nodes = node.call("CLUSTER", "NODES")
    assert isinstance(nodes, bytes)
    (mine,) = (line.split() for line in nodes.decode().splitlines() if "myself" in line)
    ranges = (word.partition("-") for word in mine[8:] if not word.startswith("["))
    return any(int(low) <= slot <= int(high or low) for low, _, high in ranges)
