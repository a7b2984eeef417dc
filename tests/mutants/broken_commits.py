"""Backends that commit wrongly."""

import asyncio
from collections.abc import Sequence

import msgspec

from perdure.errors import Conflict, StageMissing
from perdure.types import (
    Append,
    At,
    Commit,
    Committed,
    Condition,
    Expect,
    Item,
    Restored,
    Rows,
    SessionKey,
    append_key,
)

from perdure_memory.sessions import Session, Stage
from tests.backends.memory.durable import DurableMemory
from tests.mutants.catalogue import caught_by


def copied(session: Session) -> tuple[dict[bytes, Item], list[bytes]]:
    return dict(session.items), list(session.keys)


@caught_by("test_concurrent_appends_are_all_there_once_and_in_order")
class LosesConcurrentCommits(DurableMemory):
    """Reads the session, lets others have their turn, and writes back what it had read."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        if session is None or session.head is None:
            return await super().commit(key, commit)
        head, (items, keys) = session.head, copied(session)
        await asyncio.sleep(0)
        self._index.replace(key, session.head, head)
        session.head, session.items, session.keys = head, items, keys
        return await super().commit(key, commit)


@caught_by("test_compare_and_set_on_an_item_loses_no_increment")
class ChecksConditionsTooEarly(DurableMemory):
    """Looks at the conditions, lets others have their turn, and commits without them."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        snapshot = await self.read(key)
        session = self._sessions.get(key)
        if snapshot.head is None or session is None:
            return await super().commit(key, commit)
        for condition in commit.conditions:
            item = session.items.get(condition.key) if condition.key is not None else None
            if condition.key is None or (item.version if item else 0) != condition.version:
                return await super().commit(key, commit)
        await asyncio.sleep(0)
        return await super().commit(key, msgspec.structs.replace(commit, conditions=()))


@caught_by(
    "test_compare_and_set_on_the_version_loses_no_increment", "test_of_two_creators_one_wins"
)
class ChecksExpectationsTooEarly(DurableMemory):
    """Looks at what is expected, lets others have their turn, and commits regardless."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        head = (await self.read(key)).head
        holds = (commit.expect is Expect.ABSENT and head is None) or (
            head is not None and commit.expect == At(head.version, head.tip)
        )
        await asyncio.sleep(0)
        if holds:
            commit = msgspec.structs.replace(commit, expect=Expect.ANY)
        return await super().commit(key, commit)


@caught_by("test_at_requires_the_tip")
class IgnoresTheTip(DurableMemory):
    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        head = (await self.read(key)).head
        if isinstance(commit.expect, At) and head and head.version == commit.expect.version:
            commit = msgspec.structs.replace(commit, expect=At(head.version, head.tip))
        return await super().commit(key, commit)


@caught_by("test_a_holder_that_lost_its_lease_cannot_write")
class IgnoresFences(DurableMemory):
    """Keeps only those conditions that speak of what the commit itself writes."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        written = {item_key for item_key, _ in commit.puts} | {None}
        kept = tuple(c for c in commit.conditions if c.key in written)
        return await super().commit(key, msgspec.structs.replace(commit, conditions=kept))


@caught_by("test_a_removed_item_is_absent_to_conditions")
class RemembersRemovedItems(DurableMemory):
    """A condition on an item that was removed still sees its last version."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        removed: dict[bytes, int] = getattr(self, "removed", {})
        kept: list[Condition] = []
        for condition in commit.conditions:
            there = session is not None and condition.key in session.items
            if condition.key is not None and not there and condition.key in removed:
                if removed[condition.key] == condition.version:
                    continue
                raise Conflict("version differs", head=session.head if session else None)
            kept.append(condition)
        if session is not None:
            for target in commit.deletes:
                if isinstance(target, bytes) and target in session.items:
                    removed[target] = session.items[target].version
        self.removed = removed
        return await super().commit(
            key, msgspec.structs.replace(commit, conditions=tuple(kept))
        )


@caught_by("test_a_meta_condition_requires_the_version_of_meta")
class TakesMetaForTheHead(DurableMemory):
    """A condition on ``meta`` is compared with the version of the session."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        head = (await self.read(key)).head
        if head is not None:
            conditions = tuple(
                Condition(None, head.meta_version if c.version == head.version else -1)
                if c.key is None
                else c
                for c in commit.conditions
            )
            commit = msgspec.structs.replace(commit, conditions=conditions)
        return await super().commit(key, commit)


