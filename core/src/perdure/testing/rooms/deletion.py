"""A deleted session is gone at once, stays gone, and does not take its successor along."""

import pytest

from perdure.backend import TOMBSTONE_MS, Backend
from perdure.errors import CommitIdReused, Conflict, SessionDeleted
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Connect, Room, let_pass
from perdure.testing.shorthand import (
    at,
    list_ids,
    new_commit,
    new_id,
    read_head,
    read_items,
    read_values,
    resent,
    write,
)
from perdure.types import Append, At, Condition, Expect, Get, Item, Scan, SessionKey


class Deletion(Room):
    async def test_a_deleted_session_is_absent_at_once(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(
            backend, key, puts=((b"a", b"1"),), appends=(Append(b"log", (b"x",)),), meta=b"m"
        )
        assert await backend.delete(key, id=new_id())
        snapshot = await backend.read(key, Get(b"a"), Scan())
        assert snapshot.head is None
        assert all(not rows.items and not rows.more for rows in snapshot.rows)
        assert await list_ids(backend, key) == []

    async def test_deleting_what_is_absent_is_false(
        self, backend: Backend, key: SessionKey
    ) -> None:
        assert not await backend.delete(key, id=new_id())
        assert not await backend.delete(key, id=new_id(), expect=Expect.ANY)
        assert not await backend.delete(key, id=new_id(), incarnation=new_id())
        await write(backend, key)
        assert await backend.delete(key, id=new_id())
        assert not await backend.delete(key, id=new_id())

    async def test_expecting_absence_makes_no_sense(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        with pytest.raises(ValueError):  # noqa: PT011 - the contract names no subclass
            await backend.delete(key, id=new_id(), expect=Expect.ABSENT)
        assert (await read_head(backend, key)).version == 1

    async def test_only_the_named_incarnation_is_deleted(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        assert not await backend.delete(key, id=new_id(), incarnation=new_id())
        assert (await read_head(backend, key)).incarnation == made.incarnation
        assert await backend.delete(key, id=new_id(), incarnation=made.incarnation)
        assert (await backend.read(key)).head is None

    async def test_only_the_expected_version_is_deleted(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        await write(backend, key)
        head = await read_head(backend, key)
        for expect in (At(1, head.tip), At(3, head.tip), At(2, new_id())):
            with pytest.raises(Conflict) as caught:
                await backend.delete(key, id=new_id(), expect=expect)
            assert caught.value.head == head
        assert await read_head(backend, key) == head
        assert await backend.delete(key, id=new_id(), expect=at(head))

    async def test_a_session_made_again_begins_anew(
        self, backend: Backend, key: SessionKey
    ) -> None:
        first = await write(
            backend, key, puts=((b"a", b"1"),), deletes=(b"x",), meta=b"m", labels=("l",)
        )
        await backend.delete(key, id=new_id())
        commit = new_commit(puts=((b"b", b"2"),))
        second = await backend.commit(key, commit)
        assert (second.version, second.incarnation) == (1, commit.new_incarnation)
        assert second.incarnation != first.incarnation
        head = await read_head(backend, key)
        assert (head.meta, head.meta_version, head.labels) == (b"", 0, ())
        assert (head.last_delete, head.expires_at) == (0, None)
        assert await read_items(backend, key) == [Item(b"b", b"2", 1)]

    async def test_conditions_do_not_see_the_predecessor(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"),), meta=b"m")
        await backend.delete(key, id=new_id())
        for condition in (Condition(b"a", 1), Condition(None, 1)):
            with pytest.raises(Conflict):
                await write(backend, key, conditions=(condition,))
        assert (await backend.read(key)).head is None
        await write(backend, key, conditions=(Condition(b"a", 0), Condition(None, 0)))
        assert await read_values(backend, key) == {}

    async def test_a_late_write_does_not_resurrect(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        await backend.delete(key, id=new_id())
        for resend in (False, True):
            with pytest.raises(SessionDeleted) as caught:
                await write(
                    backend,
                    key,
                    incarnation=made.incarnation,
                    base=1,
                    resend=resend,
                    puts=((b"a", b"late"),),
                )
            assert caught.value.head is None
        assert (await backend.read(key)).head is None
        assert await list_ids(backend, key) == []

    async def test_a_late_write_does_not_reach_the_successor(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        await backend.delete(key, id=new_id())
        await write(backend, key, puts=((b"a", b"new"),))
        successor = await read_head(backend, key)
        with pytest.raises(SessionDeleted) as caught:
            await write(backend, key, incarnation=made.incarnation, puts=((b"a", b"late"),))
        assert caught.value.head == successor
        assert await read_values(backend, key) == {b"a": b"new"}

    async def test_a_repeated_delete_is_true_and_spares_the_successor(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        id = new_id()
        assert await backend.delete(key, id=id)
        assert await backend.delete(key, id=id)
        await write(backend, key, puts=((b"a", b"new"),))
        successor = await read_head(backend, key)
        assert await backend.delete(key, id=id)
        assert await backend.delete(key, id=id, incarnation=made.incarnation)
        assert await backend.delete(key, id=id, expect=At(1, made.incarnation))
        assert await read_head(backend, key) == successor
        assert await read_values(backend, key) == {b"a": b"new"}

    async def test_a_deletion_under_the_id_of_a_commit_is_refused(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"1"),))
        await backend.commit(key, commit)
        with pytest.raises(CommitIdReused):
            await backend.delete(key, id=commit.id)
        assert await read_values(backend, key) == {b"a": b"1"}

    async def test_two_deletions_with_ids_of_their_own_are_two(
        self, backend: Backend, key: SessionKey
    ) -> None:
        for _ in range(3):
            await write(backend, key)
            assert await backend.delete(key, id=new_id())
            assert (await backend.read(key)).head is None

    async def test_a_restart_does_not_undo_a_deletion(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.persistent:
            pytest.skip("nothing outlives this backend")
        backend = await connect()
        made = await write(backend, key, puts=((b"a", b"1"),))
        id = new_id()
        assert await backend.delete(key, id=id)
        await backend.aclose()
        backend = await connect()
        assert (await backend.read(key)).head is None
        with pytest.raises(SessionDeleted):
            await write(backend, key, incarnation=made.incarnation)
        await write(backend, key, puts=((b"b", b"2"),))
        assert await backend.delete(key, id=id), "the deletion's id is remembered"
        assert await read_values(backend, key) == {b"b": b"2"}

    async def test_a_tombstone_lasts_its_time_swept_or_not(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"1"),))
        made = await backend.commit(key, commit)
        id = new_id()
        await backend.delete(key, id=id)
        await let_pass(harness, TOMBSTONE_MS - 1000)
        while await backend.sweep():
            pass
        again = await backend.commit(key, resent(commit))
        assert again.replayed
        assert (await backend.read(key)).head is None
        with pytest.raises(SessionDeleted):
            await write(backend, key, incarnation=made.incarnation)
        with pytest.raises(CommitIdReused):
            await write(backend, key, id=id)
        await write(backend, key)
        assert await backend.delete(key, id=id)
        assert (await read_head(backend, key)).version == 1

    async def test_a_lapsed_tombstone_gives_way(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"a", b"1"),))
        await backend.delete(key, id=new_id())
        await let_pass(harness, 7 * TOMBSTONE_MS)
        while await backend.sweep():
            pass
        assert (await backend.read(key)).head is None
        with pytest.raises(SessionDeleted):
            await write(backend, key, incarnation=made.incarnation)
        assert (await write(backend, key, expect=Expect.ABSENT)).version == 1

    async def test_deletion_leaves_nothing_in_the_database(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        items = {b"a": b"1" * 100, b"b\xff": b"2" * 100}
        made = await write(backend, key, puts=tuple(items.items()))
        stored = await harness.raw_items(key)
        if stored is None:
            pytest.skip("no way to look past this backend")
        assert stored == items
        await backend.stage(key, made.incarnation, new_id(), ((b"part", b"3" * 100),))
        assert len(await harness.raw_items(key) or ()) == 3
        await backend.delete(key, id=new_id())
        while await backend.sweep():
            pass
        assert await harness.raw_items(key) == {}
