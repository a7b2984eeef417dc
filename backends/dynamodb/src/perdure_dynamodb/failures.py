"""What a refusal of DynamoDB's, or a lost reply, means.

DynamoDB refuses before it applies anything, but for its own failures (5xx): "this does not
necessarily mean that the operation failed".

Codes: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html,
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html and
``botocore.retries.standard``.
"""

import re
from enum import Enum

import msgspec

from perdure.errors import Unavailable

from perdure_dynamodb.actions import WireRow
from perdure_dynamodb.settings import Settings


class Kind(Enum):
    """What can be done about a refusal."""

    PASSING = "passing"
    """Nothing was applied; the same request may be granted in a moment."""
    UNKNOWN = "unknown"
    """It may have been applied all the same."""
    CREDENTIALS = "credentials"
    """Nothing was applied; other credentials may be had where these came from."""
    CLOCK = "clock"
    """Nothing was applied; the signature was of another time than the server's."""
    LASTING = "lasting"
    """Nothing was applied, nor will it be before somebody mends something."""


class Cancelled(msgspec.Struct, frozen=True):
    """What one action of a cancelled transaction met."""

    Code: str | None = None
    Item: WireRow | None = None


class Refused(msgspec.Struct, frozen=True):
    """The body of an error."""

    type: str = msgspec.field(name="__type", default="")
    """As ``com.amazonaws.dynamodb.v20120810#ThrottlingException``."""
    lower: str | None = msgspec.field(name="message", default=None)
    upper: str | None = msgspec.field(name="Message", default=None)
    Item: WireRow | None = None
    CancellationReasons: list[Cancelled] | None = None

    @property
    def code(self) -> str:
        return self.type.rpartition("#")[2]

    @property
    def message(self) -> str:
        return self.lower or self.upper or ""


class TableMissing(Unavailable):
    """There is no such table in the region."""


class Lost(Exception):
    """There was no reply, or none that can be trusted."""

    def __init__(self, reason: str, *, sent: bool, lasting: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        """Whether any of the request may have reached the server."""
        self.lasting = lasting
        """Whether trying again is of no use."""


CONDITION_FAILED = "ConditionalCheckFailedException"
CANCELLED = "TransactionCanceledException"
CONDITION_OF_ACTION_FAILED = "ConditionalCheckFailed"

PASSING = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
"""Codes of refusals that pass."""

_PASSING_REASONS = frozenset(
    {
        None,
        "None",
        "ProvisionedThroughputExceeded",
        "ThrottlingError",
        "TransactionConflict",
    }
)
"""Codes of reasons for which a transaction is cancelled and may be granted in a moment."""

_CLOCK = frozenset({"RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
_STRANGERS = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidClientTokenIdException",
        "UnrecognizedClientException",
    }
)
_UNSIGNED = frozenset(
    {
        "IncompleteSignature",
        "IncompleteSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
    }
)
_TIMED_OUT = frozenset({"RequestTimeout", "RequestTimeoutException"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_MISSING = "ResourceNotFoundException"
_BAD_SIGNATURE = "InvalidSignatureException"
_SKEWED = re.compile(r"Signature (expired|not yet current)")
_ACTION = re.compile(r"\b(dynamodb|kms):[A-Z]\w+")


def kind_of(status: int, refused: Refused) -> Kind:
    """What can be done about an error reply."""
    code = refused.code
    if code in PASSING:
        return Kind.PASSING
    if code == CANCELLED:
        reasons = refused.CancellationReasons or ()
        passing = reasons and all(reason.Code in _PASSING_REASONS for reason in reasons)
        return Kind.PASSING if passing else Kind.LASTING
    if code in _CLOCK or (code == _BAD_SIGNATURE and _SKEWED.search(refused.message)):
        return Kind.CLOCK
    if code in _EXPIRED or code in _STRANGERS:
        return Kind.CREDENTIALS
    if status >= 500 or status == 408 or code in _TIMED_OUT:
        return Kind.UNKNOWN
    if status == 429:
        return Kind.PASSING
    return Kind.LASTING


def refusal(
    status: int,
    refused: Refused,
    kind: Kind,
    *,
    operation: str,
    settings: Settings,
    region: str,
) -> Unavailable:
    """The error to raise once nothing more can be done. Certain of nothing applied only if
    ``kind`` is not ``UNKNOWN``."""
    code, message = refused.code, refused.message
    where = f"dynamodb table {settings.table!r} in {region}"
    lasting = kind not in (Kind.PASSING, Kind.UNKNOWN)
    if code == _MISSING:
        command = f"perdure dynamodb create-table --table {settings.table} --region {region}"
        if settings.profile is not None:
            command += f" --profile {settings.profile}"
        if settings.endpoint is not None:
            command += f" --endpoint {settings.endpoint}"
        return TableMissing(
            f"there is no dynamodb table {settings.table!r} in {region} (or is it in another "
            f"region?); make it with: {command}",
            lasting=True,
        )
    if kind is Kind.CLOCK:
        what = "this host's clock is too far from the server's, so the signature is not valid"
    elif code in _EXPIRED:
        what = "the credentials have expired; renew them (aws sso login, a new session token)"
    elif code in _STRANGERS:
        what = (
            "the access key is not known there; is it of another partition (China, GovCloud), "
            "or of a region that is not enabled?"
        )
    elif code in _UNSIGNED:
        what = f"the request's signature was not accepted ({code})"
    elif code == _BAD_SIGNATURE:
        what = "the secret key does not belong to the access key"
    elif code in _DENIED:
        action = _ACTION.search(message)
        needed = action.group() if action else f"dynamodb:{operation}"
        what = f"the credentials lack the permission {needed}"
    elif kind is Kind.PASSING:
        what = f"it is too busy ({code or status})"
    elif code == CANCELLED:
        reasons = sorted({r.Code or "None" for r in refused.CancellationReasons or ()})
        what = f"a transaction was cancelled ({', '.join(reasons)})"
    else:
        what = f"it answered {operation} with {code or status}: {message[:300]}"
    return Unavailable(f"{where}: {what}", lasting=lasting)
