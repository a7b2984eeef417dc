"""The servers that stand in for AWS and Cloudflare, and what takes part on each."""

import asyncio
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import rows_written, units
from benchmarks.bare_dynamodb import BareDynamoDB, connect, create_table, table_size
from benchmarks.bare_worker import OBJECTS, WORKER, BareWorker
from benchmarks.contenders import Contender, Perdure
from benchmarks.effort import Effort
from benchmarks.served import Served
from benchmarks.servers import Server
from benchmarks.table import Row
from tests.services import dynamodb as services
from tests.services.dynamodb import Dynoxide
from tests.services.node import MODULES
from tests.services.worker import Worker
from tests.services.workerd import Workerd

SERVE = "serve: perdure serve on SQLite, asked by the client of durable-objects; not judged."


class DynamoDBServer(Server):
    """dynoxide. Its tables are in memory."""

    name = "dynamodb"
    floor_notes = (
        "bare: boto3 in threads, one PutItem per turn; strongly consistent Query.",
        "dynamodb: perdure. " + SERVE,
        units.HOW,
    )

    def __init__(self, url: str, served: Served) -> None:
        super().__init__(url)
        self._served = served
        self._client = connect(url, services.REGION)
        self._tables = {"bare": f"{self.run}-bare", "ours": f"{self.run}-ours"}
        for table in self._tables.values():
            create_table(self._client, table)

    def ours(self, port: int | None = None) -> Perdure:
        endpoint = self.url if port is None else f"http://127.0.0.1:{port}"
        return Perdure(self.name, services.table_url(endpoint, self._tables["ours"]))

    def floors(self) -> Sequence[Contender]:
        return (self._floor(),)

    def beside(self) -> Sequence[Perdure]:
        return (serve(self._served),)

    async def own_rows(self, effort: Effort, seed: int) -> list[Row]:
        return await units.measure(
            self._floor(), self.ours(), effort.plan.judged_load, effort.visits, seed
        )

    async def size(self) -> int:
        sizes = [
            await asyncio.to_thread(table_size, self._client, table)
            for table in self._tables.values()
        ]
        return sum(sizes)

    async def about(self) -> str:
        return f"dynoxide {_version('@dynoxide/linux-x64')}, its tables in memory."

    async def clear(self) -> None:
        for table in self._tables.values():
            await asyncio.to_thread(self._client.delete_table, TableName=table)

    def _floor(self) -> BareDynamoDB:
        return BareDynamoDB(self._client, self._tables["bare"])


class DurableObjectsServer(Server):
    """workerd with our Worker, and one with the floor's."""

    name = "durable-objects"
    floor_notes = (
        "bare: aiohttp and a Worker that stores the same bytes, a row per turn, an object per "
        "session.",
        "durable-objects: perdure. " + SERVE,
    )

    def __init__(self, worker: Worker, bare: Workerd, served: Served) -> None:
        super().__init__(worker.url)
        self._worker = worker
        self._bare = bare
        self._served = served

    def floors(self) -> Sequence[Contender]:
        return (BareWorker(self._bare.url),)

    def beside(self) -> Sequence[Perdure]:
        return (serve(self._served),)

    async def own_rows(self, effort: Effort, seed: int) -> list[Row]:
        counting = self._worker.directory.with_name("counting")
        return [
            await rows_written.measure(BareWorker(self._bare.url), self.name, counting, seed)
        ]

    async def size(self) -> int:
        return sum(
            _bytes_in(server.directory / "disk") for server in (self._worker, self._bare)
        )

    async def about(self) -> str:
        return f"workerd {_version('workerd')}, its objects on disk."

    async def clear(self) -> None:
        pass  # the servers are of this run alone


def serve(served: Served) -> Perdure:
    """perdure's own server, to compare with."""
    return Perdure("serve", served.url, beside=True)


def _version(package: str) -> str:
    """Of what npm has installed."""
    description = (MODULES / package / "package.json").read_bytes()
    return msgspec.json.decode(description)["version"]


def _bytes_in(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@contextmanager
def dynamodb(directory: Path) -> Generator[Server]:
    """Servers of its own."""
    os.environ.pop("AWS_PROFILE", None)
    os.environ |= services.CREDENTIALS
    with (
        Dynoxide.start(directory / "dynoxide") as server,
        Served.start(directory / "served") as served,
    ):
        yield DynamoDBServer(server.url, served)


@contextmanager
def durable_objects(directory: Path) -> Generator[Server]:
    """Servers of its own."""
    with (
        Worker.serve(directory / "worker") as worker,
        Workerd.start(directory / "bare", WORKER, objects=OBJECTS) as bare,
        Served.start(directory / "served") as served,
    ):
        yield DurableObjectsServer(worker, bare, served)
