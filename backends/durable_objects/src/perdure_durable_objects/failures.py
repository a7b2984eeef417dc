"""What an answer that is none, or an error, means to the caller.

A request that may have arrived may have been carried out: if it writes, its outcome is unknown,
unless the server says otherwise in the protocol's own words. A status alone does not: a proxy
between may have given up on a server that went on.
"""

import aiohttp

from perdure.errors import OutcomeUnknown, PerdureError, Unavailable
from perdure.protocol.messages import Malformed
from perdure.protocol.refusals import read_refusal, seconds_of

_TRANSIENT = {408, 425, 429}
"""Statuses below 500 that say to try again (RFC 9110, 8470, 6585)."""


class Rejected(Unavailable):
    """The server said, in the protocol's words, that it does not do this now or ever."""

    def __init__(self, reason: Unavailable, code: str) -> None:
        super().__init__(str(reason), lasting=reason.lasting, retry_after=reason.retry_after)
        self.code = code
        """Of :class:`perdure.protocol.refusals.Code`, or an unknown one."""


def no_answer(error: BaseException, origin: str, *, writes: bool) -> PerdureError:
    """The error to raise where no answer came."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            # The certificate is not what it should be, or the other side speaks no TLS.
            return Unavailable(f"{origin}: TLS failed: {_reason(error)}", lasting=True)
        case aiohttp.ConnectionTimeoutError():
            return Unavailable(f"{origin}: no connection in time")
        case aiohttp.ClientConnectorError():
            return Unavailable(f"{origin}: cannot connect: {_reason(error.os_error)}")
        case TimeoutError():  # aiohttp's are among them
            return _lost(f"{origin}: no answer in time", writes=writes)
        case aiohttp.ClientResponseError():
            return _lost(f"{origin}: what answered does not speak HTTP", writes=writes)
        case _:
            reason = _reason(error)
            return _lost(f"{origin}: the connection was lost: {reason}", writes=writes)


def refusal(
    status: int, body: bytes, origin: str, *, writes: bool, retry_after: str | None
) -> PerdureError:
    """The error to raise for an answer whose status is not 200."""
    try:
        if status >= 400:
            told = read_refusal(status, body, writes=writes, retry_after=retry_after)
            error = told.error
            return Rejected(error, told.code) if isinstance(error, Unavailable) else error
    except Malformed:
        pass
    if status < 500:
        message = f"{origin}: answered {status}; is there a perdure server at this address?"
        if status in _TRANSIENT:
            return Unavailable(message, retry_after=seconds_of(retry_after))
        return Unavailable(message, lasting=True)
    message = f"{origin}: answered {status} without saying more"
    if writes:
        return OutcomeUnknown(message)
    return Unavailable(message, retry_after=seconds_of(retry_after) if retry_after else 0.0)


def not_understood(error: Malformed, origin: str, *, writes: bool) -> PerdureError:
    """The error to raise for an answer with status 200 that is not the one to the request."""
    message = f"{origin}: answered something else than the protocol's message ({error})"
    return OutcomeUnknown(message) if writes else Unavailable(message, lasting=True)


def too_long(limit: int, origin: str, *, writes: bool) -> PerdureError:
    """The error to raise for an answer that is not read to its end."""
    message = f"{origin}: answered with more than {limit} bytes"
    return OutcomeUnknown(message) if writes else Unavailable(message, lasting=True)


def _lost(message: str, *, writes: bool) -> PerdureError:
    return OutcomeUnknown(message) if writes else Unavailable(message)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
