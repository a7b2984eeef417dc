"""A cluster: who owns what, slots that move under load, primaries that die under load."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from perdure.errors import OutcomeUnknown, Unavailable

from perdure_redis.router import SLOT_OF_BUCKET, Router
from tests.backends.redis.nodes import Move, owner_of
from tests.backends.redis.wire import ALL, ECHO, PUSH, Clock, key, routed, until, values
from tests.services.cluster import OPTIONS, Cluster, Node
from tests.services.server import free_port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries, each with a replica. One test kills a primary."""
    with Cluster.start(tmp_path_factory.mktemp("cluster"), replicas=3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two primaries. Each test moves the slot of a bucket of its own."""
    with Cluster.start(tmp_path_factory.mktemp("pair"), primaries=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two primaries, either of which works on without the other."""
    directory = tmp_path_factory.mktemp("loose")
    alone = ("--cluster-require-full-coverage", "no")
    with Cluster.start(directory, *alone, primaries=2) as cluster:
        yield cluster


def names_known_to(node: Node) -> set[object]:
    listed = node.call("CLUSTER", "NODES")
    assert isinstance(listed, bytes)
    return {line.split(b" ")[0] for line in listed.splitlines()}


class Writers:
    """Push numbers, never the same one twice, and remember what was acknowledged where."""

    def __init__(self, router: Router, buckets: range, lists: int) -> None:
        self.router = router
        self.acknowledged: dict[tuple[int, bytes], Counter[bytes]] = {}
        self.epochs: dict[tuple[int, bytes], dict[bytes, bytes]] = {}
        self.unknown = 0
        self.refused = 0
        self._numbers = count()
        self._tasks = [
            asyncio.create_task(self._write(bucket, key(bucket, f"list-{n}")))
            for bucket in buckets
            for n in range(lists)
        ]

    @property
    def total(self) -> int:
        return sum(counter.total() for counter in self.acknowledged.values())

    async def more(self, writes: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = self.total + writes
        await until(lambda: self.total >= goal)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)

    async def _write(self, bucket: int, name: bytes) -> None:
        counter = self.acknowledged[bucket, name] = Counter()
        epochs = self.epochs[bucket, name] = {}
        while True:
            value = b"%d" % next(self._numbers)
            try:
                reply = await asyncio.shield(self._settled(bucket, name, value))
            except OutcomeUnknown:
                self.unknown += 1
            else:
                counter[value] += 1
                epochs[value] = reply

    async def _settled(self, bucket: int, name: bytes, value: bytes) -> bytes:
        while True:
            try:
                return (await self.router.call(bucket, PUSH, name, value)).epoch
            except Unavailable as error:
                assert not error.lasting, error
                self.refused += 1
                await asyncio.sleep(0.02)


async def test_a_cluster_is_recognised_by_any_node(valkey_cluster: Cluster) -> None:
    for node in valkey_cluster.nodes:
        async with routed(node.url) as router:
            await router.open()
            assert router.clustered
            assert {n.address.port for n in router.nodes()} == {
                n.port for n in valkey_cluster.nodes
            }


async def test_every_bucket_is_called_where_it_is(valkey_cluster: Cluster) -> None:
    async with routed(valkey_cluster.url) as router:
        await asyncio.gather(*(router.call(b, PUSH, key(b, "w"), b"v") for b in range(64)))
        for bucket in range(64):
            node = valkey_cluster.nodes[owner_of(valkey_cluster, bucket)]
            assert node.call("LLEN", key(bucket, "w")) == 1
            epochs = {(await router.call(bucket, ECHO, key(bucket, "w"), b"v")).epoch}
            assert len(epochs) == 1


async def test_replicas_and_absent_nodes_among_the_addresses(cluster: Cluster) -> None:
    replica = cluster.nodes[5]
    url = f"redis://127.0.0.1:{free_port()}?hosts=127.0.0.1:{replica.port}"
    async with routed(url) as router:
        await router.open()
        assert len(router.nodes()) == 3
        assert replica.port not in {node.address.port for node in router.nodes()}


async def test_a_database_that_a_cluster_does_not_have(valkey_cluster: Cluster) -> None:
    async with routed(f"{valkey_cluster.url}/1") as router:
        with pytest.raises(Unavailable, match="has no database 1") as caught:
            await router.open()
        assert caught.value.lasting


async def test_a_slot_moves_while_writers_write(pair: Cluster) -> None:
    bucket = 17
    source = pair.nodes[owner_of(pair, bucket)]
    target = pair.nodes[1 - owner_of(pair, bucket)]
    async with routed(pair.url) as router:
        writers = Writers(router, range(bucket, bucket + 2), lists=12)
        await writers.more(300)
        move = Move(SLOT_OF_BUCKET[bucket], source, target)
        move.begin()
        await writers.more(100)
        while await asyncio.to_thread(move.some, 3):
            await writers.more(100)
        move.end()
        await writers.more(300)
        await writers.stop()
        assert writers.unknown == 0
        assert router.nodes()[0].address.port in (source.port, target.port)
        for (b, name), acknowledged in writers.acknowledged.items():
            stored = Counter(values(await router.call(b, ALL, name)))
            assert stored >= acknowledged
            # What was under way when the writers were stopped may have been applied as well.
            assert stored.total() - acknowledged.total() in (0, 1)
    assert source.call("CLUSTER", "COUNTKEYSINSLOT", SLOT_OF_BUCKET[bucket]) == 0


async def test_a_new_key_in_a_moving_slot_is_made_at_the_target(pair: Cluster) -> None:
    bucket = 3
    source = pair.nodes[owner_of(pair, bucket)]
    target = pair.nodes[1 - owner_of(pair, bucket)]
    move = Move(SLOT_OF_BUCKET[bucket], source, target)
    async with routed(pair.url) as router:
        await router.call(bucket, PUSH, key(bucket, "old"), b"v")
        move.begin()
        target.call("SCRIPT", "FLUSH")  # asking, and sent whole
        assert (await router.call(bucket, PUSH, key(bucket, "new"), b"v")).value == 1
        assert (await router.call(bucket, PUSH, key(bucket, "new"), b"v")).value == 2
        assert (await router.call(bucket, PUSH, key(bucket, "old"), b"v")).value == 2
        name = key(bucket, "new")
        reply = await router.transact(bucket, (b"LLEN", name), (b"LLEN", name))
        assert reply.value == [2, 2]
        assert source.call("CLUSTER", "COUNTKEYSINSLOT", move.slot) == 1
        while move.some(10):
            pass
        move.end()
        assert (await router.call(bucket, PUSH, key(bucket, "old"), b"v")).value == 3


async def test_a_subscription_follows_its_slot(pair: Cluster) -> None:
    bucket = 9
    source = pair.nodes[owner_of(pair, bucket)]
    target = pair.nodes[1 - owner_of(pair, bucket)]
    woken = asyncio.Event()
    async with routed(pair.url) as router:
        await router.subscribe(bucket, key(bucket, "c"), woken.set)
        move = Move(SLOT_OF_BUCKET[bucket], source, target)
        move.begin()
        move.end()
        async with asyncio.timeout(10):
            await woken.wait()  # as something may have been missed
            woken.clear()
            assert target.call("SPUBLISH", key(bucket, "c"), "") == 1
            await woken.wait()


async def test_nodes_that_send_a_call_to_and_fro_may_agree_later(pair: Cluster) -> None:
    bucket = next(b for b in range(63, 0, -1) if owner_of(pair, b) == 0)
    source, target = pair.nodes
    name = target.call("CLUSTER", "MYID")
    assert isinstance(name, bytes)
    assign = ("CLUSTER", "SETSLOT", SLOT_OF_BUCKET[bucket], "NODE", name)
    async with routed(pair.url) as router:
        await router.open()
        source.call(*assign)
        with pytest.raises(Unavailable) as caught:
            await router.call(bucket, PUSH, key(bucket, "k"), b"v")
        assert not caught.value.lasting
        async with asyncio.timeout(20):
            while True:
                target.call(*assign)  # again: news of before may still be on its way to it
                try:
                    reply = await router.call(bucket, PUSH, key(bucket, "k"), b"v")
                except Unavailable as error:
                    assert not error.lasting
                    await asyncio.sleep(0.05)
                else:
                    break
        assert reply.value == 1


async def test_a_node_being_connected_to_is_not_lost_sight_of(
    loose: Cluster, tmp_path: Path
) -> None:
    bucket = next(b for b in range(64) if owner_of(loose, b) == 0)
    other = next(b for b in range(64) if owner_of(loose, b) == 1)
    with Node.start(tmp_path, *OPTIONS) as target:
        loose.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", target.port, target.bus)
        names = {node.call("CLUSTER", "MYID") for node in (*loose.nodes, target)}
        await until(lambda: names_known_to(target) == names_known_to(loose.nodes[0]) == names)
        await until(lambda: target.fields("CLUSTER", "INFO")["cluster_state"] == "ok")
        move = Move(SLOT_OF_BUCKET[bucket], loose.nodes[0], target)
        move.begin()
        async with routed(loose.url) as router:
            await router.open()
            os.kill(target.pid, signal.SIGSTOP)
            call = asyncio.create_task(router.call(bucket, ECHO, key(bucket, "k"), b"v"))
            await asyncio.sleep(0.1)  # it is being asked
            loose.nodes[1].call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.1)
            await router.call(other, ECHO, key(other, "k"), b"v")  # who owns what, anew
            os.kill(target.pid, signal.SIGCONT)
            assert (await call).value == b"v"
        listed = target.call("CLIENT", "LIST")
        assert isinstance(listed, bytes)
        assert b" name=perdure " not in listed
        loose.nodes[0].call("CLUSTER", "SETSLOT", move.slot, "STABLE")


