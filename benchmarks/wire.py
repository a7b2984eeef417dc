"""What goes over the wire: counted by a proxy between a store and its server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import Self

import msgspec

from perdure.codec import Codec
from perdure.types import SessionKey

from benchmarks.contenders import Perdure
from benchmarks.lengths import LAST_TURNS
from benchmarks.table import Row, Target
from benchmarks.workload import Turn, Workload

Operation = Callable[[], Awaitable[object]]

EACH = 20
"""How often each operation is counted."""

HOW = (
    "Round trips and bytes: counted by a proxy. Payload: the rows as they are stored; ids: of "
    "tenant, kind and session."
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of ours."""

    besides: float | None = 250
    """Bytes of an append besides payload and ids."""
    page: int | None = None
    """Bytes of rows for which a full load may take a round trip. ``None``: one for all."""


class Traffic(msgspec.Struct):
    """What has passed so far."""

    requests: int = 0
    """How often the client began to send after the server had, or at first: as long as one
    operation follows the other, these are round trips."""
    replies: int = 0
    """The same of the server."""
    sent: int = 0
    """Bytes, by the client."""
    received: int = 0
    """Bytes, by the client too."""

    def since(self, before: "Traffic") -> "Traffic":
        """What has passed since ``before``."""
        return Traffic(
            requests=self.requests - before.requests,
            replies=self.replies - before.replies,
            sent=self.sent - before.sent,
            received=self.received - before.received,
        )


class Proxy:
    """A TCP server on a loopback port that passes everything on, and counts it.

    Not for TLS: what it counts would not be the protocol's.
    """

    def __init__(self, host: str, port: int) -> None:
        """Where to pass it on to."""
        self.traffic = Traffic()
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.sockets[0].getsockname()[1]

    async def _accept(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        server, to_server = await asyncio.open_connection(*self._target)
        last_was_client = False

        def from_client(size: int) -> None:
            nonlocal last_was_client
            self.traffic.requests += not last_was_client
            self.traffic.sent += size
            last_was_client = True

        def from_server(size: int) -> None:
            nonlocal last_was_client
            self.traffic.replies += last_was_client
            self.traffic.received += size
            last_was_client = False

        self._tasks |= {
            asyncio.create_task(_pass_on(client, to_server, from_client)),
            asyncio.create_task(_pass_on(server, to_client, from_server)),
        }


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, count: Callable[[int], None]
) -> None:
    """Until either side hangs up."""
    try:
        while data := await source.read(1 << 16):
            count(len(data))
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass
    finally:
        target.close()


async def measure(
    contender: Perdure,
    proxy: Proxy,
    lengths: tuple[int, ...],
    judged: int,
    seed: int,
    limits: Limits,
) -> list[Row]:
    """The rows on bytes and round trips, of one that goes through ``proxy``.

    Its sessions of these ``lengths`` are new; round trips are of the one that is ``judged``.
    """
    workload = Workload(seed)
    await contender.open()
    rows: list[Row] = []
    trips: list[Row] = []
    for turns in lengths:
        id = f"wire-{turns}"
        stored = workload.turns(turns)
        for turn in stored:
            await contender.append(id, turn)
        batch = workload.turns(EACH)
        appended = await _counted(
            proxy, [lambda id=id, t=turn: contender.append(id, t) for turn in batch]
        )
        key = contender.session(id).key
        besides = (appended.sent - _payload(key, batch) - EACH * _ids(key)) / EACH
        rows.append(
            Row(
                measure="append: sent besides payload, ids",
                turns=turns,
                unit="bytes",
                values={contender.name: besides},
                judged=besides,
                target=None if limits.besides is None else Target(limits.besides),
            )
        )
        if turns == judged:
            pages = 1 if limits.page is None else ceil(_payload(key, stored) / limits.page)
            trips = await _round_trips(contender, id, workload, proxy, pages)
            trips.insert(0, _trips(contender, "append", appended, 1))
    await contender.close()
    return rows + trips


async def _round_trips(
    contender: Perdure, id: str, workload: Workload, proxy: Proxy, pages: int
) -> list[Row]:
    """``pages``: as many round trips a cold load may take."""
    await contender.warm(id)
    batch = workload.turns(EACH)
    operations: dict[str, tuple[int, list[Operation]]] = {
        "warm turn": (2, [lambda t=turn: contender.turn(id, t) for turn in batch]),
        "full load, warm": (1, [lambda: contender.warm(id)] * EACH),
        "full load, cold": (pages, [lambda: contender.load(id)] * EACH),
        "last 20 items, cold": (1, [lambda: contender.load_last(id, LAST_TURNS)] * EACH),
    }
    return [
        _trips(contender, name, await _counted(proxy, each), limit)
        for name, (limit, each) in operations.items()
    ]


def _trips(contender: Perdure, operation: str, traffic: Traffic, limit: int) -> Row:
    each = max(traffic.requests, traffic.replies) / EACH
    return Row(
        measure=f"{operation}: round trips",
        unit="",
        values={contender.name: each},
        judged=each,
        target=Target(limit),
    )


def _payload(key: SessionKey, turns: list[Turn]) -> int:
    """Bytes that no way of appending these turns could spare: the rows."""
    codec = Codec()
    return sum(len(row) for turn in turns for row in codec.pack(key, bytes(16), turn))


def _ids(key: SessionKey) -> int:
    """Bytes that no way of appending once could spare: whose the turn is."""
    return sum(len(part.encode()) for part in (key.tenant, key.kind, key.id))


async def _counted(proxy: Proxy, operations: Sequence[Operation]) -> Traffic:
    """What passes while these are done, one after the other."""
    before = msgspec.structs.replace(proxy.traffic)
    for operation in operations:
        await operation()
    return proxy.traffic.since(before)
