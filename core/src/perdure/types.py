"""The vocabulary of the contract: keys, heads, items, reads, commits and their results.

Everything here is frozen, compared by value and cheap to make (about 50 ns).
All times are integer milliseconds since the Unix epoch, UTC, by the backend's clock.
All ids (incarnation, commit, stage) are 16 random bytes proposed by the caller.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Generic, TypeVar

import msgspec

from perdure.errors import InvalidKey

MAX_IDENTIFIER_BYTES = 512
"""Longest tenant, kind or id, in UTF-8 bytes."""

MAX_ITEM_KEY_BYTES = 512
"""Longest item key, the part completed by the backend included."""

MAX_META_BYTES = 4096
"""Longest ``Head.meta``."""

MAX_LABELS = 4
MAX_LABEL_BYTES = 128
"""A session carries at most four labels of at most 128 UTF-8 bytes each."""

T = TypeVar("T")


def check_identifier(name: str, value: object, limit: int = MAX_IDENTIFIER_BYTES) -> str:
    """Return ``value`` if it can name something; raise :class:`InvalidKey` otherwise.

    Any Unicode is allowed except the empty string, NUL and lone surrogates, up to
    ``limit`` UTF-8 bytes. NUL is refused so that it can separate the parts of an
    encoded key; nothing else ever needs escaping.
    """
    if type(value) is not str:
        raise InvalidKey(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise InvalidKey(f"{name} must not be empty")
    if "\0" in value:
        raise InvalidKey(f"{name} must not contain NUL")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidKey(f"{name} contains a lone surrogate and has no UTF-8 form") from None
    if size > limit:
        raise InvalidKey(f"{name} is {size} UTF-8 bytes long; the limit is {limit}")
    return value


class SessionKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Names one session: the unit of atomicity, ordering, expiry and deletion.

    Make one with :meth:`of`, which validates; backends may trust any key they are given.
    """

    tenant: str
    kind: str
    id: str

    @classmethod
    def of(cls, tenant: str, kind: str, id: str) -> "SessionKey":
        """A validated key. Raises :class:`InvalidKey`."""
        return cls(
            check_identifier("tenant", tenant),
            check_identifier("kind", kind),
            check_identifier("session id", id),
        )

    def encode(self) -> bytes:
        """One byte string for the whole key: injective, and ordered as its parts are.

        UTF-8 keeps code point order and no part holds NUL, so joining by NUL needs no escape.
        """
        return f"{self.tenant}\0{self.kind}\0{self.id}".encode()

    @classmethod
    def decode(cls, encoded: bytes) -> "SessionKey":
        """The inverse of :meth:`encode`."""
        return cls(*encoded.decode().split("\0"))


