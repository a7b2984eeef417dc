"""What the servers are, and what their settings promise of a commit."""

import asyncio
from typing import cast

import msgspec

from perdure.backend import Durability
from perdure.errors import PerdureError, Unsupported

from perdure_redis.router import Node, Router

_RANK = (Durability.NONE, Durability.PROCESS, Durability.HOST)

_NOTES = {
    Durability.HOST: "An acknowledged commit is in the append-only file and on the disk "
    "(appendfsync always): it survives a power loss; a failover may lose the last ones.",
    Durability.PROCESS: "An acknowledged commit is in the append-only file, which is synced "
    "later (appendfsync everysec or no): a power loss, a failover, or a crash while the disk "
    "is slow may lose the last ones.",
    Durability.NONE: "An acknowledged commit is in the server's memory: a crash loses what "
    "came after the last snapshot, if any is taken, and a failover the last ones.",
}


class Facts(msgspec.Struct, frozen=True):
    """What one server says of itself."""

    node: str
    version: str
    maxmemory: int
    policy: str
    appendonly: bool
    appendfsync: str
    """``unknown`` where CONFIG is forbidden."""
    snapshots: str
    replicas: str
    used_memory: str

    @property
    def durability(self) -> Durability:
        if not self.appendonly:
            return Durability.NONE
        return Durability.HOST if self.appendfsync == "always" else Durability.PROCESS

    @property
    def may_evict(self) -> bool:
        return self.maxmemory > 0 and self.policy != "noeviction"


async def inspect(router: Router) -> list[Facts]:
    """The facts of every server that owns sessions. Raises ``Unavailable``."""
    await router.open()  # for the case that a connection was lost
    return await asyncio.gather(*(_facts(router, node) for node in router.nodes()))


def refuse_eviction(servers: list[Facts]) -> None:
    """Raise ``Unsupported`` if a server may drop keys when its memory is full."""
    for facts in servers:
        if facts.may_evict:
            raise Unsupported(
                f"redis {facts.node} drops keys when its memory is full (maxmemory-policy "
                f"{facts.policy}), and sessions with them: set maxmemory-policy noeviction, or "
                "accept it by ?eviction=allow"
            )


def durability_of(servers: list[Facts]) -> tuple[Durability, str]:
    """What all servers promise, and one sentence for people."""
    least = min((facts.durability for facts in servers), key=_RANK.index)
    return least, _NOTES[least]


def details_of(servers: list[Facts], *, clustered: bool) -> dict[str, str]:
    """For people."""

    def each(values: list[str]) -> str:
        return values[0] if len(set(values)) == 1 else ", ".join(values)

    first = servers[0]
    details = {
        "server": each([facts.version for facts in servers]),
        "mode": f"cluster, {len(servers)} nodes with sessions" if clustered else "one server",
        "append-only file": each(
            [f"yes, appendfsync {f.appendfsync}" if f.appendonly else "no" for f in servers]
        ),
        "snapshots": each([facts.snapshots for facts in servers]),
        "replicas": each([facts.replicas for facts in servers]),
        "maxmemory": each(
            [f"{f.maxmemory} bytes, {f.policy}" if f.maxmemory else "no limit" for f in servers]
        ),
        "memory": each([facts.used_memory for facts in servers]),
    }
    if any(facts.may_evict for facts in servers):
        details["warning"] = "the server may drop sessions when its memory is full"
    elif first.appendonly and first.appendfsync == "unknown":
        details["warning"] = "CONFIG is forbidden: what appendfsync is, nobody knows"
    return details


async def _facts(router: Router, node: Node) -> Facts:
    told: dict[str, str] = {}
    for section in (b"server", b"memory", b"persistence", b"replication"):
        text = cast("bytes", await router.execute(node, b"INFO", section)).decode()
        for line in text.splitlines():
            name, colon, value = line.partition(":")
            if colon:
                told[name] = value
    config = await _config(router, node)
    name = "valkey" if "valkey_version" in told else "redis"
    version = told.get("valkey_version") or told.get("redis_version", "unknown")
    return Facts(
        node=str(node.address),
        version=f"{name} {version}",
        maxmemory=int(told.get("maxmemory", "0")),
        policy=told.get("maxmemory_policy", "noeviction"),
        appendonly=told.get("aof_enabled") == "1",
        appendfsync=config.get("appendfsync", "unknown"),
        snapshots=config.get("save", "unknown") or "none",
        replicas=told.get("connected_slaves", "0"),
        used_memory=told.get("used_memory_human", "unknown"),
    )


async def _config(router: Router, node: Node) -> dict[str, str]:
    try:
        reply = await router.execute(node, b"CONFIG", b"GET", b"appendfsync", b"save")
    except PerdureError:
        return {}  # an ACL or a provider forbids it
    pairs = cast("dict[bytes, bytes]", reply)
    return {name.decode(): value.decode() for name, value in pairs.items()}
