"""What an applied commit does: versions, stamps, appends, deletes, meta, labels, returning."""

import msgspec
import pytest

from perdure.backend import Backend
from perdure.errors import Conflict
from perdure.testing.rooms.room import Room
from perdure.testing.shorthand import (
    new_commit,
    new_id,
    read_head,
    read_items,
    read_values,
    write,
)
from perdure.types import (
    Append,
    Expect,
    Get,
    Item,
    KeyRange,
    Scan,
    SessionKey,
    append_key,
)


class Commits(Room):
    async def test_first_commit_makes_version_one(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"1"),))
        made = await backend.commit(key, commit)
        assert (made.version, made.incarnation) == (1, commit.new_incarnation)
        assert not made.replayed
        head = made.head
        assert head is not None
        assert (head.version, head.tip) == (1, commit.id)
        assert head.incarnation == commit.new_incarnation
        assert (head.last_delete, head.meta, head.meta_version) == (0, b"", 0)
        assert (head.labels, head.expires_at) == ((), None)
        assert head.created_at == head.updated_at

    async def test_the_acknowledged_head_is_the_one_read(
        self, backend: Backend, key: SessionKey
    ) -> None:
        for n in range(3):
            made = await write(
                backend,
                key,
                puts=((b"a", b"%d" % n),),
                meta=b"m%d" % n,
                labels=(f"label-{n}",),
                deletes=(b"b",),
                expires_in=1_000_000,
            )
            assert (await backend.read(key)).head == made.head

    async def test_versions_grow_by_one_and_tip_names_the_commit(
        self, backend: Backend, key: SessionKey
    ) -> None:
        incarnation = None
        for version in range(1, 12):
            commit = new_commit(puts=((b"a", b"%d" % version),))
            made = await backend.commit(key, commit)
            incarnation = incarnation or made.incarnation
            head = await read_head(backend, key)
            assert made.version == head.version == version
            assert head.tip == commit.id
            assert head.incarnation == made.incarnation == incarnation

    async def test_times_are_of_creation_and_of_the_last_commit(
        self, backend: Backend, key: SessionKey
    ) -> None:
        before = (await backend.read(key)).now
        first = await write(backend, key)
        second = await write(backend, key)
        after = (await backend.read(key)).now
        assert first.head is not None
        assert second.head is not None
        assert before <= first.head.created_at <= after
        assert second.head.created_at == first.head.created_at
        assert first.head.updated_at <= second.head.updated_at <= after

    async def test_a_commit_that_writes_nothing_is_a_commit(
        self, backend: Backend, key: SessionKey
    ) -> None:
        first = await write(backend, key)
        second = new_commit()
        made = await backend.commit(key, second)
        assert (first.version, made.version) == (1, 2)
        head = await read_head(backend, key)
        assert (head.version, head.tip) == (2, second.id)

    async def test_a_conflicting_commit_leaves_no_gap_in_the_versions(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        with pytest.raises(Conflict):
            await write(backend, key, expect=Expect.ABSENT, puts=((b"a", b"1"),))
        assert (await write(backend, key)).version == 2

    async def test_appended_keys_are_prefix_version_ordinal(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, appends=(Append(b"log/", (b"one", b"two")),))
        await write(backend, key, meta=b"m")
        await write(backend, key, appends=(Append(b"log/", (b"three",)),))
        assert await read_items(backend, key) == [
            Item(append_key(b"log/", 1, 0), b"one", 1),
            Item(append_key(b"log/", 1, 1), b"two", 1),
            Item(append_key(b"log/", 3, 0), b"three", 3),
        ]

    async def test_ordinals_count_per_prefix(self, backend: Backend, key: SessionKey) -> None:
        appends = (
            Append(b"b", (b"b0", b"b1")),
            Append(b"a", (b"a0", b"a1", b"a2")),
            Append(b"", (b"bare",)),
        )
        await write(backend, key, appends=appends)
        assert await read_values(backend, key) == {
            append_key(b"", 1, 0): b"bare",
            append_key(b"a", 1, 0): b"a0",
            append_key(b"a", 1, 1): b"a1",
            append_key(b"a", 1, 2): b"a2",
            append_key(b"b", 1, 0): b"b0",
            append_key(b"b", 1, 1): b"b1",
        }

    async def test_appends_keep_their_order_past_255_versions_and_ordinals(
        self, backend: Backend, key: SessionKey
    ) -> None:
        many = tuple(b"v%03d" % n for n in range(300))
        many = many[: backend.capabilities.max_commit_items]
        await write(backend, key, appends=(Append(b"log", many),))
        for n in range(270):
            await write(backend, key, appends=(Append(b"log", (b"w%03d" % n,)),))
        expected = [*many, *(b"w%03d" % n for n in range(270))]
        assert [item.value for item in await read_items(backend, key)] == expected

    async def test_the_longest_append_prefix(self, backend: Backend, key: SessionKey) -> None:
        prefix = b"\xff" * 500
        await write(backend, key, appends=(Append(prefix, (b"v",)),))
        assert await read_values(backend, key) == {append_key(prefix, 1, 0): b"v"}

    async def test_deletes_take_keys_and_half_open_ranges(
        self, backend: Backend, key: SessionKey
    ) -> None:
        keys = [b"a", b"b", b"b\0", b"bb", b"c", b"d", b"e", b"f"]
        await write(backend, key, puts=tuple((k, b"") for k in keys))
        await write(backend, key, deletes=(b"b", KeyRange(b"c", b"e"), b"missing"))
        assert list(await read_values(backend, key)) == [b"a", b"b\0", b"bb", b"e", b"f"]
        await write(backend, key, deletes=(KeyRange(b"bb"),))
        assert list(await read_values(backend, key)) == [b"a", b"b\0"]
        await write(backend, key, deletes=(KeyRange(b""),))
        assert await read_values(backend, key) == {}
        assert (await read_head(backend, key)).version == 4

    async def test_empty_delete_ranges_delete_nothing(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"), (b"b", b"2")))
        await write(
            backend, key, deletes=(KeyRange(b"a", b"a"), KeyRange(b"aa", b"b"), KeyRange(b"c"))
        )
        assert await read_values(backend, key) == {b"a": b"1", b"b": b"2"}

    async def test_deletes_come_before_puts_and_appends(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"), (b"b", b"1")))
        await write(
            backend,
            key,
            deletes=(KeyRange(b""), b"a"),
            puts=((b"a", b"2"),),
            appends=(Append(b"log", (b"entry",)),),
        )
        assert await read_items(backend, key) == [
            Item(b"a", b"2", 2),
            Item(append_key(b"log", 2, 0), b"entry", 2),
        ]

    async def test_last_delete_is_the_last_commit_with_deletes(
        self, backend: Backend, key: SessionKey
    ) -> None:
        seen: list[int] = []
        for fields in (
            new_commit(puts=((b"a", b"1"),)),
            new_commit(deletes=(b"a",)),
            new_commit(puts=((b"b", b"1"),), meta=b"m"),
            new_commit(deletes=(b"never there",)),
            new_commit(),
            new_commit(deletes=(KeyRange(b"x", b"y"),), puts=((b"c", b"1"),)),
            new_commit(puts=((b"c", b"2"),)),
        ):
            await backend.commit(key, fields)
            seen.append((await read_head(backend, key)).last_delete)
        assert seen == [0, 2, 2, 4, 4, 6, 6]

    async def test_meta_keeps_its_own_version(self, backend: Backend, key: SessionKey) -> None:
        seen: list[tuple[bytes, int]] = []
        for meta in (None, b"one", None, b"", b"x" * 4096, None):
            await write(backend, key, meta=meta)
            head = await read_head(backend, key)
            seen.append((head.meta, head.meta_version))
        long = b"x" * 4096
        assert seen == [(b"", 0), (b"one", 2), (b"one", 2), (b"", 4), (long, 5), (long, 5)]

    async def test_labels_stay_until_replaced(self, backend: Backend, key: SessionKey) -> None:
        four = ("z" * 128, "a:b", "\u202e'", "a")
        for labels, expected in ((four, four), (None, four), (("b",), ("b",)), ((), ())):
            await write(backend, key, labels=labels)
            assert (await read_head(backend, key)).labels == expected

    async def test_a_created_session_has_what_its_first_commit_says(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(
            backend,
            key,
            expect=Expect.ABSENT,
            meta=b"m",
            labels=("l",),
            deletes=(b"x",),
            puts=((b"x", b"1"),),
        )
        head = await read_head(backend, key)
        assert (head.meta, head.meta_version, head.labels) == (b"m", 1, ("l",))
        assert head.last_delete == 1
        assert await read_values(backend, key) == {b"x": b"1"}

    async def test_returning_sees_the_commit_it_came_with(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"), (b"b", b"1"), (b"c", b"1")))
        made = await write(
            backend,
            key,
            deletes=(b"b",),
            puts=((b"a", b"2"),),
            appends=(Append(b"log", (b"entry",)),),
            returning=(Scan(), Scan(since=1), Get(b"a"), Get(b"b")),
        )
        if not backend.capabilities.returning:
            assert made.rows == ()
            return
        entry = Item(append_key(b"log", 2, 0), b"entry", 2)
        assert [list(rows.items) for rows in made.rows] == [
            [Item(b"a", b"2", 2), Item(b"c", b"1", 1), entry],
            [Item(b"a", b"2", 2), entry],
            [Item(b"a", b"2", 2)],
            [],
        ]

    async def test_sessions_do_not_share_versions_or_ids(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"1"),))
        other = SessionKey(key.tenant, key.kind, "other")
        await write(backend, key)
        await backend.commit(key, commit)
        made = await backend.commit(
            other, msgspec.structs.replace(commit, new_incarnation=new_id())
        )
        assert (made.version, made.replayed) == (1, False)
        assert await read_values(backend, other) == {b"a": b"1"}
