"""A session that was elsewhere before goes on where it was."""

import pytest

from perdure.backend import Backend
from perdure.errors import Conflict, OutcomeUnknown
from perdure.testing.rooms.room import Room
from perdure.testing.shorthand import (
    at,
    list_ids,
    new_commit,
    new_id,
    read_head,
    read_items,
    resent,
    write,
)
from perdure.types import (
    Append,
    Condition,
    Expect,
    Item,
    KeyRange,
    Order,
    Restored,
    Scan,
    SessionKey,
    append_key,
)

BEFORE = Restored(500, created_at=1_600_000_000_000, updated_at=1_700_000_000_000)


class Restoring(Room):
    async def test_a_restored_session_begins_at_its_version_with_its_times(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(
            expect=Expect.ABSENT, restored=BEFORE, puts=((b"a", b"1"),), meta=b"m"
        )
        made = await backend.commit(key, commit)
        head = await read_head(backend, key)
        assert made.head == head
        assert (made.version, head.version, head.meta_version) == (500, 500, 500)
        assert (head.incarnation, head.tip) == (commit.new_incarnation, commit.id)
        assert (head.created_at, head.updated_at) == (BEFORE.created_at, BEFORE.updated_at)
        assert await read_items(backend, key) == [Item(b"a", b"1", 500)]

    async def test_a_restored_session_goes_on_from_its_version(
        self, backend: Backend, key: SessionKey
    ) -> None:
        old = append_key(b"log", 499, 0)
        await write(
            backend, key, expect=Expect.ABSENT, restored=BEFORE, puts=((old, b"before"),)
        )
        made = await write(
            backend,
            key,
            conditions=(Condition(old, 500),),
            appends=(Append(b"log", (b"after",)),),
        )
        assert made.version == 501
        head = await read_head(backend, key)
        assert (head.created_at, head.updated_at) == (BEFORE.created_at, made.now)
        assert await read_items(backend, key) == [
            Item(old, b"before", 500),
            Item(append_key(b"log", 501, 0), b"after", 501),
        ]
        (new,) = (await backend.read(key, Scan(since=500))).rows
        assert [item.value for item in new.items] == [b"after"]

    async def test_appends_and_stages_of_a_restoring_commit_carry_its_version(
        self, backend: Backend, key: SessionKey
    ) -> None:
        incarnation, stage = new_id(), new_id()
        await backend.stage(key, incarnation, stage, ((b"a", b"staged"),))
        await write(
            backend,
            key,
            expect=Expect.ABSENT,
            new_incarnation=incarnation,
            restored=BEFORE,
            stages=(stage,),
            deletes=(b"b",),
            appends=(Append(b"log", (b"appended",)),),
        )
        assert await read_items(backend, key) == [
            Item(b"a", b"staged", 500),
            Item(append_key(b"log", 500, 0), b"appended", 500),
        ]
        assert (await read_head(backend, key)).last_delete == 500

    async def test_an_older_copy_is_replaced_in_one_commit(
        self, backend: Backend, key: SessionKey
    ) -> None:
        puts = ((b"a", b"1"), (b"b", b"1"))
        first = await write(backend, key, expect=Expect.ABSENT, restored=BEFORE, puts=puts)
        head = first.head
        assert head is not None
        later = Restored(600, BEFORE.created_at, BEFORE.updated_at + 1)
        commit = new_commit(
            expect=at(head),
            incarnation=first.incarnation,
            base=500,
            restored=later,
            deletes=(KeyRange(b""),),
            puts=((b"b", b"2"), (b"c", b"2")),
        )
        made = await backend.commit(key, commit)
        head = await read_head(backend, key)
        assert made.head == head
        assert (head.version, head.incarnation) == (600, first.incarnation)
        assert (head.last_delete, head.updated_at) == (600, later.updated_at)
        assert await read_items(backend, key) == [Item(b"b", b"2", 600), Item(b"c", b"2", 600)]
        assert (await backend.commit(key, resent(commit))).replayed
        assert (await write(backend, key)).version == 601

    async def test_what_was_committed_before_it_was_restored_is_not_taken_for_lost(
        self, backend: Backend, key: SessionKey
    ) -> None:
        """The backend never saw those commits: it cannot say that they were not applied."""
        first = await write(backend, key, expect=Expect.ABSENT, restored=BEFORE)
        elsewhere = new_commit(incarnation=first.incarnation, base=490, puts=((b"a", b"1"),))
        with pytest.raises(OutcomeUnknown) as caught:
            await backend.commit(key, resent(elsewhere))
        assert caught.value.forgotten
        assert (await read_head(backend, key)).version == 500

    async def test_what_was_committed_elsewhere_between_two_copies_is_not_taken_for_lost(
        self, backend: Backend, key: SessionKey
    ) -> None:
        first = await write(backend, key, expect=Expect.ABSENT, restored=BEFORE)
        assert first.head is not None
        again = new_commit(
            expect=at(first.head),
            incarnation=first.incarnation,
            base=500,
            restored=Restored(600, BEFORE.created_at, BEFORE.updated_at + 1),
        )
        await backend.commit(key, again)
        elsewhere = new_commit(incarnation=first.incarnation, base=550, puts=((b"a", b"1"),))
        with pytest.raises(OutcomeUnknown) as caught:
            await backend.commit(key, resent(elsewhere))
        assert caught.value.forgotten
        assert (await backend.commit(key, resent(again))).replayed

    async def test_restoring_over_a_session_conflicts(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"),))
        with pytest.raises(Conflict):
            await write(backend, key, expect=Expect.ABSENT, restored=BEFORE)
        assert (await read_head(backend, key)).version == 1

    async def test_a_restoring_commit_sent_again_is_a_replay(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(expect=Expect.ABSENT, restored=BEFORE, puts=((b"a", b"1"),))
        await backend.commit(key, commit)
        again = await backend.commit(key, resent(commit))
        assert (again.version, again.replayed) == (500, True)
        later = await write(backend, key)
        again = await backend.commit(key, resent(commit))
        assert (again.version, again.replayed, again.head) == (500, True, later.head)

    async def test_a_key_deleted_may_be_restored(
        self, backend: Backend, key: SessionKey
    ) -> None:
        first = await write(backend, key, puts=((b"a", b"1"),))
        assert await backend.delete(key, id=new_id())
        await write(
            backend,
            key,
            expect=Expect.ABSENT,
            restored=BEFORE,
            new_incarnation=first.incarnation,
            puts=((b"b", b"2"),),
        )
        assert [item.key for item in await read_items(backend, key)] == [b"b"]
        assert (await write(backend, key, incarnation=first.incarnation)).version == 501

    async def test_restored_sessions_are_listed_by_their_own_times(
        self, backend: Backend, key: SessionKey
    ) -> None:
        minute = 60_000
        times = {"middle": 5 * minute, "oldest": 2 * minute, "newest": 9 * minute}
        for id, passed in times.items():
            await write(
                backend,
                SessionKey(key.tenant, key.kind, id),
                expect=Expect.ABSENT,
                restored=Restored(7, BEFORE.created_at, BEFORE.created_at + passed),
                labels=("moved",),
            )
        for label in (None, "moved"):
            found = await list_ids(backend, key, order=Order.RECENCY, label=label)
            assert found == ["newest", "middle", "oldest"]
