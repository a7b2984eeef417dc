"""The floor of DynamoDB: boto3 in threads."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, cast

import boto3

from benchmarks.contenders import Contender, decode_all, encode
from benchmarks.workload import Turn

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryInputTypeDef

BATCH = 25
"""Most rows of one BatchWriteItem."""
READ_UNIT = 4096
"""Bytes that a unit of a strongly consistent read pays for."""


class BareDynamoDB(Contender):
    """One PutItem per turn, its number in the order of all turns the sort key; strongly
    consistent Query."""

    name = "bare"

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        """``table`` is there, and empty."""
        self.units = 0.0
        """What DynamoDB has charged while it was ``metered``."""
        self.metered = False
        """Whether DynamoDB is to say what each request costs."""
        self._client = client
        self._table = table
        self._number = count()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        await asyncio.to_thread(self._fill, sessions)

    async def append(self, session: str, turn: Turn) -> None:
        await asyncio.to_thread(self._put, session, encode(turn))

    async def put_together(self, session: str, values: Sequence[object]) -> None:
        """Store values, a row each, in one transaction."""
        await asyncio.to_thread(self._transact, session, [encode(value) for value in values])

    async def put_each(self, session: str, values: Sequence[object]) -> None:
        """Store values, a row each, one after the other."""
        for value in values:
            await asyncio.to_thread(self._put, session, encode(value))

    async def load(self, session: str) -> list[Turn]:
        return decode_all(await asyncio.to_thread(self._bodies, session, None))

    async def load_last(self, session: str, turns: int) -> list[Turn]:
        return decode_all((await asyncio.to_thread(self._bodies, session, turns))[::-1])

    def _fill(self, sessions: Mapping[str, Sequence[Turn]]) -> None:
        for session, turns in sessions.items():
            for start in range(0, len(turns), BATCH):
                rows = [self._row(session, encode(t)) for t in turns[start : start + BATCH]]
                self._client.batch_write_item(
                    RequestItems={self._table: [{"PutRequest": {"Item": r}} for r in rows]}
                )

    def _put(self, session: str, body: bytes) -> None:
        answer = self._client.put_item(
            TableName=self._table,
            Item=self._row(session, body),
            ReturnConsumedCapacity=self._asked,
        )
        if self.metered:
            self.units += answer["ConsumedCapacity"].get("CapacityUnits", 0)

    def _transact(self, session: str, bodies: Sequence[bytes]) -> None:
        rows = [self._row(session, body) for body in bodies]
        self._client.transact_write_items(
            TransactItems=[{"Put": {"TableName": self._table, "Item": row}} for row in rows]
        )

    def _bodies(self, session: str, last: int | None) -> list[bytes]:
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "KeyConditionExpression": "p = :p",
            "ExpressionAttributeValues": {":p": {"B": session.encode()}},
            "ConsistentRead": True,
            "ReturnConsumedCapacity": self._asked,
        }
        if last is not None:
            query["ScanIndexForward"] = False
            query["Limit"] = last
        bodies: list[bytes] = []
        while True:
            page = self._client.query(**query)
            bodies += [cast("bytes", row["v"].get("B")) for row in page["Items"]]
            if self.metered:
                self.units += page["ConsumedCapacity"].get("CapacityUnits", 0)
            if last is not None or not (key := page.get("LastEvaluatedKey")):
                return bodies
            query["ExclusiveStartKey"] = key

    def _row(self, session: str, body: bytes) -> "dict[str, AttributeValueTypeDef]":
        number = next(self._number).to_bytes(8)
        return {"p": {"B": session.encode()}, "s": {"B": number}, "v": {"B": body}}

    @property
    def _asked(self) -> Literal["TOTAL", "NONE"]:
        return "TOTAL" if self.metered else "NONE"


def connect(endpoint: str, region: str) -> "DynamoDBClient":
    """boto3's client, with the credentials of the environment."""
    # As boto3-stubs types it, for all services, most of it is unknown.
    make = cast("Callable[..., DynamoDBClient]", boto3.__dict__["client"])
    return make("dynamodb", endpoint_url=endpoint, region_name=region)


def create_table(client: "DynamoDBClient", table: str) -> None:
    """On demand, with binary keys ``p`` and ``s``."""
    client.create_table(
        TableName=table,
        KeySchema=[
            {"AttributeName": "p", "KeyType": "HASH"},
            {"AttributeName": "s", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "p", "AttributeType": "B"},
            {"AttributeName": "s", "AttributeType": "B"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def table_size(client: "DynamoDBClient", table: str) -> int:
    """Bytes of its rows, as DynamoDB counts them: by what it charges for reading them all."""
    units = 0.0
    start: dict[str, AttributeValueTypeDef] = {}
    while True:
        more: dict[str, Any] = {"ExclusiveStartKey": start} if start else {}
        page = client.scan(
            TableName=table,
            Select="COUNT",
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
            **more,
        )
        units += page["ConsumedCapacity"].get("CapacityUnits", 0)
        if not (start := page.get("LastEvaluatedKey", {})):
            return round(units * READ_UNIT)
