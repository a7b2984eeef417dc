"""A failover that loses acknowledged commits: every handle that had seen them notices."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from perdure import Store

from perdure_redis.keys import Names
from tests.backends.redis.nodes import owner_of
from tests.backends.redis.wire import until
from tests.services.cluster import Cluster
from tests.services.sentinel import Sentinels
from tests.services.valkey import Valkey


@pytest.fixture
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels.start(tmp_path_factory.mktemp("sentinels")) as sentinels:
        yield sentinels


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries, each with a replica."""
    with Cluster.start(tmp_path_factory.mktemp("cluster"), replicas=3) as cluster:
        yield cluster


async def test_under_sentinel(sentinels: Sentinels) -> None:
    await lose_a_commit(sentinels.url, lambda _: (sentinels.primary, sentinels.replica))


async def test_in_a_cluster(cluster: Cluster) -> None:
    def servers(store: Store) -> tuple[Valkey, Valkey]:
        bucket, _ = Names("perdure").session(store.key("lost"))
        number = owner_of(cluster, bucket)
        return cluster.nodes[number], cluster.nodes[3 + number]

    await lose_a_commit(cluster.url, servers)


def offset(server: Valkey) -> str:
    """How far its copy of the stream of changes goes."""
    return server.fields("INFO", "replication")["master_repl_offset"]


async def lose_a_commit(url: str, servers: Callable[[Store], tuple[Valkey, Valkey]]) -> None:
    """Stop the replica, have a commit acknowledged that it does not get, kill the primary."""
    async with Store(url, deadline=60) as store, Store(url, deadline=60) as other:
        primary, replica = servers(store)
        session = store.session("lost")
        await session.append("kept")
        await until(lambda: offset(primary) == offset(replica))
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            primary.call("CLIENT", "KILL", "TYPE", "replica")
            await session.append("lost")
            await session.cells.put("seen", True)
            assert list(await session.entries()) == ["kept", "lost"]
            before = await session.head()
            primary.kill()
        finally:
            os.kill(replica.pid, signal.SIGCONT)

        # Somebody else makes the same versions again, with other contents, and goes beyond.
        again = ["made again", "and more", "and beyond"]
        for entry in again:
            await other.session("lost").append(entry)
        after = await other.session("lost").head()
        assert before is not None
        assert after is not None
        assert (after.version, after.incarnation) == (before.version + 1, before.incarnation)
        assert list(await session.entries()) == ["kept", *again]
        assert await session.cells.get("seen") is None
        await session.append("on")
        assert list(await session.entries()) == ["kept", *again, "on"]
