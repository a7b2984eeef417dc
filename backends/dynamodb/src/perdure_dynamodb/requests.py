"""Requests to DynamoDB, each tried until it is answered or its time is over.

A request is tried again as it was. What was perhaps applied by a try that nobody answered is
never reported as not applied.
"""

import asyncio
import random
from typing import TypeVar

import msgspec

from perdure.errors import OutcomeUnknown, StoreClosed, Unavailable

from perdure_dynamodb.account import find
from perdure_dynamodb.actions import (
    ConditionFailed,
    Reason,
    Row,
    TransactionRefused,
    WireRow,
    row_of,
)
from perdure_dynamodb.capacity import Consumption, meters
from perdure_dynamodb.clock import Clock
from perdure_dynamodb.connection import Connection, Reply, trust
from perdure_dynamodb.failures import (
    CANCELLED,
    CONDITION_FAILED,
    CONDITION_OF_ACTION_FAILED,
    Kind,
    Lost,
    Refused,
    kind_of,
    refusal,
)
from perdure_dynamodb.settings import Settings

FIRST_PAUSE = 0.025
"""Seconds that the first pause between two tries lasts at most; each later one twice that.
How long it lasts is left to chance (full jitter), so that those who met do not meet again."""

LONGEST_PAUSE = 1.0

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_REFUSED = msgspec.json.Decoder(Refused)


class Client:
    """Asks in the name of one table. Bound to the event loop of its first request."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        """DynamoDB's, as far as replies tell."""
        self.consumption = Consumption()
        """What all requests have cost."""
        self.region = settings.region or ""
        """Known once it is open, if the settings do not name it."""
        self.endpoint = settings.endpoint or ""
        """As ``region``."""
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._closed = False

    async def ask(
        self,
        operation: str,
        request: dict[str, object],
        decoder: msgspec.json.Decoder[T],
        *,
        writes: bool = False,
    ) -> T:
        """Send a request, named as the API does, and return its reply.

        Raises ``Unavailable``, ``StoreClosed`` and ``Corrupt``; :class:`ConditionFailed` and
        :class:`TransactionRefused` where the request has conditions; and ``OutcomeUnknown``
        if it ``writes``.
        """
        connection = self._connection
        if connection is None or self._closed:
            connection = await self._connect()
        self._under_way += 1
        try:
            return await self._ask(connection, operation, request, decoder, writes=writes)
        finally:
            self._under_way -= 1
            if self._closed and not self._under_way:
                self._idle.set()

    def charge(self, operation: str, units: float) -> None:
        """Note what a reply said that its request has cost."""
        for consumption in (self.consumption, *meters()):
            consumption.charge(operation, units)

    async def aclose(self) -> None:
        """Wait for the requests that are under way, then close all connections. Idempotent.

        Later requests raise ``StoreClosed``.
        """
        self._closed = True
        if self._under_way:
            await self._idle.wait()
        if self._connection is not None:
            await self._connection.aclose()

    async def _connect(self) -> Connection:
        async with self._opening:
            if self._connection is None and not self._closed:
                account = await asyncio.to_thread(find, self.settings)
                tls = await asyncio.to_thread(trust, self.settings, account)
                if not self._closed:
                    self._connection = Connection(self.settings, account, self.clock, tls)
                    self.region, self.endpoint = account.region, account.endpoint
            if self._connection is None or self._closed:
                raise StoreClosed("the store is closed")
            return self._connection

    async def _ask(
        self,
        connection: Connection,
        operation: str,
        request: dict[str, object],
        decoder: msgspec.json.Decoder[T],
        *,
        writes: bool,
    ) -> T:
        body = _encode(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.timeout
        longest = FIRST_PAUSE
        mended: set[Kind] = set()
        applied = False
        """Perhaps, by a try that was not answered."""
        try:
            while True:
                self._count(operation)
                try:
                    reply = await connection.exchange(operation, body)
                    if reply.status == 200:
                        return decoder.decode(reply.body)
                except Lost as lost:
                    applied = applied or lost.sent
                    error = Unavailable(
                        f"dynamodb at {self.endpoint}: {lost.reason}", lasting=lost.lasting
                    )
                except msgspec.MsgspecError:
                    applied = True
                    error = Unavailable(
                        f"dynamodb at {self.endpoint}: its reply is not DynamoDB's"
                    )
                else:
                    refused = _refused(reply.body)
                    _raise_conditions(refused, repeated=applied)
                    kind = kind_of(reply.status, refused)
                    if kind not in mended and await self._mend(connection, kind, reply):
                        mended.add(kind)
                        continue
                    applied = applied or kind is Kind.UNKNOWN
                    error = refusal(
                        reply.status,
                        refused,
                        kind,
                        operation=operation,
                        settings=self.settings,
                        region=self.region,
                    )
                pause = random.uniform(0, longest)
                if error.lasting or loop.time() + pause > deadline:
                    raise error
                longest = min(2 * longest, LONGEST_PAUSE)
                await asyncio.sleep(pause)
        except (Unavailable, StoreClosed) as error:
            if writes and applied:
                raise OutcomeUnknown(f"{error}; it may have been applied") from None
            raise

    async def _mend(self, connection: Connection, kind: Kind, reply: Reply) -> bool:
        """Whether the same request may now be granted."""
        if kind is Kind.CREDENTIALS:
            return await connection.renewal.replace(reply.credentials)
        return kind is Kind.CLOCK  # which the reply has set

    def _count(self, operation: str) -> None:
        for consumption in (self.consumption, *meters()):
            consumption.count(operation)


def _refused(body: bytes) -> Refused:
    try:
        return _REFUSED.decode(body)
    except msgspec.MsgspecError:
        return Refused()  # from something on the way; its status is all it says


def _raise_conditions(refused: Refused, *, repeated: bool) -> None:
    if refused.code == CONDITION_FAILED:
        raise ConditionFailed(_row(refused.Item), repeated=repeated)
    if refused.code == CANCELLED:
        reasons = tuple(
            Reason(reason.Code == CONDITION_OF_ACTION_FAILED, _row(reason.Item))
            for reason in refused.CancellationReasons or ()
        )
        if any(reason.failed for reason in reasons):
            raise TransactionRefused(reasons, repeated=repeated)


def _row(attributes: WireRow | None) -> Row | None:
    return row_of(attributes) if attributes else None
