"""A Valkey cluster on loopback, with all 16,384 slots shared out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from tests.services.server import free_port, wait_until
from tests.services.valkey import Valkey

SLOTS = 16_384

OPTIONS = (
    *("--cluster-enabled", "yes"),
    *("--cluster-config-file", "nodes.conf"),
    *("--cluster-node-timeout", "1000"),  # milliseconds; a failover begins after twice that
    *("--cluster-replica-validity-factor", "0"),
    *("--repl-diskless-sync-delay", "0"),
    *("--repl-ping-replica-period", "1"),
)


class Node(Valkey):
    """One node of a cluster."""

    bus: int
    """The port on which the nodes talk to one another."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--cluster-port", str(self.bus)]

    def _launch(self) -> None:
        if not hasattr(self, "bus"):
            self.bus = free_port()
        super()._launch()


class Cluster:
    """Several nodes: the primaries, with equal shares of the slots, then their replicas.

    Replica number n belongs to primary number n modulo the number of primaries. As a context
    manager it stops at the end.
    """

    nodes: Sequence[Node]
    primaries: int

    def __init__(self, nodes: Sequence[Node], primaries: int) -> None:
        self.nodes = nodes
        self.primaries = primaries

    @classmethod
    def start(
        cls, directory: Path, *options: str, primaries: int = 3, replicas: int = 0
    ) -> Self:
        """Start the nodes, join them, and wait until every one of them finds all slots served.

        ``replicas`` is their number in all; ``options`` are those of every node's command line.
        """

        with ThreadPoolExecutor() as executor:
            starting = [
                executor.submit(Node.start, directory / str(number), *OPTIONS, *options)
                for number in range(primaries + replicas)
            ]
            nodes = [node.result() for node in starting]
        cluster = cls(nodes, primaries)
        try:
            cluster._join()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def url(self) -> str:
        """That of the first node; a client learns the others from it."""
        return self.nodes[0].url

    def stop(self) -> None:
        """Stop all nodes and wait."""
        for node in reversed(self.nodes):
            node.stop()

    def wait_until_whole(self) -> None:
        """Wait until every running node knows a primary for each slot."""
        running = [node for node in self.nodes if node.running]
        wait_until(lambda: all(_state(node)["cluster_state"] == "ok" for node in running))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _join(self) -> None:
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < self.primaries:
                start, end = (SLOTS * n // self.primaries for n in (number, number + 1))
                node.call("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            if node is not first:
                first.call("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        count = str(len(self.nodes))
        wait_until(lambda: all(_state(n)["cluster_known_nodes"] == count for n in self.nodes))
        for number, replica in enumerate(self.nodes[self.primaries :]):
            primary = self.nodes[number % self.primaries]
            name = primary.call("CLUSTER", "MYID")
            assert isinstance(name, bytes)
            replica.call("CLUSTER", "REPLICATE", name)
        self.wait_until_whole()
        for replica in self.nodes[self.primaries :]:
            replica.wait_until_synchronized()


def _state(node: Node) -> dict[str, str]:
    return node.fields("CLUSTER", "INFO")
