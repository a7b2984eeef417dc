"""Keys: how a client proves which one it has, and how a server checks that.

A server has a list of keys and serves nobody while it has none. A client with a bearer key
sends the secret itself, and so over TLS only; in the stronger mode it signs each request.
"""

import hmac
import re
from collections.abc import Iterable
from enum import Enum
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta

from perdure.errors import PerdureError
from perdure.protocol.limits import MIN_SECRET_CHARACTERS, SIGNATURE_WINDOW_MS
from perdure.protocol.refusals import Code, Refused

SIGNED = "Perdure-HMAC-SHA256"
"""The authentication scheme of signed requests."""

_FIRST_LINE = "perdure1"

_BEARER = re.compile(r"Bearer ([A-Za-z0-9_-]{1,64})\.([!-~]+)", re.ASCII)
_SIGNED = re.compile(SIGNED + r" ([A-Za-z0-9_-]{1,64}):(\d{1,15}):([0-9a-f]{64})", re.ASCII)
_KEY_ID = r"\A[A-Za-z0-9_-]{1,64}\Z"
_SECRET = r"\A[!-~]{" + str(MIN_SECRET_CHARACTERS) + r",512}\Z"


class InvalidKeys(PerdureError, ValueError):
    """A list of keys that cannot be used. The message quotes no secret."""


class Mode(Enum):
    """How a key is proven."""

    BEARER = "bearer"
    HMAC = "hmac"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key, as the server's list has it. ``repr`` shows no secret."""

    id: Annotated[str, Meta(pattern=_KEY_ID)]
    secret: Annotated[str, Meta(pattern=_SECRET)]
    """Printable ASCII without spaces, 32 characters or more."""
    tenants: frozenset[str] | None = None
    """The only ones that it may name. ``None``: any, and what concerns all of them."""
    mode: Mode = Mode.BEARER
    """The only one in which it is accepted."""

    @classmethod
    def of(cls, id: str, secret: str, mode: Mode = Mode.BEARER) -> "Key":
        """A validated key for a client. Raises :class:`InvalidKeys`."""
        try:
            return msgspec.convert({"id": id, "secret": secret, "mode": mode}, cls)
        except msgspec.ValidationError:
            raise InvalidKeys(
                "its id is letters, digits, '-' and '_', its secret at least "
                f"{MIN_SECRET_CHARACTERS} printable ASCII characters without spaces"
            ) from None

    def allows(self, tenant: str | None) -> bool:
        """Whether it may name this tenant; ``None``: ask for what concerns all."""
        return self.tenants is None or tenant in self.tenants

    def __repr__(self) -> str:
        return f"Key({self.id!r}, ***)"


class Claim(msgspec.Struct, frozen=True):
    """What the headers of a request say, as far as they can be checked by themselves."""

    key: Key
    time: int | None = None
    """When it was signed, by the client's clock. ``None``: a bearer's, and proven."""
    signature: str = ""

    @property
    def proven(self) -> bool:
        """Whether there is nothing left to verify."""
        return self.time is None

    def verify(self, method: str, target: str, body: bytes) -> Key:
        """The key, if the signature is good too. Raises ``Refused``.

        ``target`` is the path from ``/v1`` on, with its query, as it was sent.
        """
        if self.time is not None:
            expected = _signature(self.key.secret, method, target, self.time, body)
            if not hmac.compare_digest(expected, self.signature):
                raise Refused(Code.UNAUTHORIZED, _UNAUTHORIZED)
        return self.key


class Keys:
    """The keys that a server accepts."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = {key.id: key for key in keys}

    @classmethod
    def parse(cls, text: str) -> "Keys":
        """From a JSON list of ``{"id", "secret", "tenants"?, "mode"?}``; an empty text is an
        empty list. Raises :class:`InvalidKeys`."""
        if not text.strip():
            return cls()
        try:
            keys = _decode_keys(text)
        except msgspec.ValidationError as error:
            place = str(error).rpartition(" - at ")[2]  # before it, msgspec may quote the input
            raise InvalidKeys(
                f"the list of keys is not as it should be at {place if '$' in place else '$'}: "
                "it is a list of objects with id, secret (32 characters or more) and perhaps "
                "tenants and mode"
            ) from None
        except msgspec.DecodeError:
            raise InvalidKeys("the list of keys is not JSON") from None
        made = cls(keys)
        if len(made._keys) != len(keys):
            raise InvalidKeys("two keys have the same id")
        return made

    def __len__(self) -> int:
        return len(self._keys)

    def claim(self, authorization: str | None, now: int) -> Claim:
        """What can be known before the body has come: all but a signature.

        ``authorization`` is the header's value, ``now`` the server's clock in ms. Raises
        ``Refused``: ``unavailable`` without any keys, ``unauthorized``, ``clock_skew``.
        """
        if not self._keys:
            raise Refused(Code.UNAVAILABLE, "no secret is set on this server: it serves nobody")
        if bearer := _BEARER.fullmatch(authorization or ""):
            key = self._keys.get(bearer[1])
            expected = key.secret if key is not None and key.mode is Mode.BEARER else ""
            # Digests are of one length, and what differs in them tells nothing of the secret.
            same = hmac.compare_digest(_digest(expected), _digest(bearer[2]))
            if key is not None and expected and same:
                return Claim(key)
        elif signed := _SIGNED.fullmatch(authorization or ""):
            key = self._keys.get(signed[1])
            if key is not None and key.mode is Mode.HMAC:
                time = int(signed[2])
                if abs(time - now) > SIGNATURE_WINDOW_MS:
                    raise Refused(
                        Code.CLOCK_SKEW,
                        f"signed at {time}, but the server's clock says {now} (ms since the "
                        f"epoch); they may differ by {SIGNATURE_WINDOW_MS // 1000} s",
                    )
                return Claim(key, time, signed[3])
        raise Refused(Code.UNAUTHORIZED, _UNAUTHORIZED)

    def check(
        self, authorization: str | None, now: int, method: str, target: str, body: bytes
    ) -> Key:
        """Both steps in one. Raises ``Refused``."""
        return self.claim(authorization, now).verify(method, target, body)


_UNAUTHORIZED = "the key is not known here, not of this mode, or its secret is another"


def bearer(key_id: str, secret: str) -> str:
    """The ``Authorization`` header of a client with a bearer key."""
    return f"Bearer {key_id}.{secret}"


def sign(key_id: str, secret: str, method: str, target: str, time: int, body: bytes) -> str:
    """The ``Authorization`` header of one request; ``time`` is the client's clock, in ms.

    ``target`` as in :meth:`Claim.verify`.
    """
    return f"{SIGNED} {key_id}:{time}:{_signature(secret, method, target, time, body)}"


def _signature(secret: str, method: str, target: str, time: int, body: bytes) -> str:
    content = f"{_FIRST_LINE}\n{method}\n{target}\n{time}\n{sha256(body).hexdigest()}"
    return hmac.new(secret.encode(), content.encode(), sha256).hexdigest()


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


_decode_keys = msgspec.json.Decoder(list[Key]).decode
