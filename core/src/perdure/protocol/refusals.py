"""Answers that are errors: exceptions to statuses and bodies, and back."""

from enum import Enum
from math import ceil
from typing import Annotated

import msgspec
from msgspec import Meta

from perdure.errors import (
    CommitIdReused,
    Conflict,
    Corrupt,
    FormatTooNew,
    OutcomeUnknown,
    PerdureError,
    SessionDeleted,
    StageMissing,
    StoreClosed,
    TooLarge,
    Unavailable,
    Unsupported,
)
from perdure.protocol.messages import (
    Decoder,
    Int,
    Malformed,
    WireHead,
    WireRows,
    encode,
    head_fields,
    head_of,
    rows_fields,
    rows_of,
)


class Code(Enum):
    """What is the matter, and the HTTP status that goes with it."""

    CONFLICT = "conflict", 409
    SESSION_DELETED = "session_deleted", 410
    COMMIT_ID_REUSED = "commit_id_reused", 409
    STAGE_MISSING = "stage_missing", 409
    FORGOTTEN = "forgotten", 409
    """:class:`OutcomeUnknown` with ``forgotten``."""
    TOO_LARGE = "too_large", 413
    INVALID = "invalid", 400
    """Malformed."""
    UNAUTHORIZED = "unauthorized", 401
    CLOCK_SKEW = "clock_skew", 401
    FORBIDDEN = "forbidden", 403
    """The key is good, and not for this tenant."""
    NOT_FOUND = "not_found", 404
    UNSUPPORTED_VERSION = "unsupported_version", 404
    UNSUPPORTED = "unsupported", 501
    OVERLOADED = "overloaded", 503
    """Not applied; to be left alone for as long as ``Retry-After`` says."""
    UNAVAILABLE = "unavailable", 503
    """Not applied; try again."""
    BROKEN = "broken", 503
    """Not applied, and not before somebody has mended something."""
    UNKNOWN = "unknown", 500
    """May have been applied."""
    CORRUPT = "corrupt", 500
    FORMAT_TOO_NEW = "format_too_new", 500

    def __init__(self, text: str, status: int) -> None:
        self.text = text
        self.status = status


class Refused(PerdureError):
    """A server does not take a request: there is no such path, the key is not good, ….

    Never raised by a backend: the client makes of it what the contract has for it.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Answer(msgspec.Struct, frozen=True):
    """An answer that is an error."""

    status: int
    body: bytes
    headers: dict[str, str]


class Refusal(msgspec.Struct, frozen=True):
    """The body of such an answer."""

    code: str
    message: str
    now: int
    """The server's clock; 0 where it did not say."""
    error: PerdureError
    """What to raise."""


_Body = tuple[
    Annotated[str, Meta(max_length=64)],
    Annotated[str, Meta(max_length=4096)],
    WireHead | None,
    Int,
    list[WireRows],
]
_decode: Decoder[_Body] = Decoder(_Body)

_LASTING = {  # until somebody has mended something
    Code.INVALID,
    Code.UNAUTHORIZED,
    Code.CLOCK_SKEW,
    Code.FORBIDDEN,
    Code.NOT_FOUND,
    Code.UNSUPPORTED_VERSION,
    Code.BROKEN,
}
_CODES = {code.text: code for code in Code}

RETRY_AFTER = 1
"""Seconds for which an overloaded server is left alone if it does not say how many."""

LONGEST_RETRY_AFTER = 86_400
"""Seconds of a server's that are believed."""


def code_of(error: PerdureError) -> Code:
    """How an exception is called in the protocol."""
    match error:
        case Refused():
            return error.code
        case Unavailable():
            if error.lasting:
                return Code.BROKEN
            return Code.OVERLOADED if error.retry_after else Code.UNAVAILABLE
        case OutcomeUnknown():
            return Code.FORGOTTEN if error.forgotten else Code.UNKNOWN
        case _:
            return next(
                (code for type, code in _BY_TYPE.items() if isinstance(error, type)),
                Code.UNKNOWN,
            )


_BY_TYPE: dict[type[PerdureError], Code] = {
    Conflict: Code.CONFLICT,
    SessionDeleted: Code.SESSION_DELETED,
    CommitIdReused: Code.COMMIT_ID_REUSED,
    StageMissing: Code.STAGE_MISSING,
    TooLarge: Code.TOO_LARGE,
    Malformed: Code.INVALID,
    Unsupported: Code.UNSUPPORTED,
    StoreClosed: Code.UNAVAILABLE,
    Corrupt: Code.CORRUPT,
    FormatTooNew: Code.FORMAT_TOO_NEW,
}


def answer_to(error: PerdureError, now: int) -> Answer:
    """The answer that tells a client of an exception; ``now`` is the server's clock, in ms."""
    code = code_of(error)
    head = error.head if isinstance(error, Conflict | SessionDeleted) else None
    rows = error.rows if isinstance(error, Conflict) else ()
    if isinstance(error, Conflict) and error.now:
        now = error.now
    headers: dict[str, str] = {}
    if code is Code.OVERLOADED:
        seconds = error.retry_after if isinstance(error, Unavailable) else RETRY_AFTER
        headers["Retry-After"] = str(ceil(seconds))
    if code is Code.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer, Perdure-HMAC-SHA256"
    body = encode((code.text, str(error)[:1000], head_fields(head), now, rows_fields(rows)))
    return Answer(code.status, body, headers)


def read_refusal(
    status: int, body: bytes, *, writes: bool, retry_after: str | None = None
) -> Refusal:
    """What an answer with a status of 400 or above says. Raises ``Malformed``.

    ``writes``: the request might have changed something. ``retry_after``: the header. Codes
    that are not known are judged by their status: what is below 500 was not applied and lasts.
    """
    text, message, head, now, rows = _decode(body)
    message = printable(message)
    code = _CODES.get(text)
    error = _error(code, status, message)
    if code is Code.OVERLOADED:
        error = Unavailable(message, retry_after=seconds_of(retry_after))
    if isinstance(error, OutcomeUnknown) and not writes:
        error = Unavailable(message)
    if isinstance(error, Conflict):
        error.head, error.now, error.rows = head_of(head), now, rows_of(rows)
    elif isinstance(error, SessionDeleted):
        error.head = head_of(head)
    return Refusal(text, message, now, error)


def seconds_of(retry_after: str | None) -> int:
    """What a ``Retry-After`` header says; a date in it (RFC 9110) counts as nothing said."""
    text = retry_after or ""
    if not (text.isascii() and text.isdigit()):
        return RETRY_AFTER
    return min(int(text[:6]), LONGEST_RETRY_AFTER)


def printable(text: str) -> str:
    """A server's text in one line, without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _error(code: Code | None, status: int, message: str) -> PerdureError:
    if code is Code.UNAVAILABLE:
        return Unavailable(message)
    if code is Code.FORGOTTEN:
        return OutcomeUnknown(message, forgotten=True)
    if code in _LASTING or (code is None and status < 500):
        return Unavailable(message, lasting=True)
    for type, known in _BY_TYPE.items():
        if known is code:
            return type(message)
    return OutcomeUnknown(message)
