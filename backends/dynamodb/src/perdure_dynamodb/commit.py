"""Commits and deletes: each takes the slot after the newest, or nothing of it happens.

What a commit requires is judged here, on a state; that the slot after this state is free is the
condition of the write, so that it was still the newest when the write was applied. A state that
was remembered serves to try; whoever is refused was judged by one read in this very call.

A write whose reply was lost is only ever repeated at its own slot. The id in the slot tells
whose it became.
"""

import asyncio
from functools import partial
from typing import NoReturn

from perdure.commits import check, check_expect, next_head
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    SessionDeleted,
    StageMissing,
)
from perdure.types import At, Commit, Committed, Expect, Head, SessionKey

from perdure_dynamodb import due, index, keys, purge, removal, rows, tombs
from perdure_dynamodb.actions import (
    SORT,
    Action,
    Check,
    ConditionFailed,
    Delete,
    Put,
    Row,
    TransactionRefused,
)
from perdure_dynamodb.background import Background
from perdure_dynamodb.chain import FRESH_MS, SETTLING_MS, Chain, Known
from perdure_dynamodb.changes import MOST_ROWS, change, log_of
from perdure_dynamodb.items import Holds, Seen
from perdure_dynamodb.log import Moved
from perdure_dynamodb.overtaken import Overtaken
from perdure_dynamodb.reading import Reader
from perdure_dynamodb.registry import Registry
from perdure_dynamodb.remembering import Memory
from perdure_dynamodb.rows import slot_of
from perdure_dynamodb.staging import Stages
from perdure_dynamodb.state import (
    LONG_TOMBS,
    MANY_TOMBS,
    TOO_LONG_TOMBS,
    TOO_MANY_TOMBS,
    Kind,
    State,
    tomb_of,
)


class NotTheNewest(Exception):
    """A slot was taken: the state that was judged is not the newest."""

    def __init__(self, known: Known | None) -> None:
        super().__init__("a later slot is taken")
        self.known = known
        """A later state. ``None``: read it."""


