"""The rows by which sessions are listed, and what a commit changes of them. Pure functions.

Index rows are keys and nothing else, and which of them there are follows from the state in the
newest slot alone: they change only in transactions that take a slot. So what is to be changed
is the difference of two sets. A list reads the heads of those it shows.

==========================================  ======================  =======================
partition                                   sort key                lists
==========================================  ======================  =======================
``i`` shard tenant NUL kind                 id                      all, by id
``r`` shard tenant NUL kind                 age, id                 all, by recency
``l`` shard tenant NUL kind NUL label       id                      a label's, by id
``m`` shard tenant NUL kind NUL label       age, id                 a label's, by recency
==========================================  ======================  =======================

The shard, one byte, is that of the id. The age, 8 bytes, is counted back from ``LATEST``.
"""

from msgspec.structs import replace

from perdure.types import SessionKey

from perdure_dynamodb import due, keys
from perdure_dynamodb.actions import PARTITION, SORT, Action, Delete, Put
from perdure_dynamodb.state import Kind, State

LATEST = (1 << 63) - 1
"""Ages, by which what is recent orders first, are counted back from this time."""

RECENCY_LAG = 60_000
"""Rows by recency are moved when they are this many ms behind."""

LAST_NAME = b"\xff"
"""Orders after all names and ids, which are UTF-8."""

Place = tuple[bytes, bytes]
"""Partition and sort key of an index row."""


def partition(
    shard: bytes, tenant: str, kind: str, label: str | None, *, recency: bool
) -> bytes:
    """One shard of one list."""
    if label is None:
        return b"%b%b%b" % (b"r" if recency else b"i", shard, f"{tenant}\0{kind}".encode())
    names = f"{tenant}\0{kind}\0{label}".encode()
    return b"%b%b%b" % (b"m" if recency else b"l", shard, names)


def age(recent_at: int) -> bytes:
    """The first part of a sort key by recency."""
    return (LATEST - min(recent_at, LATEST)).to_bytes(8, "big")


def places(key: SessionKey, state: State | None) -> frozenset[Place]:
    """The index rows of a session whose newest slot holds ``state``, expired or not."""
    if state is None or state.kind is not Kind.COMMIT:
        return frozenset()
    shard, id = keys.shard(key.id), key.id.encode()
    by_recency = age(state.recent_at) + id
    return frozenset(
        (
            partition(shard, key.tenant, key.kind, label, recency=recency),
            by_recency if recency else id,
        )
        for label in (None, *state.labels)
        for recency in (False, True)
    )


def changes(
    key: SessionKey, before: State | None, after: State, now: int
) -> tuple[State, list[Action]]:
    """What a commit that takes the session from ``before`` to ``after`` writes besides.

    ``before`` is the state in the newest slot, dead or expired or ``None`` where the commit
    creates; ``after`` has all but ``recent_at`` and ``due_at``, with which it is handed back.
    No action means that the slot alone says it all.
    """
    living = before if before is not None and before.first == after.first else None
    after = replace(
        after, recent_at=_recent_at(living, after), due_at=_due_at(living, after, now)
    )
    actions = _moved(places(key, before), places(key, after))
    old = before.due_at if before is not None and before.kind is Kind.COMMIT else 0
    if before is not None and old and (living is None or old != after.due_at):
        actions.append(due.expiry(key, before).done())
    if after.due_at and (living is None or old != after.due_at):
        actions.append(due.expiry(key, after).filed())
    if before is not None and before.kind is Kind.COMMIT and living is None:
        actions.append(due.life(key, before, after).filed())
    if any(tomb.slot == after.slot for tomb in after.tombs):
        actions.append(due.tombs(key, after).filed())
    return after, actions


def sealing(key: SessionKey, before: State, seal: State) -> list[Action]:
    """What the end of a life writes besides its seal: no list shows it, and it is to go."""
    actions = _moved(places(key, before), frozenset())
    if before.due_at:
        actions.append(due.expiry(key, before).done())
    actions.append(due.life(key, before, seal).filed())
    return actions


def _recent_at(before: State | None, after: State) -> int:
    """That of the state before, unless it is too far behind or the commit restores a copy."""
    if (
        before is None
        or after.segment == after.slot
        or after.updated_at - before.recent_at >= RECENCY_LAG
    ):
        return after.updated_at
    return before.recent_at


def _due_at(before: State | None, after: State, now: int) -> int:
    """When the session's expiry is looked at.

    A row that will be looked at in time stays as it is: expiries that slide with every commit
    cost nothing. A sweep may have moved one that is past.
    """
    if after.expires_at is None:
        return 0
    if before is not None and now < before.due_at <= after.expires_at:
        return before.due_at
    return max(1, after.expires_at)


def _moved(old: frozenset[Place], new: frozenset[Place]) -> list[Action]:
    actions: list[Action] = [Delete(*place) for place in sorted(old - new)]
    actions += [
        Put({PARTITION: partition, SORT: sort}) for partition, sort in sorted(new - old)
    ]
    return actions
