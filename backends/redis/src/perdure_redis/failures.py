"""What a server's error reply, or a lost connection, means to the caller.

Redis refuses before it runs anything, and then nothing was applied; or a script fails while
it runs, and then what it did before stays done: Redis does not roll back. Replies of the
second kind name the script, as Redis 7.0 and later do.

Codes: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors and
``createSharedObjects`` in ``server.c``.
"""

import re

import hiredis
import msgspec

from perdure.errors import Corrupt, OutcomeUnknown, PerdureError, Unavailable

_CODE = re.compile(r"[A-Z][A-Z_]*\b")
_IN_SCRIPT = re.compile(r"\bscript: [0-9a-f]{40}|user_script:\d+|Error running script")
_QUOTED_ARGUMENTS = re.compile(r",? with args.*", re.DOTALL)
_MOVING = "non local key"
"""A script found a key missing whose slot is being moved."""

_REFUSALS: dict[str, tuple[str, bool]] = {
    # code: (what is the matter, whether it lasts until somebody mends it)
    "ASK": ("sends calls for the session's slot on and gets them back", False),
    "BUSY": ("is busy with a script that takes too long", False),
    "CLUSTERDOWN": (
        "is part of a cluster that is down, or whose slots are not all served",
        False,
    ),
    "CROSSSLOT": ("refused keys of two slots", True),
    "EXECABORT": ("discarded a transaction", False),
    "LOADING": ("is loading its data", False),
    "MASTERDOWN": ("is a replica that has lost its primary", False),
    "MOVED": ("sends calls for the session's slot on and gets them back", False),
    "MISCONF": ("refuses writes because it could not write its own files", True),
    "NOAUTH": ("wants a user name and a password", True),
    "NOPERM": ("does not permit this user what perdure needs", True),
    "NOREPLICAS": ("has too few replicas to accept writes", False),
    "OOM": ("is full: maxmemory is reached", True),
    "READONLY": ("is a read-only replica", False),
    "TRYAGAIN": ("is handing the session's slot to another node", False),
    "UNKILLABLE": ("is busy with a script that takes too long", False),
    "WRONGPASS": ("refused the user name and password", True),
}


class Lost(msgspec.Struct, frozen=True):
    """Stands in a request's place for the reply that will not come."""

    reason: str
    sent: bool
    """Whether any of the request may have reached the server."""


def code_of(text: str) -> str:
    """The code an error reply starts with, as ``READONLY``."""
    match = _CODE.match(text)
    return match.group() if match else "ERR"


def failure(
    reply: hiredis.ReplyError | Lost, server: object, *, writes: bool = False
) -> PerdureError:
    """The error to raise where a reply was none. A new one each time.

    ``writes``: the request was a script that may write.
    """
    if isinstance(reply, hiredis.ReplyError):
        return _refusal(str(reply), server, writes=writes)
    if writes and reply.sent:
        return OutcomeUnknown(f"redis {server}: {reply.reason} before the reply came")
    return Unavailable(f"redis {server}: {reply.reason}")


def _refusal(text: str, server: object, *, writes: bool) -> PerdureError:
    code = code_of(text)
    if code == "WRONGTYPE":
        return Corrupt(
            f"redis {server}: a key of perdure's holds data of another kind; does something "
            "else use the same prefix?"
        )
    if _IN_SCRIPT.search(text):
        message = f"redis {server}: a script failed: {_without_arguments(text)}"
        if writes:
            return OutcomeUnknown(message)
        return Unavailable(message, lasting=_MOVING not in text)
    passing = "max number of clients" in text
    unforeseen = f"answered {_without_arguments(text)!r}", not passing
    what, lasting = _REFUSALS.get(code, unforeseen)
    return Unavailable(f"redis {server} {what}; nothing was applied", lasting=lasting)


def _without_arguments(text: str) -> str:
    # An unknown command is answered with what it was given: passwords, sessions.
    return _QUOTED_ARGUMENTS.sub("", text)