@caught_by(
    "test_absent_requires_none",
    "test_at_requires_the_version",
    "test_an_item_condition_requires_its_version",
)
class AppliesPutsOnConflict(DurableMemory):
    """Writes the puts before it finds that the commit must be refused."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        try:
            return await super().commit(key, commit)
        except Conflict:
            session = self._sessions.get(key)
            if session is not None and session.head is not None:
                for item_key, value in commit.puts:
                    session.put(item_key, value, session.head.version)
            raise


@caught_by(
    "test_a_conflicting_commit_leaves_no_gap_in_the_versions", "test_absent_requires_none"
)
class CountsConflicts(DurableMemory):
    """A refused commit uses up a version."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        try:
            return await super().commit(key, commit)
        except Conflict:
            session = self._sessions.get(key)
            if session is not None and session.head is not None:
                head = session.head
                session.head = msgspec.structs.replace(head, version=head.version + 1)
            raise


@caught_by("test_a_conflict_returns_what_was_asked_for")
class ConflictsShowNothing(DurableMemory):
    """A conflict does not say what the session is like now."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        try:
            return await super().commit(key, commit)
        except Conflict as error:
            error.rows = tuple(Rows() for _ in commit.returning)
            raise


@caught_by("test_a_commit_that_writes_nothing_is_a_commit")
class SkipsEmptyCommits(DurableMemory):
    """A commit that writes nothing makes no version."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        snapshot = await self.read(key)
        head = snapshot.head
        writes = commit.puts or commit.appends or commit.deletes or commit.stages
        changes = (commit.meta, commit.labels, commit.expires_at, commit.expires_in)
        if head is None or writes or any(c is not None for c in changes) or commit.incarnation:
            return await super().commit(key, commit)
        return Committed(
            version=head.version, incarnation=head.incarnation, head=head, now=snapshot.now
        )


@caught_by("test_deletes_come_before_puts_and_appends")
class DeletesLast(DurableMemory):
    """A commit's deletes take what its puts and appends have written."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        session = self._sessions[key]
        if not made.replayed:
            for target in commit.deletes:
                if isinstance(target, bytes):
                    session.remove(target, target + b"\0")
                else:
                    session.remove(target.start, target.stop)
        return made


@caught_by("test_last_delete_is_the_last_commit_with_deletes")
class ForgetsLastDelete(DurableMemory):
    """A commit without deletes sets ``last_delete`` back."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        session = self._sessions[key]
        if session.head is None or commit.deletes or made.replayed:
            return made
        session.head = msgspec.structs.replace(session.head, last_delete=0)
        return msgspec.structs.replace(made, head=session.head)


@caught_by("test_last_delete_is_the_last_commit_with_deletes")
class CountsOnlyDeletesThatMatch(DurableMemory):
    """``last_delete`` stays where nothing matched."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        before = session.head if session is not None else None
        size = len(session.items) if session is not None else 0
        made = await super().commit(key, commit)
        session = self._sessions[key]
        written = len(commit.puts) + sum(len(a.values) for a in commit.appends)
        if before is None or session.head is None or len(session.items) != size + written:
            return made
        session.head = msgspec.structs.replace(session.head, last_delete=before.last_delete)
        return msgspec.structs.replace(made, head=session.head)


@caught_by("test_ordinals_count_per_prefix")
class OrdinalsRunOn(DurableMemory):
    """Counts the values of a commit over all of its prefixes."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        head = (await self.read(key)).head
        version = head.version + 1 if head is not None else 1
        puts = list(commit.puts)
        ordinal = 0
        for append in commit.appends:
            for value in append.values:
                puts.append((append_key(append.prefix, version, ordinal), value))
                ordinal += 1
        changed = msgspec.structs.replace(commit, appends=(), puts=tuple(puts))
        return await super().commit(key, changed)


@caught_by("test_appends_keep_their_order_past_255_versions_and_ordinals")
class OrdinalsOfOneByte(DurableMemory):
    """Keeps the ordinal in one byte, so that the 257th value takes the place of the first."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        appends = tuple(
            Append(a.prefix, (*a.values[256:], *a.values[len(a.values) - 256 : 256]))
            if len(a.values) > 256
            else a
            for a in commit.appends
        )
        return await super().commit(key, msgspec.structs.replace(commit, appends=appends))


@caught_by("test_items_carry_the_version_that_wrote_them")
class KeepsTheFirstStamp(DurableMemory):
    """An item that is written again keeps the version that wrote it first."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        stamps = {k: i.version for k, i in session.items.items()} if session else {}
        made = await super().commit(key, commit)
        session = self._sessions[key]
        for item_key, value in commit.puts:
            if item_key in stamps and not made.replayed:
                session.items[item_key] = Item(item_key, value, stamps[item_key])
        return made