class Writer:
    """Commits to sessions, and deletes them."""

    def __init__(
        self, chain: Chain, reader: Reader, stages: Stages, background: Background
    ) -> None:
        self._chain = chain
        self._table = chain.table
        self._reader = reader
        self._stages = stages
        self._background = background
        self._registry = Registry(chain.table)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        """:meth:`perdure.backend.Backend.commit`."""
        memory = Memory(self._table, key, commit.id)
        overtaken = Overtaken()
        async with self._chain.turn(key):
            known = self._chain.cached(key)
            fresh = known is None
            if known is None:
                known = await self._chain.fetch(key)
            while True:
                try:
                    return await self._commit(key, commit, memory, known, fresh=fresh)
                except NotTheNewest as other:
                    known, fresh = other.known, False
                    if await overtaken.pause():
                        known = None
                except (Conflict, SessionDeleted, CommitIdReused, StageMissing):
                    if fresh:
                        raise
                    known = None
                except OutcomeUnknown as error:
                    if fresh or not error.forgotten:
                        raise
                    known = None
                if known is None:
                    known, fresh = await self._chain.fetch(key), True

    async def delete(
        self, key: SessionKey, id: bytes, expect: Expect | At, incarnation: bytes | None
    ) -> bool:
        """:meth:`perdure.backend.Backend.delete`."""
        memory = Memory(self._table, key, id)
        overtaken = Overtaken()
        async with self._chain.turn(key):
            while True:
                known = await self._chain.fetch(key)
                try:
                    return await self._delete(key, id, expect, incarnation, memory, known)
                except NotTheNewest:
                    await overtaken.pause()

    async def _commit(
        self,
        key: SessionKey,
        commit: Commit,
        memory: Memory,
        known: Known | None,
        *,
        fresh: bool,
    ) -> Committed:
        """One try, on this state. Raises ``NotTheNewest`` besides what refuses the commit."""
        now = self._table.now()
        before = None if known is None else known.state
        found = await memory.find_commit(before, commit, now)
        head = await self._head(key, known, now)
        if found is not None:
            if not fresh:
                raise NotTheNewest(None)  # the answer shows the session as it is now
            return _replay(found, commit, head, now)
        living = before if head is not None else None
        unless = await self._check(key, living, head, commit, now)
        if living is not None:
            await self._lighten(key, living)
        made = next_head(head, commit, now)
        stages = {
            self._stages.id_of(key, made.incarnation, stage): self._stages.span(
                key, made.incarnation, stage
            )
            for stage in commit.stages
        }
        written = change(
            keys.session(key),
            before,
            living,
            commit,
            made,
            now,
            stages=stages,
            purged=0 if living is None else self._chain.purged(key, living),
            log_rows=await self._log_rows(key, living, commit, made.incarnation),
        )
        state, extra = index.changes(key, before, written.state, now)
        slot = rows.put_slot(
            keys.session(key), state, written.values, written.meta, written.touches
        )
        actions = [slot, *_guarded(keys.session(key), written.actions, unless), *extra]
        if living is None:
            await self._registry.ensure(key)
            if known is not None and known.lapses:
                actions += _still_there(key, known, now)
        shown = living is None or self._chain.settled(key, living)
        try:
            if len(actions) == 1:
                await self._table.put(slot)
            else:
                await self._table.transact(actions)
        except ConditionFailed as failed:
            lost = failed.repeated and not commit.resend
            shown = self._meet(key, failed.row, state, memory, lost=lost)
        except TransactionRefused as refused:
            if not refused.reasons[0].failed:
                await self._refused(key, commit, made.incarnation, before, refused)
            lost = refused.repeated and not commit.resend
            shown = self._meet(key, refused.reasons[0].row, state, memory, lost=lost)
        self._chain.note(key, Known(state, made.meta, now))
        if shown:
            self._chain.note_settled(key, state.slot)
        if living is not None and state.staged:
            # Of rows that are not staged each is replaced by another itself.
            puts = [item for item, _ in commit.puts] if living.staged else []
            if replaced := [tomb_of(new, state.slot) for new in (*stages.values(), *puts)]:
                self._background.start(
                    partial(tombs.purge_replaced, self._table, key, state.incarnation, replaced)
                )
        for stage in commit.stages:
            self._stages.forget(key, made.incarnation, stage)
        lately = any(tomb.slot == state.slot for tomb in state.tombs)
        if lately and self._chain.settled(key, state):
            self._background.start(partial(self._purge_tombs, key, state))
        if before is not None and living is None and before.kind is Kind.COMMIT:
            ended = due.life(key, before, state)
            self._background.start(partial(purge.life, self._table, ended))
        return Committed(version=made.version, incarnation=made.incarnation, head=made, now=now)

    async def _head(self, key: SessionKey, known: Known | None, now: int) -> Head | None:
        """The session's head; ``None``: it is absent."""
        if known is None or not known.state.present(now):
            return None
        meta = await self._chain.meta(key, known)
        if meta is None:
            raise NotTheNewest(None)
        return known.state.head(meta)

    async def _check(
        self, key: SessionKey, living: State | None, head: Head | None, commit: Commit, now: int
    ) -> dict[bytes, Holds]:
        """Steps 3 to 5 of :meth:`perdure.backend.Backend.commit`.

        Returns on what condition the items are what was seen, by the sort keys of rows: a row
        may show a transaction later than its slot does.
        """
        wanted = [c.key for c in commit.conditions if c.key is not None]
        seen: dict[bytes, Seen] = {}
        shown = False
        if living is not None and wanted:
            shown = self._chain.settled(key, living)
            seen = await self._look(key, living, wanted)
            stages = sum(len(item.unless) - 1 for item in seen.values())
            if not shown and stages and stages + _count(commit) > MOST_ROWS:
                # More than a transaction has room for may be adopted and not show it yet.
                await asyncio.sleep(SETTLING_MS / 1000)
                shown = True
                seen = await self._look(key, living, wanted)
        try:
            check(head, commit, lambda item: seen[item].version)
        except Conflict as conflict:
            conflict.now = now
            if living is not None and wanted:
                # The rows were read after the state: they must be those that it speaks of.
                newest = await self._chain.fetch(key)
                if newest is None or newest.state.slot != living.slot:
                    raise NotTheNewest(newest) from None
            raise
        return {
            sort: holds
            for item in seen.values()
            for sort, holds in item.unless.items()
            if not shown or not sort.startswith(keys.STAGE)
        }

    async def _look(
        self, key: SessionKey, living: State, wanted: list[bytes]
    ) -> dict[bytes, Seen]:
        try:
            found = await self._reader.look(key, living, wanted)
        except Moved:
            raise NotTheNewest(None) from None
        return dict(zip(wanted, found, strict=True))

    async def _lighten(self, key: SessionKey, living: State) -> None:
        """Too many deletions are not carried on before they are done physically."""
        purged = self._chain.purged(key, living)
        left = [tomb for tomb in living.tombs if tomb.slot > purged]
        size = sum(len(tomb.start) + len(tomb.stop or b"") for tomb in left)
        if len(left) > MANY_TOMBS or size > LONG_TOMBS:
            if not self._chain.settled(key, living):
                if len(left) <= TOO_MANY_TOMBS and size <= TOO_LONG_TOMBS:
                    return
                await asyncio.sleep(SETTLING_MS / 1000)
            await self._purge_tombs(key, living)

    async def _purge_tombs(self, key: SessionKey, state: State) -> None:
        """Do deletions physically that are not carried on then. What does not show in all its
        rows yet would be missed, and come back: else the sweep does it, in some seconds."""
        await tombs.purge(self._table, key, state)
        self._chain.note_purged(key, state)

    async def _log_rows(
        self, key: SessionKey, living: State | None, commit: Commit, incarnation: bytes
    ) -> bool:
        """Whether rows of items may be under the log's prefix, but for what is put now."""
        log = log_of(living, commit)
        if log is None:
            return False
        begins = living is None or living.log is None
        if living is not None and living.log_rows and not begins:
            return True
        if begins and living is not None and not self._chain.settled(key, living):
            return True  # perhaps
        if commit.stages or (begins and living is not None and living.touched):
            return await self._reader.items.any(keys.session(key), incarnation, log)
        return False

    def _meet(
        self, key: SessionKey, row: Row | None, state: State, memory: Memory, *, lost: bool
    ) -> bool:
        """The slot of a write is taken: by this very write, if it has the id, the reply to a
        try before was ``lost``, and nobody sent it earlier; else raises ``NotTheNewest``.

        Returns false: what else the write changed may not show everywhere yet.
        """
        slot = None if row is None else slot_of(row)
        if slot is None:
            raise NotTheNewest(None) from None
        memory.note((slot.state,))  # however many follow on it: it is found then
        if lost and (slot.state.tip, slot.state.digest) == (state.tip, state.digest):
            return False
        # Of what is left of a dead life, later slots may have gone before earlier ones.
        raise NotTheNewest(None if slot.lapses else self._chain.met(key, slot)) from None

    async def _refused(
        self,
        key: SessionKey,
        commit: Commit,
        incarnation: bytes,
        before: State | None,
        refused: TransactionRefused,
    ) -> NoReturn:
        """The slot is free, and yet something else does not hold."""
        newest = await self._chain.fetch(key)
        if (newest and newest.state.slot) == (before and before.slot):
            for stage, reason in zip(commit.stages, refused.reasons[1:], strict=False):
                if reason.failed and not await self._stages.find(key, incarnation, stage):
                    raise StageMissing("a stage named by the commit does not exist (any more)")
        raise NotTheNewest(newest)

    async def _delete(
        self,
        key: SessionKey,
        id: bytes,
        expect: Expect | At,
        incarnation: bytes | None,
        memory: Memory,
        known: Known | None,
    ) -> bool:
        now = self._table.now()
        before = None if known is None else known.state
        found = await memory.find(before, now)
        if found is not None:
            if found.kind is not Kind.SEAL:
                raise CommitIdReused("this id was used by a commit")
            return True
        head = await self._head(key, known, now)
        if before is None or head is None:
            return False
        if incarnation is not None and head.incarnation != incarnation:
            return False
        check_expect(head, expect)
        seal = removal.sealed(before, id, now)
        try:
            await self._table.transact(removal.actions(key, before, seal))
        except TransactionRefused as refused:
            row, lost = refused.reasons[0].row, refused.repeated
            self._meet(key, row, seal, memory, lost=lost)
        self._chain.note(key, Known(seal, b"", now))
        ended = due.life(key, before, seal)
        self._background.start(partial(purge.life, self._table, ended))
        return True


