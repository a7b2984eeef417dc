"""Moving slots from one node of a cluster to another."""

from typing import cast

from perdure_redis.router import SLOT_OF_BUCKET
from tests.services.cluster import Cluster, Node


def owner_of(cluster: Cluster, bucket: int) -> int:
    """The number of the primary that a bucket is on, before anything has moved."""
    return next(
        n
        for n in range(cluster.primaries)
        if SLOT_OF_BUCKET[bucket] < 16384 * (n + 1) // cluster.primaries
    )


class Move:
    """A slot being moved from one node to another, step by step, as redis-cli does."""

    def __init__(self, slot: int, source: Node, target: Node) -> None:
        self.slot, self.source, self.target = slot, source, target
        self._names = [node.call("CLUSTER", "MYID") for node in (source, target)]

    def begin(self) -> None:
        source, target = map(_bytes, self._names)
        self.target.call("CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        self.source.call("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    def some(self, most: int) -> int:
        """Move at most so many keys; how many were moved."""
        keys = self.source.call("CLUSTER", "GETKEYSINSLOT", self.slot, most)
        keys = cast("list[bytes]", keys)
        for name in keys:
            self.source.call("MIGRATE", "127.0.0.1", self.target.port, name, 0, 5000)
        return len(keys)

    def end(self) -> None:
        for node in (self.target, self.source):
            node.call("CLUSTER", "SETSLOT", self.slot, "NODE", _bytes(self._names[1]))


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
