"""What a commit writes: the state in its slot, the values riding there, and rows of items."""

from collections.abc import Mapping

import msgspec

from perdure.types import Commit, Head, KeyRange, Scan, append_key

from perdure_dynamodb import keys, rows
from perdure_dynamodb.actions import Action, Delete
from perdure_dynamodb.log import span_of
from perdure_dynamodb.rows import Touches
from perdure_dynamodb.state import INLINE_META, State, Tomb, marked, tomb_of

MOST_ROWS = 75
"""A transaction has 100 actions. Besides rows of items and stages, a commit that follows on an
expired life may change 22 rows of the index and of what is due, and takes a slot."""

RIDING_BYTES = 350_000
"""Values longer than this, together with what else their commit writes into its slot, become
rows of their own: a row holds 400 KB, and the state has to have room beside them."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A commit as it is to be written, but for the index."""

    state: State
    values: tuple[bytes, ...]
    """Those that ride in the slot."""
    meta: bytes | None
    """Meta too long for the state."""
    touches: Touches
    actions: list[Action]
    """First those that adopt the stages, in their order."""


def change(
    partition: bytes,
    before: State | None,
    living: State | None,
    commit: Commit,
    head: Head,
    now: int,
    *,
    stages: Mapping[bytes, KeyRange],
    purged: int,
    log_rows: bool,
) -> Change:
    """What ``commit`` writes that makes ``head`` at ``now``.

    ``before`` is the state in the newest slot, ``living`` the same if the session is present.
    ``stages`` are the ids under which those of the commit have their parts, and where.
    Deletions up to the slot ``purged`` are done physically. ``log_rows`` says that there may be
    rows of items under the log's prefix.
    """
    slot = 1 if before is None else before.slot + 1
    log = log_of(living, commit)
    items = dict(commit.puts)
    values: tuple[bytes, ...] = ()
    for append in commit.appends:
        size = sum(map(len, append.values)) + _size_beside(commit)
        if append.prefix == log and size <= RIDING_BYTES:
            values = append.values
            continue
        for ordinal, value in enumerate(append.values):
            items[append_key(append.prefix, head.version, ordinal)] = value
    kept = living.tombs if living is not None else ()
    made, gone = _deletions(living, commit, slot, MOST_ROWS - len(items) - len(commit.stages))
    gone -= items.keys()
    tombs = tuple(
        tomb
        for tomb in kept
        if tomb.slot > purged and not any(_contains(other, tomb) for other in made)
    )
    actions: list[Action] = [
        rows.adopt_stage(partition, head.incarnation, stage, head.version, slot, span)
        for stage, span in stages.items()
    ]
    actions += [
        rows.put_item(partition, head.incarnation, key, value, head.version, slot)
        for key, value in items.items()
    ]
    actions += [Delete(partition, keys.item(head.incarnation, key)) for key in sorted(gone)]
    touching = bool(actions or made)
    long = commit.meta is not None and len(commit.meta) > INLINE_META
    meta, meta_slot = b"", 0
    if commit.meta is None and living is not None:
        meta, meta_slot = living.meta, living.meta_slot
    elif commit.meta is not None:
        meta, meta_slot = (b"", slot) if long else (commit.meta, 0)
    state = State(
        slot=slot,
        version=head.version,
        incarnation=head.incarnation,
        tip=head.tip,
        digest=commit.digest,
        made_at=now if before is None else max(now, before.made_at),
        first=slot if living is None else living.first,
        segment=slot if living is None or commit.restored else living.segment,
        created_at=head.created_at,
        updated_at=head.updated_at,
        expires_at=head.expires_at,
        last_delete=head.last_delete,
        meta_version=head.meta_version,
        meta=meta,
        meta_slot=meta_slot,
        labels=head.labels,
        recent_at=0 if living is None else living.recent_at,
        due_at=0 if living is None else living.due_at,
        recent=marked(b"" if before is None else before.recent, commit.id),
        resent_at=now if commit.resend else (0 if before is None else before.resent_at),
        ended_at=_ended_at(before, living, now),
        log=log,
        log_rows=log_rows
        or (log is not None and any(log <= key < keys.values_stop(log) for key in items)),
        staged=bool(commit.stages) or (living is not None and living.staged),
        tombs=tombs + tuple(made),
        touched=slot if touching else (0 if living is None else living.touched),
        touched_at=now if touching else (0 if living is None else living.touched_at),
        low=0 if living is None else _low(living, made),
        emptied=0 if living is None else _emptied(living, purged),
    )
    touches = Touches(tuple(items), tuple(sorted(gone)), tuple(stages))
    return Change(state, values, commit.meta if long else None, touches, actions)


def log_of(living: State | None, commit: Commit) -> bytes | None:
    """The prefix of the log, which the first append of a life decides."""
    if living is not None and living.log is not None:
        return living.log
    return commit.appends[0].prefix if commit.appends else None


def _size_beside(commit: Commit) -> int:
    """How many bytes of a commit, besides the values that ride there, may go into its slot."""
    size = len(commit.meta or b"") + sum(len(item) for item, _ in commit.puts)
    for append in commit.appends:
        size += len(append.values) * len(append_key(append.prefix, 0, 0))
    for target in commit.deletes:
        tomb = tomb_of(target, 0)
        size += len(tomb.start) + len(tomb.stop or b"")
    return size


def _deletions(
    living: State | None, commit: Commit, slot: int, room: int
) -> tuple[list[Tomb], set[bytes]]:
    """What a commit deletes that may be there: by a tomb, and by removing the only row that a
    key can have, of which there is room for so many."""
    if living is None:
        return [], set()
    gone: set[bytes] = set()
    made: list[Tomb] = []
    for target in commit.deletes:
        if isinstance(target, KeyRange):
            if target.stop is None or target.start < target.stop:
                made.append(tomb_of(target, slot))
        elif living.staged or _may_ride(living, target) or len(gone) >= room:
            made.append(tomb_of(target, slot))
        else:
            gone.add(target)
    return made, gone


def _may_ride(living: State, key: bytes) -> bool:
    log = living.log
    return log is not None and key.startswith(log) and len(key) == len(append_key(log, 0, 0))


def _contains(outer: Tomb, inner: Tomb) -> bool:
    if outer.start > inner.start:
        return False
    return outer.stop is None or (inner.stop is not None and inner.stop <= outer.stop)


def _low(living: State, made: list[Tomb]) -> int:
    """``State.low`` once these deletions are made: a log that is trimmed from its beginning
    again and again is not read from there every time."""
    low = living.low
    for tomb in made:
        if living.log is None or tomb.start > living.log:
            continue
        span = span_of(living.log, Scan(tomb.start, tomb.stop))
        # That of the last version of which it deletes some.
        last = min(span.high + living.offset, living.slot)
        if last >= living.segment and not span.empty:
            low = max(low, last)
    return low


def _emptied(living: State, purged: int) -> int:
    if any(tomb.slot > purged for tomb in living.tombs):
        return living.emptied
    return living.low


def _ended_at(before: State | None, living: State | None, now: int) -> int:
    """When the life before the one that is made or goes on ended."""
    if living is not None:
        return living.ended_at
    if before is None:
        return 0
    return now if before.expires_at is not None and before.expired(now) else before.made_at