def _guarded(
    partition: bytes, actions: list[Action], unless: dict[bytes, Holds]
) -> list[Action]:
    """The actions, and that these conditions hold. One transaction names no row twice."""
    left = dict(unless)
    guarded: list[Action] = []
    for action in actions:
        sort = (
            rows.required(action.row, SORT, bytes) if isinstance(action, Put) else action.sort
        )
        holds = left.pop(sort, None)
        if holds is not None and isinstance(action, Put):
            guarded.append(Put(action.row, holds.condition, holds.values))
        elif holds is not None and isinstance(action, Delete):
            guarded.append(Delete(partition, sort, holds.condition, holds.values))
        else:  # what adopts a stage has a condition that says as much
            guarded.append(action)
    return [
        *guarded,
        *(
            Check(partition, sort, holds.condition, holds.values)
            for sort, holds in left.items()
        ),
    ]


def _count(commit: Commit) -> int:
    """How many rows a commit is about, at most."""
    return (
        len(commit.puts)
        + sum(len(append.values) for append in commit.appends)
        + len(commit.deletes)
        + len(commit.conditions)
        + len(commit.stages)
    )


def _replay(found: State, commit: Commit, head: Head | None, now: int) -> Committed:
    if found.kind is Kind.SEAL:
        raise CommitIdReused("this id was used by a deletion")
    if found.digest != commit.digest:
        raise CommitIdReused("this commit id was used before for other content")
    return Committed(
        version=found.version,
        incarnation=found.incarnation,
        head=head,
        now=now,
        replayed=True,
    )


def _still_there(key: SessionKey, known: Known, now: int) -> list[Action]:
    """What keeps a creation from following on a slot that has lapsed meanwhile.

    Others would find no slot then, and count them from 1 again.
    """
    if known.lapses * 1000 - now >= 2 * FRESH_MS:
        return []
    place = keys.session(key), keys.slot(known.state.slot)
    return [Check(*place, condition="attribute_exists(x)")]
