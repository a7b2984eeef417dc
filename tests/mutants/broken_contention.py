"""Backends that judge conditions, ranges and stages wrongly, mostly where others write too."""

import asyncio

import msgspec

from perdure.errors import Conflict
from perdure.testing.shorthand import Puts
from perdure.types import Commit, Committed, KeyRange, SessionKey

from tests.backends.memory.durable import DurableMemory
from tests.mutants.catalogue import caught_by


@caught_by("test_who_loses_the_lease_meanwhile_writes_nothing")
class ChecksFencesTooEarly(DurableMemory):
    """Looks at items that a commit requires and does not write, and lets others have their turn
    before it commits: as a database does that locks only what it writes."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        written = {item_key for item_key, _ in commit.puts}
        fences = [each for each in commit.conditions if each.key not in (None, *written)]
        if session is None or not fences:
            return await super().commit(key, commit)
        for fence in fences:
            item = session.items.get(fence.key or b"")
            if (item.version if item else 0) != fence.version:
                return await super().commit(key, commit)
        await asyncio.sleep(0)
        kept = tuple(each for each in commit.conditions if each not in fences)
        return await super().commit(key, msgspec.structs.replace(commit, conditions=kept))


@caught_by("test_a_range_deleted_among_appends_takes_all_before_it_and_none_after")
class DeletesWhatItHadSeen(DurableMemory):
    """Looks which items are in a range, lets others have their turn, and deletes those."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        if session is None or not any(isinstance(each, KeyRange) for each in commit.deletes):
            return await super().commit(key, commit)
        seen: list[bytes | KeyRange] = []
        for each in commit.deletes:
            if isinstance(each, KeyRange):
                stop = each.stop
                seen += [k for k in session.keys if each.start <= k and (not stop or k < stop)]
            else:
                seen.append(each)
        await asyncio.sleep(0)
        deletes = tuple(seen) or (KeyRange(b"", b""),)
        return await super().commit(key, msgspec.structs.replace(commit, deletes=deletes))


@caught_by("test_of_those_that_adopt_a_stage_at_once_one_does")
class AdoptsForAllWhoAsk(DurableMemory):
    """Reads the parts of a stage, lets others have their turn, and adopts what it has read."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        read = {
            name: parts
            for name, parts in self._stages.items()
            if name[0] == key and name[2] in commit.stages
        }
        await asyncio.sleep(0)
        self._stages.update(read)
        return await super().commit(key, commit)


@caught_by("test_conditions_do_not_see_what_is_staged")
class ConditionsSeeStages(DurableMemory):
    """Takes a staged part for an item that is there."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        staged = {
            item_key
            for (whose, _, stage), parts in self._stages.items()
            if whose == key and stage in commit.stages
            for item_key in parts.parts
        }
        if any(not each.version and each.key in staged for each in commit.conditions):
            raise Conflict("it is staged", head=(await self.read(key)).head)
        return await super().commit(key, commit)


@caught_by("test_an_appended_item_is_an_item_like_any_other")
class AppendedItemsAreUnconditional(DurableMemory):
    """Knows versions only of what was put under a key of the writer's."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        kept = tuple(c for c in commit.conditions if not (c.key or b"").startswith(b"log"))
        return await super().commit(key, msgspec.structs.replace(commit, conditions=kept))


@caught_by("test_an_appended_item_is_an_item_like_any_other")
class AppendedItemsStayAsTheyAre(DurableMemory):
    """Does not write again what was appended."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        deletes = tuple(
            each
            for each in commit.deletes
            if isinstance(each, KeyRange) or not each.startswith(b"log")
        )
        puts = tuple(each for each in commit.puts if not each[0].startswith(b"log"))
        changed = msgspec.structs.replace(commit, deletes=deletes, puts=puts)
        return await super().commit(key, changed)


@caught_by("test_as_many_conditions_as_the_backend_declares_items")
class JudgesAHundredConditions(DurableMemory):
    """Leaves conditions out that do not fit into one of its statements."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        judged = msgspec.structs.replace(commit, conditions=commit.conditions[:100])
        return await super().commit(key, judged)


class Restaging(DurableMemory):
    """Does something to parts before it stages them."""

    def restaged(
        self, puts: tuple[tuple[bytes, bytes], ...]
    ) -> tuple[tuple[bytes, bytes], ...]:
        return puts

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: Puts,
    ) -> None:
        await super().stage(key, incarnation, stage, self.restaged(puts))


@caught_by("test_parts_as_many_and_as_long_as_the_backend_declares")
class CutsLongParts(Restaging):
    """Stages in a column that takes a MiB."""

    def restaged(
        self, puts: tuple[tuple[bytes, bytes], ...]
    ) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((name, value[: 1 << 20]) for name, value in puts)


@caught_by("test_parts_as_many_and_as_long_as_the_backend_declares")
class StagesAHundredParts(Restaging):
    """Stages what fits into one of its batches."""

    def restaged(
        self, puts: tuple[tuple[bytes, bytes], ...]
    ) -> tuple[tuple[bytes, bytes], ...]:
        return puts[:100]


@caught_by("test_parts_as_many_and_as_long_as_the_backend_declares")
class SkipsEmptyParts(Restaging):
    """Takes an empty part for none."""

    def restaged(
        self, puts: tuple[tuple[bytes, bytes], ...]
    ) -> tuple[tuple[bytes, bytes], ...]:
        return tuple(put for put in puts if put[1])
