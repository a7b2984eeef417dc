"""Due rows: what a sweep has to do, and when.

Whatever cannot be done in one transaction has a row here, written by the transaction that makes
it necessary and removed when it is done: so a client may die at any point, and the next sweep
goes on where it stopped. A row that is no longer needed does no harm.

A row's partition is ``d`` and its shard, one byte; its sort key is the time, as 8 bytes, and a
digest of what is due, by which the shard is chosen too. Attribute ``d`` holds the :class:`Due`.
"""

from enum import IntEnum
from hashlib import blake2b

import msgspec

from perdure.backend import STAGE_MS
from perdure.errors import Corrupt
from perdure.types import SessionKey

from perdure_dynamodb.actions import PARTITION, SORT, Delete, Put, Row
from perdure_dynamodb.chain import SETTLING_MS
from perdure_dynamodb.keys import DUE_SHARDS
from perdure_dynamodb.state import State

HOUR_MS = 3_600_000

WAIT_MS = STAGE_MS + HOUR_MS
"""How long staged parts wait: at least ``STAGE_MS`` by anybody's clock."""

LAST_MS = (1 << 63) - 1
"""No row is due later."""

LAST_DIGEST = b"\xff" * 16


class What(IntEnum):
    """What is due."""

    EXPIRE = 0
    """The life that began in ``first`` may have expired. A lower bound: expiring later than
    was said before does not move the row."""
    LIFE = 1
    """The life in the slots from ``first`` to ``last`` was over at ``at``: its rows are to
    go."""
    TOMBS = 2
    """What the commit in the slot ``last`` has deleted is to go."""
    STAGE = 3
    """The stage has waited for its commit for as long as stages do."""
    LAPSE = 4
    """The stubs in the slots from ``first`` to ``last`` were kept for as long as they are."""


class Due(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One thing to do."""

    what: int
    """A :class:`What`, or something that a newer perdure knows of."""
    at: int
    """When, in ms since the epoch."""
    session: bytes
    """``SessionKey.encode()``."""
    incarnation: bytes
    stage: bytes = b""
    first: int = 0
    last: int = 0

    @property
    def key(self) -> SessionKey:
        """The session it is about."""
        return SessionKey.decode(self.session)

    def place(self) -> tuple[bytes, bytes]:
        """Partition and sort key of its row."""
        digest = blake2b(_encode(msgspec.structs.replace(self, at=0)), digest_size=16).digest()
        at = min(self.at, LAST_MS).to_bytes(8, "big")
        return partition(digest[0] % DUE_SHARDS), at + digest

    def filed(self) -> Put:
        """The action that writes its row."""
        partition, sort = self.place()
        return Put({PARTITION: partition, SORT: sort, "d": _encode(self)})

    def done(self) -> Delete:
        """The action that removes its row."""
        return Delete(*self.place())


def partition(shard: int) -> bytes:
    """The partition of one shard, numbered from 0, of all due rows."""
    return b"d" + bytes((shard,))


def by(now: int) -> tuple[bytes, bytes]:
    """Bounds for BETWEEN of the sort keys of what is due by ``now``."""
    return bytes(8), now.to_bytes(8, "big") + LAST_DIGEST


def of(row: Row) -> Due:
    """What a due row says. Raises ``Corrupt``."""
    stored = row.get("d")
    try:
        return _decoder.decode(stored if type(stored) is bytes else b"")
    except msgspec.DecodeError as error:
        raise Corrupt(f"a due row does not hold what perdure wrote: {error}") from error


def expiry(key: SessionKey, state: State) -> Due:
    """Look at ``state.due_at`` whether the session has expired."""
    return Due(
        what=What.EXPIRE,
        at=state.due_at,
        session=key.encode(),
        incarnation=state.incarnation,
        first=state.first,
    )


def life(key: SessionKey, before: State, after: State) -> Due:
    """Remove what a life leaves, of which ``before`` is the last state.

    ``after`` is its seal, which is removed with it, or the first state of the next life.
    """
    return Due(
        what=What.LIFE,
        at=after.made_at,
        session=key.encode(),
        incarnation=before.incarnation,
        first=before.first,
        last=before.slot if after.first == after.slot else after.slot,
    )


def tombs(key: SessionKey, state: State) -> Due:
    """Remove what the commit has deleted that made ``state``.

    Not at once: what commits just before it wrote may not show in all their rows yet, and would
    be missed.
    """
    return Due(
        what=What.TOMBS,
        at=state.made_at + SETTLING_MS,
        session=key.encode(),
        incarnation=state.incarnation,
        last=state.slot,
    )


def stage(key: SessionKey, incarnation: bytes, stage: bytes, now: int) -> Put:
    """The action that goes with opening a stage: its parts do not wait for ever."""
    return Due(
        what=What.STAGE,
        at=now + WAIT_MS,
        session=key.encode(),
        incarnation=incarnation,
        stage=stage,
    ).filed()


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Due)
