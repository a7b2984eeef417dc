"""What the table looks like: to make it, and to recognise it.

On demand unless told otherwise: a table then costs nothing while nothing is asked of it, and no
capacity has to be planned. There is no secondary index. Time to live only clears away what
nobody needs any more; nothing depends on it.
"""

import asyncio

import msgspec

from perdure.errors import Unavailable

from perdure_dynamodb.actions import EXPIRY, PARTITION, SORT
from perdure_dynamodb.failures import TableMissing
from perdure_dynamodb.requests import Client
from perdure_dynamodb.settings import Settings

KEYS = ((PARTITION, "HASH"), (SORT, "RANGE"))
"""Names and kinds of the keys, all binary."""

POLL = 1.0
"""Seconds between looks at a table that is being made."""


PATIENCE = 300.0
"""Seconds after which a table that is still being made is given up."""


class Capacity(msgspec.Struct, frozen=True):
    """Units a second, provisioned."""

    read: int
    write: int


class Key(msgspec.Struct, frozen=True):
    AttributeName: str
    KeyType: str


class KeyAttribute(msgspec.Struct, frozen=True):
    AttributeName: str
    AttributeType: str


class Billing(msgspec.Struct, frozen=True):
    BillingMode: str | None = None


class Throughput(msgspec.Struct, frozen=True):
    ReadCapacityUnits: int = 0
    WriteCapacityUnits: int = 0


class Encryption(msgspec.Struct, frozen=True):
    Status: str | None = None
    SSEType: str | None = None


class Described(msgspec.Struct, frozen=True):
    """A table, as DynamoDB describes it."""

    KeySchema: list[Key]
    AttributeDefinitions: list[KeyAttribute]
    TableStatus: str = "ACTIVE"
    BillingModeSummary: Billing | None = None
    ProvisionedThroughput: Throughput | None = None
    SSEDescription: Encryption | None = None
    DeletionProtectionEnabled: bool = False


class _Description(msgspec.Struct, frozen=True):
    Table: Described


class TimeToLive(msgspec.Struct, frozen=True):
    TimeToLiveStatus: str
    AttributeName: str | None = None


class _Lapsing(msgspec.Struct, frozen=True):
    TimeToLiveDescription: TimeToLive


class _Done(msgspec.Struct, frozen=True):
    pass


_DESCRIBED = msgspec.json.Decoder(_Description)
_LAPSING = msgspec.json.Decoder(_Lapsing)
_DONE = msgspec.json.Decoder(_Done)


def definition(table: str, capacity: Capacity | None = None) -> dict[str, object]:
    """The ``CreateTable`` request. No ``capacity``: on demand."""
    request: dict[str, object] = {
        "TableName": table,
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": "B"} for name, _ in KEYS
        ],
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in KEYS],
        "BillingMode": "PAY_PER_REQUEST",
        "DeletionProtectionEnabled": True,
    }
    if capacity is not None:
        request["BillingMode"] = "PROVISIONED"
        request["ProvisionedThroughput"] = {
            "ReadCapacityUnits": capacity.read,
            "WriteCapacityUnits": capacity.write,
        }
    return request


async def create(settings: Settings, capacity: Capacity | None = None) -> bool:
    """Make the table, wait until it can be used, and turn time to live on.

    False: it was there already, and is one of ours (its capacity is left as it is). Raises
    ``Unavailable`` and ``OutcomeUnknown``; it may be repeated.
    """
    client = Client(settings)
    try:
        try:
            await describe(client)
            made = False
        except TableMissing:
            request = definition(settings.table, capacity)
            await client.ask("CreateTable", request, _DONE, writes=True)
            made = True
        check(await _ready(client), settings.table)
        if (await time_to_live(client)).TimeToLiveStatus == "DISABLED":
            lapsing = {"Enabled": True, "AttributeName": EXPIRY}
            await client.ask(
                "UpdateTimeToLive",
                {"TableName": settings.table, "TimeToLiveSpecification": lapsing},
                _DONE,
                writes=True,
            )
        return made
    finally:
        await client.aclose()


async def _ready(client: Client) -> Described:
    """The table, once it is made. For a while it may seem not to be there."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        try:
            described = await describe(client)
            if described.TableStatus != "CREATING" or loop.time() > deadline:
                return described
        except TableMissing:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(POLL)


async def describe(client: Client) -> Described:
    """The table. Raises ``Unavailable``."""
    request: dict[str, object] = {"TableName": client.settings.table}
    return (await client.ask("DescribeTable", request, _DESCRIBED)).Table


async def time_to_live(client: Client) -> TimeToLive:
    """Whether DynamoDB removes rows, and by which attribute. Raises ``Unavailable``."""
    request: dict[str, object] = {"TableName": client.settings.table}
    return (await client.ask("DescribeTimeToLive", request, _LAPSING)).TimeToLiveDescription


def check(described: Described, table: str) -> None:
    """Raises ``Unavailable`` where perdure cannot keep its rows in such a table."""
    types = {a.AttributeName: a.AttributeType for a in described.AttributeDefinitions}
    keys = {
        key.KeyType: f"{key.AttributeName!r} of type {types.get(key.AttributeName)}"
        for key in described.KeySchema
    }
    wanted = {kind: f"{name!r} of type B" for name, kind in KEYS}
    if keys != wanted:
        raise Unavailable(
            f"dynamodb table {table!r} is not one of perdure's: its keys are {_listed(keys)} "
            f"and not {_listed(wanted)}; name another table, or make one with: "
            "perdure dynamodb create-table",
            lasting=True,
        )
    if described.TableStatus not in ("ACTIVE", "UPDATING"):
        raise Unavailable(
            f"dynamodb table {table!r} is {described.TableStatus}",
            lasting=described.TableStatus != "CREATING",
        )


def _listed(keys: dict[str, str]) -> str:
    return ", ".join(f"{kind} {what}" for kind, what in sorted(keys.items()))