class Head(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a session is, apart from its items. Of constant size."""

    version: int
    """1 for the commit that created this incarnation, then +1 per commit, without gaps (but
    for :attr:`Commit.restored`)."""
    incarnation: bytes
    """Random, proposed by the creator; a session deleted and created again has another."""
    tip: bytes
    """Id of the commit that made ``version``. The same version with another tip means that a
    failover lost a commit and another took its place; it shows to who compares both, at that
    version."""
    last_delete: int = 0
    """Version of the last commit that carried ``deletes``; 0 if none ever did."""
    created_at: int
    updated_at: int
    expires_at: int | None = None
    """From this moment on the session is invisible. ``None``: never."""
    meta: bytes = b""
    meta_version: int = 0
    """Version of the commit that last set ``meta``; 0 if none ever did."""
    labels: tuple[str, ...] = ()


def same_state(a: Head | None, b: Head | None) -> bool:
    """Whether two heads speak of the same commit of the same incarnation."""
    if a is None or b is None:
        return a is b
    return a.version == b.version and a.tip == b.tip and a.incarnation == b.incarnation


def only_grew(old: Head, new: Head | None) -> bool:
    """Whether a session has only gained or replaced items between two heads."""
    return (
        new is not None
        and new.incarnation == old.incarnation
        and new.version > old.version
        and new.last_delete <= old.version
    )


class Item(msgspec.Struct, frozen=True, gc=False):
    """One entry of a session's ordered map."""

    key: bytes
    value: bytes
    version: int
    """Version of the commit that wrote it."""


# Reads


class Get(msgspec.Struct, frozen=True, gc=False):
    """Read one item by its exact key."""

    key: bytes


class Scan(msgspec.Struct, frozen=True, gc=False):
    """Read the items with ``start <= key < stop`` in key order (unsigned bytes).

    Nothing, if ``stop`` is not above ``start``.
    """

    start: bytes = b""
    stop: bytes | None = None
    """Exclusive. ``None``: to the end of the map."""
    limit: int | None = None
    """At most so many items, and at least 1. ``None``: no limit of the caller's."""
    reverse: bool = False
    """Last key first. The range is the same; ``limit`` then takes from its end."""
    since: int = 0
    """Only items stamped with a later version than this."""
    max_bytes: int | None = None
    """Stop once the values returned reach this many bytes; one item is always returned."""


Read = Get | Scan


class Rows(msgspec.Struct, frozen=True, gc=False):
    """What one :class:`Get` (no item or one) or :class:`Scan` found."""

    items: Sequence[Item] = ()
    more: bool = False
    """The range may hold further items behind the last one returned: go on from its key.
    ``False`` promises that it does not. ``more`` never comes with no items."""


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """A consistent view of one session, as of ``head.version``."""

    head: Head | None
    """``None``: there is no such session (never made, deleted, or expired)."""
    now: int
    """The backend's clock at the time of the read."""
    rows: tuple[Rows, ...] = ()
    """One per read, in the order asked; empty ones where there is no session."""
    epoch: bytes = b""
    """Names the line of history that answered. Another than a reader saw before means that
    acknowledged commits may have been lost in between (a failover to a replica that was
    behind, a restart without the last writes): what it saw then proves nothing now. Always
    empty where that cannot happen."""


# Writes


class Expect(Enum):
    """What a writer requires of the session's existence."""

    ANY = "any"
    """Create it if it is absent."""
    PRESENT = "present"
    ABSENT = "absent"


class At(msgspec.Struct, frozen=True, gc=False):
    """The writer requires exactly this version, made by exactly this commit."""

    version: int
    tip: bytes


class Condition(msgspec.Struct, frozen=True, gc=False):
    """The writer requires that an item was last written by ``version``; 0: that it is absent.

    ``key=None`` speaks of ``Head.meta`` (0: never set).
    """

    key: bytes | None
    version: int


class KeyRange(msgspec.Struct, frozen=True, gc=False):
    """All keys with ``start <= key < stop``; ``stop=None``: to the end of the map."""

    start: bytes
    stop: bytes | None = None


class Append(msgspec.Struct, frozen=True, gc=False):
    """Values to be written under new keys that order after everything appended before.

    The backend completes the key: see :func:`append_key`.
    """

    prefix: bytes
    """At most ``MAX_ITEM_KEY_BYTES - 12`` bytes."""
    values: tuple[bytes, ...]


def append_key(prefix: bytes, version: int, ordinal: int) -> bytes:
    """The key of the ``ordinal``-th value (from 0) appended under ``prefix`` by ``version``.

    ``prefix``, then the version as 8 and the ordinal as 4 bytes, both unsigned big-endian.
    Ordinals count per prefix within one commit.
    """
    return prefix + version.to_bytes(8, "big") + ordinal.to_bytes(4, "big")


def appended_version(key: bytes) -> int:
    """The version of the commit that appended the item with this key."""
    return int.from_bytes(key[-12:-4], "big")


class Restored(msgspec.Struct, frozen=True, gc=False):
    """Where a session was that is copied from elsewhere."""

    version: int
    """At least 1. With it kept, keys appended before stay below those to come."""
    created_at: int
    """For a commit that creates the session: a copy keeps the time it has."""
    updated_at: int


NEVER = 0
"""As ``Commit.expires_at``: take the session's expiry away."""


class Commit(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One atomic, conditional change of one session. Applied whole or not at all."""

    id: bytes
    """16 random bytes. The same id again is the same commit, not another."""
    digest: bytes
    """8 bytes that tell this commit's content from another's, computed before encryption."""
    new_incarnation: bytes
    """The incarnation that the session gets if this commit creates it."""
    restored: Restored | None = None
    """This commit makes that version, with those times, in place of the next one and now: a
    copy of a session goes on where the original was. With ``Expect.ABSENT``, or with an ``At``
    of a lower version. Of the ids that the incarnation has used before, none need be
    remembered any more."""
    expect: Expect | At = Expect.ANY
    incarnation: bytes | None = None
    """The incarnation the writer has seen. A commit that names one never creates."""
    conditions: tuple[Condition, ...] = ()
    base: int = 0
    """The version known when this commit was first sent (0: none)."""
    resend: bool = False
    """This commit may have been sent before, and its reply lost."""
    seen: int | None = None
    """The ``now`` that the backend had told the sender last when this commit was first sent
    (``None``: it had told none). If the commit was ever applied, it was then or later."""

    deletes: tuple[bytes | KeyRange, ...] = ()
    """Removed first: what ``puts`` and ``appends`` write survives."""
    puts: tuple[tuple[bytes, bytes], ...] = ()
    """(key, value) pairs; no key twice, and none that an append of this commit makes."""
    appends: tuple[Append, ...] = ()
    """No prefix twice."""
    stages: tuple[bytes, ...] = ()
    """Stage ids whose items become ordinary items, stamped with this commit's version. No key
    is in two of them; those that ``puts`` has too are replaced."""
    meta: bytes | None = None
    """``None`` leaves it as it is."""
    labels: tuple[str, ...] | None = None
    """``None`` leaves them as they are."""
    expires_at: int | None = None
    """Absolute expiry in ms, or :data:`NEVER`. ``None`` leaves it as it is."""
    expires_in: int | None = None
    """Expiry in ms from the backend's ``now``; not together with ``expires_at``."""
    returning: tuple[Read, ...] = ()
    """Evaluated with the commit: after it on success, instead of it on conflict."""


class Committed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The acknowledgement of a commit: it is applied, as durably as the backend declares."""

    version: int
    """The version that this commit made, also when ``replayed``."""
    incarnation: bytes
    """The incarnation in which it made it."""
    head: Head | None
    """The session's head now: the one this commit made or, on a replay, perhaps a later one,
    another incarnation's, or ``None`` if the session has gone since."""
    now: int
    replayed: bool = False
    """The commit had been applied before; this call changed nothing."""
    rows: tuple[Rows, ...] = ()
    """One per read of ``returning``; empty where ``Capabilities.returning`` is false."""
    epoch: bytes = b""
    """As :attr:`Snapshot.epoch`."""


# Listing


class Order(Enum):
    """How a list is ordered."""

    ID = "id"
    """By session id, as UTF-8 bytes."""
    RECENCY = "recency"
    """Last committed first, as exact as ``Capabilities.recency_lag`` says."""


class ListQuery(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Which sessions of one tenant and kind to list, and how."""

    order: Order = Order.ID
    prefix: str = ""
    """Only ids that start so. With ``Order.ID`` only."""
    label: str | None = None
    """Only sessions that carry this label."""
    limit: int = 100
    """At least 1."""
    cursor: str | None = None
    """``Page.cursor`` of the page before, for the same query; anything else is undefined."""


class HeadEntry(msgspec.Struct, frozen=True, gc=False):
    """A session as a list shows it."""

    key: SessionKey
    head: Head


class Page(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One page of a list."""

    items: tuple[T, ...]
    cursor: str | None = None
    """Opaque; where the next page starts. ``None``: this was the last."""
