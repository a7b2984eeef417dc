"""Whether a commit was applied before: the ids in the slots, and how far back one must look.

Steps 1 and 2 of :meth:`perdure.backend.Backend.commit`. While a session lives all its slots
stay, and for a day after it ended what is left of them. Only how many are looked at is limited.
"""

from collections.abc import AsyncIterator, Iterable

from perdure.backend import REMEMBERED_COMMITS, TOMBSTONE_MS
from perdure.errors import OutcomeUnknown
from perdure.types import Commit, SessionKey

from perdure_dynamodb import keys
from perdure_dynamodb.actions import SORT
from perdure_dynamodb.clock import ERROR_MS
from perdure_dynamodb.rows import HEAD, slot_of
from perdure_dynamodb.state import MARKS, Kind, State
from perdure_dynamodb.table import Table

LOOK_BACK = MARKS
"""Of each life so many of the last slots are looked at."""

LOOK_FAR_BACK = 4 * REMEMBERED_COMMITS
"""And so many where it has to be certain that a commit was not applied."""

AT_ONCE = 32
"""So many are asked for in one request."""

LINGER_MS = TOMBSTONE_MS + 2 * ERROR_MS
"""What ended longer ago, no retry speaks of."""


class Memory:
    """The slots before one key's newest, as far as one operation has looked at them.

    What it has seen stays seen: slots do not change but for turning into stubs, which keep ids,
    versions and times.
    """

    def __init__(self, table: Table, key: SessionKey, id: bytes) -> None:
        self._table = table
        self._partition = keys.session(key)
        self._id = id
        self._seen: dict[int, State] = {}
        self._found: State | None = None
        """The slot with the operation's id, once it was seen."""

    def note(self, states: Iterable[State]) -> None:
        """Slots that were read anyway."""
        for state in states:
            self._seen[state.slot] = state
            if state.tip == self._id:
                self._found = state

    async def find(self, newest: State | None, now: int, since: int = 0) -> State | None:
        """The slot of the commit or delete, if it is one of the last of any remembered life.

        Lives that were over before ``since`` are not looked at, as far as that saves requests.
        """
        if newest is not None:
            self.note((newest,))
        if newest is None or self._found is not None:
            return self._found
        since = max(since, now - LINGER_MS)
        state = newest
        ended_at = now if newest.kind is Kind.COMMIT else newest.made_at
        while ended_at >= since:
            found = await self._find_in(state, 1)
            if found is not None:
                return found
            # What is below in this life is too far back.
            below = min(state.slot - state.marks, state.first - 1)
            ended_at = state.ended_at
            if not ended_at or below < 1:
                return None
            earlier = [state async for state in self._back(below, below, 1)]
            if not earlier:
                return None
            (state,) = earlier
        return None

    async def find_commit(self, newest: State | None, commit: Commit, now: int) -> State | None:
        """The slot of the commit; ``None``: it was not applied.

        Raises ``OutcomeUnknown`` with ``forgotten`` if it was perhaps sent before and an id
        from since then may be too far back.
        """
        if newest is not None:
            self.note((newest,))
        if newest is None or self._found is not None:
            return self._found
        seen = commit.seen
        if seen is not None and seen > now + ERROR_MS:
            seen = None  # the clock has been set back since: its times prove nothing
        since = max((seen or 0) - 2 * ERROR_MS, now - LINGER_MS)
        if commit.resend or newest.resent_at >= since:
            return await self._find_certainly(newest, commit, seen, now, since)
        if newest.kind is Kind.COMMIT and newest.incarnation == commit.incarnation:
            low = newest.first
            if commit.base >= newest.segment - newest.offset:
                low = max(low, commit.base + newest.offset + 1)
            return await self._find_in(newest, low)
        return await self.find(newest, now, since)

    async def _find_in(self, last: State, low: int) -> State | None:
        """One of the slots up to ``last``, as many as that has marks of, not below ``low``."""
        if last.may_remember(self._id):
            async for state in self._back(last.slot, low, last.marks):
                if state.tip == self._id:
                    return state
        return None

    async def _find_certainly(
        self, newest: State, commit: Commit, seen: int | None, now: int, since: int
    ) -> State | None:
        base = commit.base if commit.incarnation is not None else 0
        forgotten = False
        async for life in self._lives(newest, now, since):
            concerned = commit.incarnation in (None, life.incarnation)
            complete = not concerned
            depth = LOOK_FAR_BACK if concerned else LOOK_BACK
            async for state in self._back(life.slot, life.first, depth):
                if state.tip == commit.id:
                    return state
                if not concerned or state.slot < life.segment:
                    continue
                complete = (state.kind is not Kind.SEAL and state.version <= base + 1) or (
                    seen is not None and state.made_at < seen - 2 * ERROR_MS
                )
                if complete:
                    break
            forgotten = forgotten or not complete
        if forgotten:
            raise OutcomeUnknown(
                "too many commits followed to tell whether this one was applied",
                commit=commit,
                forgotten=True,
            )
        return None

    async def _lives(self, newest: State, now: int, since: int) -> AsyncIterator[State]:
        """The last slot of each life that was not over before ``since``, the latest first."""
        life = newest
        ended_at = now if newest.kind is Kind.COMMIT else newest.made_at
        while ended_at >= since:
            yield life
            ended_at = life.ended_at
            if not ended_at or life.first == 1:
                return
            found = [state async for state in self._back(life.first - 1, life.first - 1, 1)]
            if not found:
                return
            (life,) = found

    async def _back(self, high: int, low: int, most: int) -> AsyncIterator[State]:
        """Slots from ``high`` down to ``low``, at most so many, as far as they are there."""
        low = max(low, high - most + 1)
        for number in range(high, low - 1, -1):
            if number not in self._seen:
                found = await self._table.query(
                    self._partition,
                    keys.slot(low),
                    keys.slot(number),
                    reverse=True,
                    limit=min(number - low + 1, AT_ONCE),
                    only=(SORT, HEAD),
                )
                self.note(slot_of(row).state for row in found.rows)
                if number not in self._seen:
                    return
            yield self._seen[number]