@caught_by("test_returning_sees_the_commit_it_came_with")
class ReturnsTheStateBefore(DurableMemory):
    """Evaluates ``returning`` ahead of the commit."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        before = await self.read(key, *commit.returning)
        made = await super().commit(key, commit)
        return made if made.replayed else msgspec.structs.replace(made, rows=before.rows)


@caught_by("test_a_cancelled_commit_is_whole_or_not_done")
class HalfDoneWhenCancelled(DurableMemory):
    """Writes the puts, lets others have their turn, and then does the rest."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        simple = commit.expect is Expect.ANY and not commit.conditions
        if simple and session is not None and session.head is not None:
            for item_key, value in commit.puts:
                session.put(item_key, value, session.head.version + 1)
        await asyncio.sleep(0)
        return await super().commit(key, commit)


@caught_by("test_staged_parts_are_invisible_and_make_no_version")
class ShowsStagedParts(DurableMemory):
    """Writes staged parts where readers see them."""

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        await super().stage(key, incarnation, stage, puts)
        session = self._sessions.get(key)
        if session is not None and session.head is not None:
            for item_key, value in puts:
                session.put(item_key, value, session.head.version)


@caught_by("test_a_stage_is_adopted_once")
class AdoptsStagesAgain(DurableMemory):
    """A stage stays after a commit has adopted it."""

    def _take_stages(
        self, key: SessionKey, incarnation: bytes, ids: tuple[bytes, ...]
    ) -> Sequence[Stage]:
        kept = dict(self._stages)
        taken = super()._take_stages(key, incarnation, ids)
        self._stages.update(kept)
        return taken


@caught_by("test_a_stage_of_another_incarnation_is_not_adopted")
class AdoptsStagesOfOthers(DurableMemory):
    """Looks for a stage without regard to the incarnation that it was made for."""

    def _take_stages(
        self, key: SessionKey, incarnation: bytes, ids: tuple[bytes, ...]
    ) -> Sequence[Stage]:
        for name in list(self._stages):
            if name[0] == key:
                self._stages[key, incarnation, name[2]] = self._stages.pop(name)
        return super()._take_stages(key, incarnation, ids)


@caught_by("test_a_missing_stage_applies_nothing", "test_a_missing_stage_creates_no_session")
class SkipsMissingStages(DurableMemory):
    """A commit that names a stage which is not there is applied without it."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        try:
            return await super().commit(key, commit)
        except StageMissing:
            names = {name[2] for name in self._stages if name[0] == key}
            kept = tuple(stage for stage in commit.stages if stage in names)
            return await super().commit(key, msgspec.structs.replace(commit, stages=kept))


@caught_by("test_parts_accumulate_and_the_first_value_stays")
class RestagingReplaces(DurableMemory):
    """A part that is staged again takes the new value."""

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        await super().stage(key, incarnation, stage, puts)
        self._stages[key, incarnation, stage].parts.update(puts)


@caught_by(
    "test_a_restored_session_goes_on_from_its_version",
    "test_an_older_copy_is_replaced_in_one_commit",
    "test_appends_and_stages_of_a_restoring_commit_carry_its_version",
)
class RestoresAtTheNextVersion(DurableMemory):
    """Takes the times of what is restored, and not its version."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if commit.restored is not None:
            head = (await self.read(key)).head
            version = head.version + 1 if head else 1
            restored = msgspec.structs.replace(commit.restored, version=version)
            commit = msgspec.structs.replace(commit, restored=restored)
        return await super().commit(key, commit)


@caught_by("test_restored_sessions_are_listed_by_their_own_times")
class RestoresNow(DurableMemory):
    """Takes the version of what is restored, and not its times."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if commit.restored is not None:
            now = self._clock()
            restored = Restored(commit.restored.version, now, now)
            commit = msgspec.structs.replace(commit, restored=restored)
        return await super().commit(key, commit)


@caught_by(
    "test_what_was_committed_before_it_was_restored_is_not_taken_for_lost",
)
class TakesWhatWasRestoredForAllThereWas(DurableMemory):
    """Says of commits made elsewhere, before it got the session, that there were none."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        if commit.restored is not None:
            self._sessions[key].lives[-1].forgot = False
        return made


@caught_by(
    "test_a_put_replaces_a_part_adopted_with_it", "test_adoption_comes_between_deletes_and_puts"
)
class AdoptsLast(DurableMemory):
    """Lets a staged part stand where the same commit puts another value."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        staged = {
            item_key
            for (whose, _, stage), parts in self._stages.items()
            if whose == key and stage in commit.stages
            for item_key in parts.parts
        }
        puts = tuple(put for put in commit.puts if put[0] not in staged)
        return await super().commit(key, msgspec.structs.replace(commit, puts=puts))