async def test_a_dead_server_silences_nobody_on_another(loose: Cluster) -> None:
    dead = next(b for b in range(64) if owner_of(loose, b) == 0)
    alive = next(b for b in range(64) if owner_of(loose, b) == 1)
    woken = asyncio.Event()
    async with routed(loose.nodes[1].url) as router:
        await router.subscribe(dead, key(dead, "c"), asyncio.Event().set)
        await router.subscribe(alive, key(alive, "c"), woken.set)
        loose.nodes[0].kill()
        loose.nodes[1].call("CLIENT", "KILL", "TYPE", "pubsub")
        async with asyncio.timeout(10):
            await woken.wait()
        assert loose.nodes[1].call("SPUBLISH", key(alive, "c"), "") == 1


async def test_a_cluster_that_is_down_says_so_and_comes_back(pair: Cluster) -> None:
    buckets = [next(b for b in range(64) if owner_of(pair, b) == n) for n in (0, 1)]
    async with routed(pair.url + "?timeout=1&connect_timeout=1") as router:
        await router.open()
        pair.nodes[1].kill()
        state = pair.nodes[0].fields
        await until(lambda: state("CLUSTER", "INFO")["cluster_state"] == "fail")
        for bucket in buckets:
            with Clock() as clock, pytest.raises(Unavailable) as caught:
                await router.call(bucket, PUSH, key(bucket, "down"), b"v")
            assert not caught.value.lasting
            assert clock.seconds < 3
        pair.nodes[1].restart()
        await asyncio.to_thread(pair.wait_until_whole)
        for bucket in buckets:
            assert (await router.call(bucket, PUSH, key(bucket, "down"), b"v")).value == 1


async def test_a_primary_dies_while_writers_write(cluster: Cluster) -> None:
    async with routed(cluster.url + "?timeout=2") as router:
        writers = Writers(router, range(12), lists=2)
        await writers.more(500)
        victim = cluster.nodes[1]
        victim.kill()
        lost = [b for b in range(12) if owner_of(cluster, b) == 1]
        assert lost
        for bucket in lost:
            for name in (key(bucket, "list-0"), key(bucket, "list-1")):
                epochs = writers.epochs[bucket, name]
                await until(lambda epochs=epochs: len(set(epochs.values())) == 2)
        await writers.more(200)
        await writers.stop()
        assert victim.port not in {node.address.port for node in router.nodes()}
        for (b, name), acknowledged in writers.acknowledged.items():
            reply = await router.call(b, ALL, name)
            stored = Counter(values(reply))
            assert max(stored.values()) == 1
            missing = acknowledged - stored
            # What a failover lost was acknowledged in another epoch than the one that answers.
            assert all(writers.epochs[b, name][value] != reply.epoch for value in missing)
            if b not in lost:
                assert not missing
            else:
                assert reply.epoch != next(iter(writers.epochs[b, name].values()))
