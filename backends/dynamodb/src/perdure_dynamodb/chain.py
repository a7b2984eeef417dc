"""What is known of the newest slots: read from the table, and remembered for a while.

A remembered state serves to try: the slot after it can only be taken if it is still the newest.
Nothing is refused, and nothing read, on the word of one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from perdure.errors import Corrupt
from perdure.types import Head, SessionKey

from perdure_dynamodb import keys
from perdure_dynamodb.actions import EXPIRY, SORT
from perdure_dynamodb.rows import HEAD, META, STRIPPED, Slot, slot_of
from perdure_dynamodb.state import State
from perdure_dynamodb.table import Table

FRESH_MS = 3_600_000
"""For how long a state is remembered. A slot that is gone must never be taken again: what is
left of a dead life stays for a day and an hour, so that nobody still relies on it."""

SETTLING_MS = 5_000
"""Longer than DynamoDB takes to apply a transaction that it has decided on. It does so in
milliseconds, and what its coordinator leaves undone others finish."""

MANY_SESSIONS = 4096
"""Of so many sessions the state is remembered."""

WITHOUT_VALUES = (SORT, HEAD, META, STRIPPED, EXPIRY)


class Known(msgspec.Struct, frozen=True, gc=False):
    """The newest slot of a key, as of some time."""

    state: State
    meta: bytes | None
    """That of the head. ``None``: it is in another slot, not read so far."""
    at: int
    """When, in ms by the table's clock."""
    lapses: int = 0
    """As :attr:`Slot.lapses`."""


class Chain:
    """The chains of slots of one table. Bound to the table's event loop."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.log: bytes | None = None
        """The prefix under which the session met last appends its log."""
        self._known: OrderedDict[SessionKey, Known] = OrderedDict()
        self._settled: dict[SessionKey, int] = {}
        self._purged: dict[SessionKey, tuple[int, int]] = {}  # first slot of the life, of tomb
        # The lock of each key that is being written, and how many hold it or wait for it.
        self._turns: dict[SessionKey, tuple[asyncio.Lock, int]] = {}

    # Reading

    async def fetch(self, key: SessionKey) -> Known | None:
        """The newest slot, now, without its values. One request."""
        found = await self.table.query(
            keys.session(key),
            keys.NO_SLOT,
            keys.LAST_SLOT,
            reverse=True,
            limit=1,
            only=WITHOUT_VALUES,
        )
        if not found.rows:
            self.forget(key)
            return None
        return self.met(key, slot_of(found.rows[0]))

    async def newest(self, key: SessionKey) -> State | None:
        """The newest slot's state, now; ``None`` if the key has no slots."""
        known = await self.fetch(key)
        return None if known is None else known.state

    async def head(self, key: SessionKey) -> Head | None:
        """The session's head, now; ``None`` if it is absent."""
        while True:
            known = await self.fetch(key)
            if known is None or not known.state.present(self.table.now()):
                return None
            meta = await self.meta(key, known)
            if meta is not None:
                return known.state.head(meta)

    async def meta(self, key: SessionKey, known: Known) -> bytes | None:
        """The meta of a session that is present. ``None``: it is gone meanwhile."""
        if known.meta is not None:
            return known.meta
        state = known.state
        row = await self.table.get(keys.session(key), keys.slot(state.meta_slot), only=(META,))
        if row is None or META not in row:
            return None
        meta = row[META]
        if not isinstance(meta, bytes):
            raise Corrupt("a slot's meta is not what perdure wrote")
        self.note(key, msgspec.structs.replace(known, meta=meta))
        return meta

    # Remembering

    def cached(self, key: SessionKey) -> Known | None:
        """The newest slot as it was within the last :data:`FRESH_MS`."""
        known = self._known.get(key)
        if known is None:
            return None
        if not 0 <= self.table.now() - known.at < FRESH_MS:
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return known

    def met(self, key: SessionKey, slot: Slot) -> Known:
        """A slot that was the newest when it was read just now."""
        state = slot.state
        meta = state.meta if not state.meta_slot else slot.meta
        if meta is None:
            last = self._known.get(key)
            if last is not None and (last.state.first, last.state.meta_slot) == (
                state.first,
                state.meta_slot,
            ):
                meta = last.meta
        known = Known(state, meta, self.table.now(), slot.lapses)
        self.note(key, known)
        return known

    def note(self, key: SessionKey, known: Known) -> None:
        """Remember a newest slot, unless a newer one is known."""
        last = self._known.get(key)
        if last is not None and last.state.slot > known.state.slot:
            return
        if known.state.log is not None:
            self.log = known.state.log
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > MANY_SESSIONS:
            gone, _ = self._known.popitem(last=False)
            self._purged.pop(gone, None)
            self._settled.pop(gone, None)

    def forget(self, key: SessionKey) -> None:
        """Remember nothing of this key."""
        self._known.pop(key, None)
        self._purged.pop(key, None)
        self._settled.pop(key, None)

    def settled(self, key: SessionKey, state: State) -> bool:
        """Whether the rows of items show all that the commits up to ``state`` have changed.

        A transaction's rows are not changed at one instant, and whoever reads between may meet
        its slot before the rest. Once it has been acknowledged, all show it.
        """
        return (
            state.touched <= self._settled.get(key, 0)
            or abs(self.table.now() - state.touched_at) > SETTLING_MS
        )

    def note_settled(self, key: SessionKey, slot: int) -> None:
        """The commits up to this slot show in all rows."""
        self._settled[key] = max(slot, self._settled.get(key, 0))

    def note_purged(self, key: SessionKey, state: State) -> None:
        """Every deletion that ``state`` carries is done physically."""
        if state.tombs:
            self._purged[key] = state.first, max(tomb.slot for tomb in state.tombs)

    def purged(self, key: SessionKey, state: State) -> int:
        """Deletions of this life up to this slot are done physically."""
        first, slot = self._purged.get(key, (0, 0))
        return slot if first == state.first else 0

    # Waiting

    @asynccontextmanager
    async def turn(self, key: SessionKey) -> AsyncGenerator[None]:
        """Writers of one key in this process come one after the other: they would only make
        one another fail."""
        lock, wanted = self._turns.get(key) or (asyncio.Lock(), 0)
        self._turns[key] = lock, wanted + 1
        try:
            async with lock:
                yield
        finally:
            lock, wanted = self._turns[key]
            if wanted == 1:
                del self._turns[key]
            else:
                self._turns[key] = lock, wanted - 1
