"""Paths of requests: what is asked for, and of which session.

Every part that a user has chosen travels as base64url without padding (RFC 4648 section 5) of
its UTF-8 text, so that nothing needs escaping and no part can be ``.`` or ``..``.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import Enum

import msgspec

from perdure.errors import InvalidKey
from perdure.protocol.limits import VERSION
from perdure.protocol.refusals import Code, Refused
from perdure.types import SessionKey, check_identifier

_VERSIONED = re.compile(r"/v(\d{1,9})(?:/|$)", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Operation(Enum):
    """What a request asks for, by the last part of its path."""

    HELLO = "hello"
    READ = "read"
    COMMIT = "commit"
    STAGE = "stage"
    DELETE = "delete"
    WAIT = "wait"
    LIST = "list"
    KINDS = "kinds"
    TENANTS = "tenants"
    SWEEP = "sweep"

    @property
    def method(self) -> str:
        """The HTTP method: ``GET`` or ``POST``."""
        return "GET" if self in (Operation.HELLO, Operation.WAIT) else "POST"

    @property
    def writes(self) -> bool:
        """Whether its outcome is unknown if no answer comes."""
        return self in (Operation.COMMIT, Operation.STAGE, Operation.DELETE)


_BY_SCOPE = {
    1: {o.value: o for o in (Operation.TENANTS, Operation.SWEEP)},
    2: {Operation.KINDS.value: Operation.KINDS},
    3: {Operation.LIST.value: Operation.LIST},
    4: {
        o.value: o
        for o in (
            Operation.READ,
            Operation.COMMIT,
            Operation.STAGE,
            Operation.DELETE,
            Operation.WAIT,
        )
    },
}
"""By the number of parts behind the version: the names that the last one may have."""


class Route(msgspec.Struct, frozen=True):
    """What a path says."""

    operation: Operation
    scope: tuple[str, ...] = ()
    """Tenant, kind and id, as many as the operation has."""

    @property
    def tenant(self) -> str | None:
        """``None``: the operation is not about one."""
        return self.scope[0] if self.scope else None

    @property
    def key(self) -> SessionKey:
        """The session, for operations on one."""
        return SessionKey(*self.scope)


def encode_part(text: str) -> str:
    """One part of a path."""
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_part(part: str) -> str:
    """The inverse of :func:`encode_part`. Raises ``Refused``.

    Exactly one text has each meaning: what other encoders might write is refused.
    """
    try:
        text = urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()
    except ValueError:
        text = ""
    if not _PART.fullmatch(part) or encode_part(text) != part:
        raise Refused(Code.INVALID, "a part of the path is not canonical base64url of UTF-8")
    return text


def path_of(operation: Operation, *scope: str) -> str:
    """The path of a request; ``scope``: tenant, kind, id, as far as the operation has them."""
    parts = [f"/v{VERSION}", *map(encode_part, scope)]
    if operation is not Operation.HELLO:
        parts.append(operation.value)
    return "/".join(parts)


def route(method: str, path: str) -> Route:
    """What a request asks for; ``path`` has no query and begins with ``/v1``.

    Raises ``Refused``: ``unsupported_version``, ``not_found`` or ``invalid``.
    """
    versioned = _VERSIONED.match(path)
    if versioned and int(versioned[1]) != VERSION:
        raise Refused(
            Code.UNSUPPORTED_VERSION,
            f"this server speaks version {VERSION} of the protocol, not {int(versioned[1])}",
        )
    parts = path.split("/")[2:]
    if path == f"/v{VERSION}":
        operation = Operation.HELLO
    elif path.startswith(f"/v{VERSION}/"):
        operation = _BY_SCOPE.get(len(parts), {}).get(parts[-1])
    else:
        operation = None
    if operation is None or method != operation.method:
        raise Refused(Code.NOT_FOUND, "the protocol has no such method and path")
    return Route(operation, tuple(_identifier(part) for part in parts[:-1]))


def _identifier(part: str) -> str:
    try:
        return check_identifier("a part of the path", decode_part(part))
    except InvalidKey as error:
        raise Refused(Code.INVALID, str(error)) from None
