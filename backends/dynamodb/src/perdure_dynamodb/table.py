"""The table: the requests that perdure makes of it, one method each.

Reads are strongly consistent. A write is tried again as it was, with the same condition or the
same token, until DynamoDB answers: see :mod:`perdure_dynamodb.requests`.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from perdure_dynamodb.actions import (
    SORT,
    Action,
    Delete,
    Put,
    Row,
    Update,
    WireRow,
    key,
    row_of,
    values_of,
)
from perdure_dynamodb.capacity import Consumption
from perdure_dynamodb.creation import check, describe
from perdure_dynamodb.requests import Client
from perdure_dynamodb.settings import Settings

T = TypeVar("T")


class Found(msgspec.Struct, frozen=True):
    """A page of a query."""

    rows: list[Row]
    last: bytes | None
    """There may be more behind this sort key. ``None``: there is not."""


class _Capacity(msgspec.Struct, frozen=True):
    CapacityUnits: float = 0.0


class _Written(msgspec.Struct, frozen=True):
    ConsumedCapacity: _Capacity | None = None


class _Transacted(msgspec.Struct, frozen=True):
    ConsumedCapacity: list[_Capacity] | None = None


class _Queried(msgspec.Struct, frozen=True):
    Items: list[WireRow]
    LastEvaluatedKey: WireRow | None = None
    ConsumedCapacity: _Capacity | None = None


class _Got(msgspec.Struct, frozen=True):
    Item: WireRow | None = None
    ConsumedCapacity: _Capacity | None = None


class _GotTogether(msgspec.Struct, frozen=True):
    Responses: list[_Got]
    ConsumedCapacity: list[_Capacity] | None = None


_WRITTEN = msgspec.json.Decoder(_Written)
_TRANSACTED = msgspec.json.Decoder(_Transacted)
_QUERIED = msgspec.json.Decoder(_Queried)
_GOT_TOGETHER = msgspec.json.Decoder(_GotTogether)
_GOT = msgspec.json.Decoder(_Got)

_RANGE = "p = :p AND s BETWEEN :a AND :b"


class Table:
    """One table. Bound to the event loop of its first request; construction does no I/O.

    All methods raise ``Unavailable``, ``StoreClosed`` and ``Corrupt``, those that write also
    ``OutcomeUnknown``. Cancelling one leaves the table usable, and a write applied or not.
    """

    def __init__(self, settings: Settings, clock: Callable[[], int] | None = None) -> None:
        """``clock`` replaces DynamoDB's in :meth:`now`, in ms."""
        self.name = settings.table
        self.client = Client(settings)
        """For requests that are not about rows."""
        self._now = clock or self.client.clock.now
        self._opening = asyncio.Lock()
        self._opened = False

    @property
    def consumption(self) -> Consumption:
        """What all requests have cost."""
        return self.client.consumption

    def now(self) -> int:
        """The time in ms, by DynamoDB's clock: see :mod:`perdure_dynamodb.clock`."""
        return self._now()

    async def open(self) -> None:
        """Find credentials and endpoint, and see that the table is there and is one of ours.

        Idempotent. What somebody must mend is ``Unavailable(lasting=True)``.
        """
        if not self._opened:
            async with self._opening:
                if not self._opened:
                    check(await describe(self.client), self.name)
                    if self.client.clock.vague:  # connecting took long
                        await describe(self.client)
                    self._opened = True

    async def query(
        self,
        partition: bytes,
        low: bytes,
        high: bytes,
        *,
        reverse: bool = False,
        limit: int | None = None,
        only: Sequence[str] | None = None,
        start_after: bytes | None = None,
    ) -> Found:
        """The rows of a partition with ``low <= s <= high``, in order: a page of at most 1 MB.

        ``only`` names the attributes wanted; a row costs as much without the others.
        ``start_after`` is :attr:`Found.last` of the page before.
        """
        if low > high:
            return Found([], None)  # which DynamoDB takes for a mistake
        body: dict[str, object] = {
            "TableName": self.name,
            "ConsistentRead": True,
            "KeyConditionExpression": _RANGE,
            "ExpressionAttributeValues": values_of({"p": partition, "a": low, "b": high}),
            "ReturnConsumedCapacity": "TOTAL",
        }
        if reverse:
            body["ScanIndexForward"] = False
        if limit is not None:
            body["Limit"] = limit
        if only is not None:
            body["ProjectionExpression"] = ", ".join(only)
        if start_after is not None:
            body["ExclusiveStartKey"] = key(partition, start_after)
        reply = await self._ask("Query", body, _QUERIED)
        self._charge("Query", reply.ConsumedCapacity)
        last = reply.LastEvaluatedKey
        return Found(
            [row_of(item) for item in reply.Items],
            None if last is None else last[SORT].B,
        )

    async def get(
        self, partition: bytes, sort: bytes, *, only: Sequence[str] | None = None
    ) -> Row | None:
        """One row, or what is wanted of it."""
        body: dict[str, object] = {
            "TableName": self.name,
            "ConsistentRead": True,
            "Key": key(partition, sort),
            "ReturnConsumedCapacity": "TOTAL",
        }
        if only is not None:
            body["ProjectionExpression"] = ", ".join(only)
        reply = await self._ask("GetItem", body, _GOT)
        self._charge("GetItem", reply.ConsumedCapacity)
        return None if reply.Item is None else row_of(reply.Item)

    async def get_together(self, places: Sequence[tuple[bytes, bytes]]) -> list[Row | None]:
        """At most 100 rows, each by partition and sort key, as they are at one instant."""
        body: dict[str, object] = {
            "TransactItems": [
                {"Get": {"TableName": self.name, "Key": key(*place)}} for place in places
            ],
            "ReturnConsumedCapacity": "TOTAL",
        }
        reply = await self._ask("TransactGetItems", body, _GOT_TOGETHER)
        for capacity in reply.ConsumedCapacity or ():
            self._charge("TransactGetItems", capacity)
        return [None if got.Item is None else row_of(got.Item) for got in reply.Responses]

    async def put(self, put: Put) -> None:
        """Write a row. Raises also :class:`ConditionFailed`."""
        await self._write("PutItem", put)

    async def update(self, update: Update) -> None:
        """Change a row. Raises also :class:`ConditionFailed`.

        A try that was answered by nothing is made again: without a condition, the expression
        must come to the same when it is applied twice.
        """
        await self._write("UpdateItem", update)

    async def delete(self, delete: Delete) -> None:
        """Remove a row. Raises also :class:`ConditionFailed`."""
        await self._write("DeleteItem", delete)

    async def transact(self, actions: Sequence[Action]) -> None:
        """Apply all of at most 100 actions on different rows, or none.

        Each try carries the same token, by which DynamoDB knows it again for ten minutes.
        Raises also :class:`TransactionRefused`.
        """
        items: list[dict[str, object]] = []
        for action in actions:
            body = action.body()
            body["TableName"] = self.name
            items.append({action.KIND: body})
        reply = await self._ask(
            "TransactWriteItems",
            {
                "TransactItems": items,
                "ClientRequestToken": uuid.uuid4().hex,
                "ReturnConsumedCapacity": "TOTAL",
            },
            _TRANSACTED,
            writes=True,
        )
        for capacity in reply.ConsumedCapacity or ():
            self._charge("TransactWriteItems", capacity)

    async def aclose(self) -> None:
        """Wait for the requests that are under way, then close all connections. Idempotent."""
        await self.client.aclose()

    async def _write(self, operation: str, action: Put | Update | Delete) -> None:
        body = action.body()
        body["TableName"] = self.name
        body["ReturnConsumedCapacity"] = "TOTAL"
        reply = await self._ask(operation, body, _WRITTEN, writes=True)
        self._charge(operation, reply.ConsumedCapacity)

    async def _ask(
        self,
        operation: str,
        body: dict[str, object],
        decoder: msgspec.json.Decoder[T],
        *,
        writes: bool = False,
    ) -> T:
        if not self._opened:
            await self.open()
        return await self.client.ask(operation, body, decoder, writes=writes)

    def _charge(self, operation: str, capacity: _Capacity | None) -> None:
        if capacity is not None:
            self.client.charge(operation, capacity.CapacityUnits)
