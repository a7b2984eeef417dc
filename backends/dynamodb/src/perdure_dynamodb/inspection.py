"""What the table is set to, for people."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from perdure.errors import Unavailable

from perdure_dynamodb.actions import EXPIRY
from perdure_dynamodb.creation import Described, TimeToLive, describe, time_to_live
from perdure_dynamodb.table import Table

T = TypeVar("T")

UNKNOWN = "unknown"


class _Recovery(msgspec.Struct, frozen=True):
    PointInTimeRecoveryStatus: str = UNKNOWN


class _Backups(msgspec.Struct, frozen=True):
    PointInTimeRecoveryDescription: _Recovery = _Recovery()


class _Continuous(msgspec.Struct, frozen=True):
    ContinuousBackupsDescription: _Backups = _Backups()


_CONTINUOUS = msgspec.json.Decoder(_Continuous)


async def details(table: Table) -> dict[str, str]:
    """Region, endpoint, mode and so on. Raises as :meth:`Table.open` does.

    What the credentials do not permit to be asked is ``unknown``.
    """
    await table.open()
    client = table.client
    described, lapsing, backups = await asyncio.gather(
        describe(client),
        _permitted(lambda: time_to_live(client)),
        _permitted(
            lambda: client.ask(
                "DescribeContinuousBackups", {"TableName": table.name}, _CONTINUOUS
            )
        ),
    )
    return {
        "table": table.name,
        "region": client.region,
        "endpoint": client.endpoint,
        "mode": _mode(described),
        "status": described.TableStatus,
        "time to live": _time_to_live(lapsing),
        "encryption": _encryption(described),
        "point-in-time recovery": UNKNOWN if backups is None else _recovery(backups),
        "deletion protection": "on" if described.DeletionProtectionEnabled else "off",
    }


async def _permitted(ask: Callable[[], Awaitable[T]]) -> T | None:
    try:
        return await ask()
    except Unavailable as error:
        if error.lasting:
            return None  # a permission is missing, or a stand-in does not know the request
        raise


def _mode(described: Described) -> str:
    billing = described.BillingModeSummary
    if billing is not None and billing.BillingMode == "PAY_PER_REQUEST":
        return "on demand"
    provisioned = described.ProvisionedThroughput
    if provisioned is None:
        return "provisioned"
    return (
        f"provisioned, {provisioned.ReadCapacityUnits} read and "
        f"{provisioned.WriteCapacityUnits} write units a second"
    )


def _time_to_live(lapsing: TimeToLive | None) -> str:
    if lapsing is None:
        return UNKNOWN
    state = lapsing.TimeToLiveStatus.lower()
    if state.startswith("enabl") and lapsing.AttributeName not in (EXPIRY, None):
        return f"{state} on {lapsing.AttributeName!r}, which should be {EXPIRY!r}"
    return state


def _encryption(described: Described) -> str:
    encryption = described.SSEDescription
    if encryption is None or encryption.Status is None:
        return "by a key of DynamoDB's own"
    return f"by a key of KMS, {encryption.Status.lower()}"


def _recovery(backups: _Continuous) -> str:
    recovery = backups.ContinuousBackupsDescription.PointInTimeRecoveryDescription
    return recovery.PointInTimeRecoveryStatus.lower()
