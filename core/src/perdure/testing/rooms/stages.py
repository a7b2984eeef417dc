"""Parts staged ahead of a commit: invisible until it names them, and whole from then on."""

import pytest

from perdure.backend import STAGE_MS, Backend
from perdure.errors import Conflict, Outcome, StageMissing
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Room, let_pass
from perdure.testing.shorthand import (
    new_commit,
    new_id,
    read_head,
    read_items,
    read_values,
    resent,
    write,
)
from perdure.types import Append, Condition, Expect, Item, KeyRange, SessionKey, append_key

PARTS = ((b"part/1", b"one"), (b"part/2", b"two"))


class Stages(Room):
    async def test_staged_parts_are_invisible_and_make_no_version(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"a", b"1"),))
        await backend.stage(key, made.incarnation, new_id(), PARTS)
        assert (await backend.read(key)).head == made.head
        assert await read_values(backend, key) == {b"a": b"1"}

    async def test_staging_creates_no_session(self, backend: Backend, key: SessionKey) -> None:
        await backend.stage(key, new_id(), new_id(), PARTS)
        assert (await backend.read(key)).head is None
        assert (await write(backend, key, expect=Expect.ABSENT)).version == 1
        assert await read_values(backend, key) == {}

    async def test_a_commit_adopts_the_stages_it_names(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"a", b"1"),))
        first, second, unnamed = new_id(), new_id(), new_id()
        await backend.stage(key, made.incarnation, first, PARTS)
        await backend.stage(key, made.incarnation, second, ((b"other", b"3"),))
        await backend.stage(key, made.incarnation, unnamed, ((b"unnamed", b"4"),))
        await write(backend, key, stages=(first, second), puts=((b"index", b"5"),))
        assert await read_items(backend, key) == [
            Item(b"a", b"1", 1),
            Item(b"index", b"5", 2),
            Item(b"other", b"3", 2),
            Item(b"part/1", b"one", 2),
            Item(b"part/2", b"two", 2),
        ]

    async def test_adopted_parts_are_stamped_by_the_commit_not_the_staging(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        await write(backend, key)
        await write(backend, key)
        await write(backend, key, stages=(stage,))
        assert {item.version for item in await read_items(backend, key)} == {4}

    async def test_stages_of_a_session_still_to_be_made(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(expect=Expect.ABSENT, stages=(new_id(),), puts=((b"a", b"1"),))
        await backend.stage(key, commit.new_incarnation, commit.stages[0], PARTS)
        made = await backend.commit(key, commit)
        assert (made.version, made.incarnation) == (1, commit.new_incarnation)
        assert await read_values(backend, key) == {b"a": b"1", **dict(PARTS)}

    async def test_parts_accumulate_and_the_first_value_stays(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS[:1])
        await backend.stage(key, made.incarnation, stage, PARTS[1:])
        await backend.stage(
            key, made.incarnation, stage, ((b"part/1", b"another"), (b"part/3", b"three"))
        )
        await write(backend, key, stages=(stage,))
        found = await read_values(backend, key)
        assert found == {**dict(PARTS), b"part/3": b"three"}

    async def test_a_missing_stage_applies_nothing(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"a", b"1"),))
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        with pytest.raises(StageMissing) as caught:
            await write(
                backend, key, stages=(stage, new_id()), puts=((b"a", b"2"),), deletes=(b"a",)
            )
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert (await backend.read(key)).head == made.head
        assert await read_values(backend, key) == {b"a": b"1"}
        await write(backend, key, stages=(stage,))
        assert await read_values(backend, key) == {b"a": b"1", **dict(PARTS)}

    async def test_a_missing_stage_creates_no_session(
        self, backend: Backend, key: SessionKey
    ) -> None:
        with pytest.raises(StageMissing):
            await write(backend, key, stages=(new_id(),), puts=((b"a", b"1"),))
        assert (await backend.read(key)).head is None

    async def test_a_refused_commit_leaves_its_stages_waiting(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        with pytest.raises(Conflict):
            await write(backend, key, expect=Expect.ABSENT, stages=(stage,))
        assert await read_values(backend, key) == {}
        await write(backend, key, stages=(stage,))
        assert await read_values(backend, key) == dict(PARTS)

    async def test_a_stage_is_adopted_once(self, backend: Backend, key: SessionKey) -> None:
        made = await write(backend, key)
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        commit = new_commit(stages=(stage,))
        await backend.commit(key, commit)
        await write(backend, key, deletes=(KeyRange(b""),))
        with pytest.raises(StageMissing):
            await write(backend, key, stages=(stage,))
        assert (await backend.commit(key, resent(commit))).replayed
        assert await read_values(backend, key) == {}

    async def test_a_stage_of_another_incarnation_is_not_adopted(
        self, backend: Backend, key: SessionKey
    ) -> None:
        stage = new_id()
        await backend.stage(key, new_id(), stage, PARTS)
        with pytest.raises(StageMissing):
            await write(backend, key, stages=(stage,))
        made = await write(backend, key)
        with pytest.raises(StageMissing):
            await write(backend, key, stages=(stage,))
        # The incarnation a commit proposes counts only if the commit creates.
        proposed = new_commit(stages=(stage,))
        await backend.stage(key, proposed.new_incarnation, stage, PARTS)
        with pytest.raises(StageMissing):
            await backend.commit(key, proposed)
        assert (await backend.read(key)).head == made.head

    async def test_a_stage_of_another_session_is_not_adopted(
        self, backend: Backend, key: SessionKey
    ) -> None:
        other = SessionKey(key.tenant, key.kind, "other")
        incarnation, stage = new_id(), new_id()
        await write(backend, key, new_incarnation=incarnation)
        await write(backend, other, new_incarnation=incarnation)
        await backend.stage(other, incarnation, stage, PARTS)
        with pytest.raises(StageMissing):
            await write(backend, key, stages=(stage,))
        await write(backend, other, stages=(stage,))
        assert await read_values(backend, other) == dict(PARTS)

    async def test_parts_for_a_successor_wait_though_its_predecessor_expires(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        early, late = new_id(), new_id()
        commit = new_commit(expect=Expect.ABSENT, stages=(early, late))
        await write(backend, key, puts=((b"a", b"1"),), expires_in=200)
        await backend.stage(key, commit.new_incarnation, early, PARTS[:1])
        await let_pass(harness, 200 + backend.capabilities.clock_error)
        await backend.stage(key, commit.new_incarnation, late, PARTS[1:])
        await backend.commit(key, commit)
        assert await read_values(backend, key) == dict(PARTS)

    async def test_parts_for_a_successor_wait_though_its_predecessor_is_deleted(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(expect=Expect.ABSENT, stages=(new_id(),))
        await write(backend, key, puts=((b"a", b"1"),))
        await backend.stage(key, commit.new_incarnation, commit.stages[0], PARTS)
        await backend.delete(key, id=new_id())
        await backend.commit(key, commit)
        assert await read_values(backend, key) == dict(PARTS)

    async def test_adoption_comes_between_deletes_and_puts(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"part/1", b"old"), (b"part/9", b"old")))
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        await write(
            backend,
            key,
            deletes=(KeyRange(b"part/", b"part0"),),
            stages=(stage,),
            puts=((b"part/2", b"put"),),
            appends=(Append(b"log", (b"entry",)),),
        )
        assert await read_values(backend, key) == {
            append_key(b"log", 2, 0): b"entry",
            b"part/1": b"one",
            b"part/2": b"put",
        }

    @pytest.mark.parametrize("values", [(b"1", b"2"), (b"2", b"1"), (b"1", b"1")])
    async def test_a_put_replaces_a_part_adopted_with_it(
        self, backend: Backend, key: SessionKey, values: tuple[bytes, bytes]
    ) -> None:
        staged, put = values
        incarnation = new_id()
        for version, expect in ((1, Expect.ABSENT), (2, Expect.PRESENT)):
            stage = new_id()
            await backend.stage(key, incarnation, stage, ((b"a", staged), (b"b", staged)))
            await write(
                backend,
                key,
                expect=expect,
                new_incarnation=incarnation,
                stages=(stage,),
                puts=((b"a", put),),
            )
            assert await read_items(backend, key) == [
                Item(b"a", put, version),
                Item(b"b", staged, version),
            ]

    async def test_conditions_do_not_see_what_is_staged(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"part/2", b"old"),))
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        for wrong in (
            Condition(b"part/1", 1),
            Condition(b"part/1", 2),
            Condition(b"part/2", 2),
        ):
            with pytest.raises(Conflict):
                await write(backend, key, stages=(stage,), conditions=(wrong,))
        before = (Condition(b"part/1", 0), Condition(b"part/2", 1))
        await write(backend, key, stages=(stage,), conditions=before)
        assert await read_items(backend, key) == [Item(k, v, 2) for k, v in PARTS]

    async def test_parts_as_many_and_as_long_as_the_backend_declares(
        self, backend: Backend, key: SessionKey
    ) -> None:
        limits = backend.capabilities
        made = await write(backend, key)
        stage = new_id()
        size = min(limits.max_item_bytes, limits.max_commit_bytes - 600, 4 << 20)
        long = new_id() * (size // 16) + b"x" * (size % 16)
        count = min(limits.max_commit_items, 2_000)
        many = tuple((b"many/%04d" % n, b"%d" % n) for n in range(count))
        empty = ((b"empty", b""),)
        for parts in (((b"long", long),), many, empty):
            await backend.stage(key, made.incarnation, stage, parts)
        await write(backend, key, stages=(stage,))
        found = await read_values(backend, key)
        assert found.pop(b"long") == long
        assert found == {**dict(many), **dict(empty)}

    async def test_adoption_replaces_older_items(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"part/1", b"old"),))
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        await write(backend, key, stages=(stage,))
        assert await read_items(backend, key) == [Item(k, v, 2) for k, v in PARTS]

    async def test_stages_wait_for_their_time_and_are_swept_after_it(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        first, second = new_id(), new_id()
        await backend.stage(key, made.incarnation, first, PARTS)
        await backend.stage(key, made.incarnation, second, ((b"b", b"2"),))
        await let_pass(harness, STAGE_MS - 1000)
        while await backend.sweep():
            pass
        await write(backend, key, stages=(first,))
        assert await read_values(backend, key) == dict(PARTS)
        await let_pass(harness, 7 * STAGE_MS)
        while await backend.sweep():
            pass
        with pytest.raises(StageMissing):
            await write(backend, key, stages=(second,))
        assert await harness.raw_items(key) in (None, dict(PARTS))
        assert (await read_head(backend, key)).version == 2

    async def test_adopted_parts_are_not_swept(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, PARTS)
        await write(backend, key, stages=(stage,))
        await let_pass(harness, 8 * STAGE_MS)
        while await backend.sweep():
            pass
        assert await read_values(backend, key) == dict(PARTS)
