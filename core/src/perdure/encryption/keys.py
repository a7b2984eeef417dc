"""The keys that rows are sealed with: several, each with an id, one of them for writing."""

import base64
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Never, Self

from perdure.errors import InvalidKeys, Undecryptable, Unsupported
from perdure.types import SessionKey

KEYS_VARIABLE = "PERDURE_ENCRYPTION_KEYS"
"""Where ``Store`` finds its keys if it is given none."""

PLAINTEXT = "plaintext"
"""Among the keys of that variable: accept what is stored in plain."""

KEY_BYTES = 32
MAX_ID_BYTES = 32

_ID = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)


class KeyRing:
    """Secret keys of 32 random bytes, by id. Rows name the id of theirs.

    ``primary`` is the id of the key that seals what is written; all of them open what is
    stored. ``accept_plaintext`` is for the time in which a store that was not encrypted becomes
    so: rows in plain are read too, which otherwise raises :class:`Undecryptable`. It lets
    through whatever somebody without a key has written: turn it off when ``perdure rotate`` is
    done.

    Immutable. Shows its ids and never a key: not in its repr, in errors or in a pickle, of
    which it can have none. Raises :class:`InvalidKeys`.
    """

    __slots__ = ("_derivation_keys", "accept_plaintext", "primary")

    primary: str
    accept_plaintext: bool
    _derivation_keys: dict[str, bytes]

    def __init__(
        self, keys: Mapping[str, bytes], *, primary: str, accept_plaintext: bool = False
    ) -> None:
        object.__setattr__(self, "_derivation_keys", {})
        object.__setattr__(self, "primary", primary)
        object.__setattr__(self, "accept_plaintext", bool(accept_plaintext))
        problem = _problem(keys, primary)
        if problem:
            del keys  # tracebacks are shown and sent with the values of variables
            raise InvalidKeys(problem)
        # The first half of HKDF (RFC 5869), without salt.
        self._derivation_keys.update(
            (id, hmac.digest(bytes(32), key, "sha256")) for id, key in keys.items()
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The ring written as ``id:base64,id:base64``, of which the first key is the primary.

        The word ``plaintext`` in place of a key sets ``accept_plaintext``. Base64 of either
        alphabet. Raises :class:`InvalidKeys`, which does not repeat the text.
        """
        keys: dict[str, bytes] = {}
        accept_plaintext = False
        problem: str | None = None
        for number, part in enumerate(text.split(","), 1):
            if part.strip() == PLAINTEXT:
                accept_plaintext = True
            else:
                problem = problem or _take(keys, number, part)
            del part
        del text  # as in __init__
        primary = next(iter(keys), "")
        problem = problem or _problem(keys, primary)
        if problem:
            del keys
            raise InvalidKeys(problem)
        return cls(keys, primary=primary, accept_plaintext=accept_plaintext)

    @classmethod
    def from_environment(cls) -> Self | None:
        """The ring in the variable ``PERDURE_ENCRYPTION_KEYS``, as :meth:`parse` reads it;
        ``None`` if that is not set. Raises :class:`InvalidKeys`, also if it is set and empty:
        whoever meant to encrypt should not find out later that nothing was."""
        if KEYS_VARIABLE not in os.environ:
            return None
        try:
            return cls.parse(os.environ[KEYS_VARIABLE])
        except InvalidKeys as error:
            raise InvalidKeys(f"{KEYS_VARIABLE}: {error}") from None

    @staticmethod
    def generate(id: str) -> str:
        """A new random key, as ``id:base64``: a part of what :meth:`parse` reads. To be kept
        where secrets are kept: what is sealed with a key that is lost is lost too.

        Raises :class:`InvalidKeys` for an id that cannot be one.
        """
        if not _is_id(id):
            raise InvalidKeys(_NO_ID)
        return f"{id}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys."""
        return tuple(self._derivation_keys)

    def derive(self, id: str, purpose: bytes, info: bytes) -> bytes:
        """32 bytes from the key ``id``, for one purpose and nothing else.

        The second half of HKDF-SHA-256; ``purpose`` holds no NUL. Raises
        :class:`Undecryptable` if there is no such key.
        """
        derivation_key = self._derivation_keys.get(id)
        if derivation_key is None:
            raise Undecryptable(
                f"a row is sealed with the key {id!r}, which is not in the key ring: add it",
                missing_key=id,
            )
        return hmac.digest(derivation_key, b"%b\0%b\1" % (purpose, info), "sha256")

    def digests(self, key: SessionKey, commit_id: bytes, digest: bytes) -> list[bytes]:
        """What stands for the digest of a commit at a backend: by the primary key first, then
        by the others. Without a key, nobody can try what the commit may have held, nor see
        that two hold the same."""
        info = commit_id + digest + key.encode()
        ids = sorted(self._derivation_keys, key=lambda id: id != self.primary)
        return [self.derive(id, b"perdure digest", info)[: len(digest)] for id in ids]

    def __repr__(self) -> str:
        more = ", accept_plaintext=True" if self.accept_plaintext else ""
        return f"KeyRing(ids={self.ids!r}, primary={self.primary!r}{more})"

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("a KeyRing cannot be changed: make a new one")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError("a KeyRing cannot be changed: make a new one")

    def __reduce_ex__(self, protocol: Any) -> Never:
        raise TypeError("a KeyRing is not pickled or copied, as it holds secrets")


def key_ring(keys: object) -> KeyRing | None:
    """The ring that somebody means by ``keys``; ``None``: that of the environment, if any.

    Raises ``InvalidKeys``, and ``Unsupported`` where the package ``cryptography`` is missing.
    """
    if isinstance(keys, str):
        text, keys = keys, None  # which a traceback would show; see KeyRing
        try:
            ring = KeyRing.parse(text)
        finally:
            del text
    elif keys is None:
        ring = KeyRing.from_environment()
    elif isinstance(keys, KeyRing):
        ring = keys
    else:
        raise InvalidKeys(f"keys must be a KeyRing or its text, not a {type(keys).__name__}")
    if ring is not None and find_spec("cryptography") is None:
        raise Unsupported(
            "encryption needs the package cryptography: pip install 'perdure[encryption]'"
        )
    return ring


def _is_id(id: object) -> bool:
    return isinstance(id, str) and _ID.fullmatch(id) is not None


_NO_ID = f"a key's id has 1 to {MAX_ID_BYTES} of the characters A-Z a-z 0-9 . _ -"


def _problem(keys: Mapping[str, bytes], primary: str) -> str | None:
    """What is wrong with the keys of a ring."""
    if not all(map(_is_id, keys)):
        return _NO_ID
    for id, key in keys.items():
        if type(key) is not bytes or len(key) != KEY_BYTES:
            what = f"{len(key)} bytes" if type(key) is bytes else f"a {type(key).__name__}"
            return f"the key {id!r} must be {KEY_BYTES} bytes, and is {what}"
    if len(set(keys.values())) < len(keys):
        return "two ids name the same key"
    if not keys:
        return "there is no key"
    if primary not in keys:
        return f"there is no key {primary!r} to be the primary one"
    return None


def _take(keys: dict[str, bytes], number: int, part: str) -> str | None:
    """Add a part of a text to the keys, or say what is wrong with it."""
    id, colon, encoded = part.strip().partition(":")
    if not colon or not _is_id(id):
        return f"part {number} of the keys is not of the form id:base64"
    if id in keys:
        return f"the key {id!r} is there twice"
    plain = encoded.strip().translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        keys[id] = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return f"the key {id!r} is not written in base64"
    return None
