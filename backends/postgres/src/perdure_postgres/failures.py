"""What a failure means to the caller: was it applied, and will trying again help?

Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html. What the server said in
``DETAIL`` is never repeated: it quotes rows.
"""

import re

from psycopg.pq import DiagnosticField
from psycopg.pq.abc import PGresult

from perdure.errors import (
    Corrupt,
    Outcome,
    OutcomeUnknown,
    PerdureError,
    TooLarge,
    Unavailable,
)

FORGOTTEN = frozenset(("26000", "42P05", "0A000"))
"""The server's prepared statements are not those we made: unknown, there already (a pooler has
given us another's session), or of a plan that no longer fits its tables."""

RETRIED = frozenset(("40001", "40P01", "55P03")) | FORGOTTEN
"""Serialization failure, deadlock, lock timeout: another try may well succeed. As may one on a
new connection after what is ``FORGOTTEN``."""

UNFIT = frozenset(("25006",)) | FORGOTTEN
"""This session is of no use: read-only since a failover, or ``FORGOTTEN``. Another may be."""

_UNKNOWN = ("08", "40003")
"""Of a connection between the server and whoever speaks, or of a distributed transaction."""

_LASTING_CLASSES = ("0A", "22", "23", "28", "3D", "3F", "42")
"""Not supported, data, constraint, authorization, no such database or schema, syntax or
privilege: nothing that passes by itself."""

_ADVICE = {
    "25006": "the server takes no writes (a standby, or read-only); nothing was applied",
    "26000": "a pooler seems to be in between: add ?prepare=false to the URL",
    "42P05": "a pooler seems to be in between: add ?prepare=false to the URL",
    "42501": "this user lacks a privilege",
    "42P01": "the tables of perdure are not there, or not as this version knows them",
    "53100": "the disk of the server is full; nothing was applied",
    "55P03": "another transaction kept the session locked for too long; nothing was applied",
    "57014": "the server took too long and stopped; nothing was applied",
}

_LASTING_CONNECT = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|not permitted to log in"
    r"|does not exist|permission denied|does not support (SSL|GSSAPI)|certificate"
    r"|startup parameter|configuration parameter|invalid value"
    r"|Name or service not known|nodename nor servname"
)
"""What libpq and the server say of what stays wrong. libpq does not hand out the SQLSTATE of a
connection attempt, so a server that speaks another language is taken to be passing."""


class Failure(Exception):
    """A unit of work did not come to its acknowledged end."""

    def __init__(self, message: str, outcome: Outcome, sqlstate: str = "") -> None:
        super().__init__(message)
        self.outcome = outcome
        self.sqlstate = sqlstate
        """Empty if it was not the server who spoke."""


def refused(result: PGresult) -> Failure:
    """The failure that ``result`` tells of.

    An ``ERROR`` ends a transaction that has not committed, even where the commit itself made
    it. What ends the session may have struck between the commit and its acknowledgement; and
    if a pooler says it, then of a session of which it knows no more.
    """
    sqlstate = _field(result, DiagnosticField.SQLSTATE)
    if not sqlstate:  # libpq speaks
        return lost(_first_line(result.get_error_message()), sent=True)
    # PgBouncer sends only the one that servers translate.
    severity = _field(result, DiagnosticField.SEVERITY_NONLOCALIZED) or _field(
        result, DiagnosticField.SEVERITY
    )
    unknown = severity in ("FATAL", "PANIC") or sqlstate.startswith(_UNKNOWN)
    return Failure(
        _field(result, DiagnosticField.MESSAGE_PRIMARY),
        Outcome.UNKNOWN if unknown else Outcome.NOT_APPLIED,
        sqlstate,
    )


def lost(reason: str, *, sent: bool) -> Failure:
    """The connection broke; ``sent``: the server may have received everything by then."""
    return Failure(reason, Outcome.UNKNOWN if sent else Outcome.NOT_APPLIED)


def translate(failure: Failure, location: str, *, writes: bool) -> PerdureError:
    """The error to raise. A new instance each time; its cause is ``failure``."""
    error = _translate(failure, location, writes)
    error.__cause__ = failure
    return error


def _translate(failure: Failure, location: str, writes: bool) -> PerdureError:
    state = failure.sqlstate
    said = f"{location}: {failure}" + (f" (SQLSTATE {state})" if state else "")
    if advice := _ADVICE.get(state):
        said = f"{said}: {advice}"
    if failure.outcome is Outcome.UNKNOWN and writes:
        return OutcomeUnknown(said)
    if state.startswith("54"):
        return TooLarge(said)
    if state in ("XX001", "XX002"):
        return Corrupt(said)
    return Unavailable(said, lasting=state == "53100" or state.startswith(_LASTING_CLASSES))


def connect_failed(reason: str, location: str) -> Unavailable:
    """The error to raise where no connection was made: nothing was even sent."""
    reason = _first_line(reason)
    if "session is read-only" in reason or "hot standby" in reason:
        reason += ": only a standby answers, and it takes no writes"
    if "startup parameter" in reason:
        reason += ": a pooler is in between: add ?prepare=false to the URL"
    return Unavailable(
        f"{location}: {reason}; nothing was applied",
        lasting=_LASTING_CONNECT.search(reason) is not None,
    )


def copy(error: BaseException) -> BaseException:
    """One for each of those who await the same thing: to raise an error is to change it."""
    if not isinstance(error, PerdureError):
        return error
    another = type(error)(*error.args)
    vars(another).update(vars(error))
    another.__cause__ = error.__cause__
    return another


def _field(result: PGresult, field: DiagnosticField) -> str:
    return (result.error_field(field) or b"").decode(errors="replace")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
