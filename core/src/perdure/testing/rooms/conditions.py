"""What a commit may require of a session, and that a refused one leaves no trace."""

import msgspec
import pytest

from perdure.backend import Backend
from perdure.errors import Conflict, Outcome, SessionDeleted
from perdure.testing.rooms.room import Room
from perdure.testing.shorthand import (
    at,
    new_commit,
    new_id,
    read_head,
    read_items,
    read_values,
    write,
)
from perdure.types import (
    Append,
    At,
    Condition,
    Expect,
    Get,
    Item,
    KeyRange,
    Read,
    Scan,
    SessionKey,
    append_key,
)


async def refused(
    backend: Backend,
    key: SessionKey,
    *,
    expect: Expect | At = Expect.ANY,
    conditions: tuple[Condition, ...] = (),
    returning: tuple[Read, ...] = (),
) -> Conflict:
    """Assert that a commit of everything conflicts and changes nothing; return the error."""
    before = await backend.read(key), await read_items(backend, key)
    with pytest.raises(Conflict) as caught:
        await write(
            backend,
            key,
            expect=expect,
            conditions=conditions,
            deletes=(KeyRange(b""),),
            puts=((b"new", b"1"),),
            appends=(Append(b"log", (b"entry",)),),
            meta=b"changed",
            labels=("changed",),
            expires_in=1,
            returning=returning,
        )
    assert caught.value.outcome is Outcome.NOT_APPLIED
    after = await backend.read(key), await read_items(backend, key)
    assert after[0].head == before[0].head
    assert after[1] == before[1]
    assert caught.value.head == before[0].head, "a conflict shows the session as it is"
    return caught.value


class Conditions(Room):
    async def test_any_creates_and_changes(self, backend: Backend, key: SessionKey) -> None:
        assert (await write(backend, key, expect=Expect.ANY)).version == 1
        assert (await write(backend, key, expect=Expect.ANY)).version == 2

    async def test_present_requires_a_session(self, backend: Backend, key: SessionKey) -> None:
        error = await refused(backend, key, expect=Expect.PRESENT)
        assert error.head is None
        await write(backend, key)
        assert (await write(backend, key, expect=Expect.PRESENT)).version == 2

    async def test_absent_requires_none(self, backend: Backend, key: SessionKey) -> None:
        await write(backend, key, expect=Expect.ABSENT, puts=((b"a", b"1"),))
        await refused(backend, key, expect=Expect.ABSENT)

    async def test_at_requires_the_version(self, backend: Backend, key: SessionKey) -> None:
        first = await write(backend, key, puts=((b"a", b"1"),))
        assert first.head is not None
        second = await write(backend, key, expect=at(first.head), puts=((b"a", b"2"),))
        assert second.version == 2
        head = await read_head(backend, key)
        for version in (0, 1, 3):
            await refused(backend, key, expect=At(version, head.tip))

    async def test_at_requires_the_tip(self, backend: Backend, key: SessionKey) -> None:
        await write(backend, key)
        head = await read_head(backend, key)
        await refused(backend, key, expect=At(head.version, new_id()))
        assert (await write(backend, key, expect=at(head))).version == 2

    async def test_at_of_an_absent_session_conflicts_without_head(
        self, backend: Backend, key: SessionKey
    ) -> None:
        error = await refused(backend, key, expect=At(1, new_id()))
        assert error.head is None

    async def test_two_writers_at_one_version_do_not_both_succeed(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        seen = at(await read_head(backend, key))
        await write(backend, key, expect=seen, puts=((b"winner", b"1"),))
        await refused(backend, key, expect=seen)

    async def test_an_item_condition_requires_its_version(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"), (b"b", b"1")))
        await write(backend, key, puts=((b"b", b"2"),))
        holds = (Condition(b"a", 1), Condition(b"b", 2), Condition(b"c", 0))
        await write(backend, key, conditions=holds, puts=((b"b", b"3"),))
        for broken in (
            Condition(b"a", 0),
            Condition(b"a", 2),
            Condition(b"b", 2),
            Condition(b"c", 1),
            Condition(b"c", 3),
        ):
            await refused(backend, key, conditions=(Condition(b"a", 1), broken))
            await refused(backend, key, conditions=(broken, Condition(b"a", 1)))

    async def test_a_removed_item_is_absent_to_conditions(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"),))
        await write(backend, key, deletes=(b"a",))
        for version in (1, 2):
            await refused(backend, key, conditions=(Condition(b"a", version),))
        await write(backend, key, conditions=(Condition(b"a", 0),))

    async def test_a_condition_speaks_of_the_item_before_the_commit(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"),))
        await write(
            backend, key, conditions=(Condition(b"a", 1),), deletes=(b"a",), puts=((b"b", b""),)
        )
        await write(backend, key, conditions=(Condition(b"a", 0),), puts=((b"a", b"3"),))
        assert await read_values(backend, key) == {b"a": b"3", b"b": b""}

    async def test_an_appended_item_is_an_item_like_any_other(
        self, backend: Backend, key: SessionKey
    ) -> None:
        first, second, third = (append_key(b"log", 1, ordinal) for ordinal in range(3))
        await write(backend, key, appends=(Append(b"log", (b"1", b"2", b"3")),))
        await write(backend, key, deletes=(second,), puts=((second, b"again"),))
        holds = (Condition(first, 1), Condition(second, 2), Condition(third, 1))
        await write(backend, key, conditions=holds, deletes=(third,))
        for broken in (
            Condition(first, 0),
            Condition(first, 3),
            Condition(second, 1),
            Condition(third, 1),
            Condition(append_key(b"log", 2, 0), 2),
        ):
            await refused(backend, key, conditions=(broken,))
        await write(backend, key, conditions=(Condition(third, 0),), deletes=(first,))
        assert await read_items(backend, key) == [Item(second, b"again", 2)]
        (rows,) = (await backend.read(key, Get(second))).rows
        assert list(rows.items) == [Item(second, b"again", 2)]

    async def test_as_many_conditions_as_the_backend_declares_items(
        self, backend: Backend, key: SessionKey
    ) -> None:
        count = min(backend.capabilities.max_commit_items - 4, 500)
        await write(backend, key, puts=((b"last", b"1"),))
        absent = tuple(Condition(b"%04d" % n, 0) for n in range(count - 1))
        holds = (*absent, Condition(b"last", 1))
        await write(backend, key, conditions=holds, puts=((b"last", b"2"),))
        await refused(backend, key, conditions=holds)

    async def test_a_meta_condition_requires_the_version_of_meta(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, conditions=(Condition(None, 0),))
        await write(backend, key, meta=b"m")
        await write(backend, key)
        for version in (0, 1, 3):
            await refused(backend, key, conditions=(Condition(None, version),))
        await write(backend, key, conditions=(Condition(None, 2),), meta=b"n")

    async def test_conditions_on_an_absent_session_see_nothing(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await refused(backend, key, conditions=(Condition(b"a", 1),))
        await refused(backend, key, conditions=(Condition(None, 1),))
        conditions = (Condition(b"a", 0), Condition(None, 0))
        assert (await write(backend, key, conditions=conditions)).version == 1

    async def test_a_holder_that_lost_its_lease_cannot_write(
        self, backend: Backend, key: SessionKey
    ) -> None:
        lease = await write(backend, key, puts=((b"lease", b"first holder"),))
        fence = Condition(b"lease", lease.version)
        await write(backend, key, conditions=(fence,), puts=((b"work", b"1"),))
        await write(backend, key, puts=((b"lease", b"second holder"),))
        for stale in (
            new_commit(conditions=(fence,), puts=((b"work", b"stale"),)),
            new_commit(conditions=(fence,), appends=(Append(b"log", (b"stale",)),)),
            new_commit(conditions=(fence,), deletes=(b"work",)),
            new_commit(conditions=(fence,), meta=b"stale"),
        ):
            with pytest.raises(Conflict):
                await backend.commit(key, stale)
        found = await read_values(backend, key)
        assert found == {b"lease": b"second holder", b"work": b"1"}

    async def test_a_conflict_returns_what_was_asked_for(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"),))
        await write(backend, key, puts=((b"b", b"2"),))
        returning = (Scan(since=1), Get(b"a"), Get(b"new"))
        error = await refused(backend, key, expect=At(1, new_id()), returning=returning)
        assert error.now > 0
        if backend.capabilities.returning:
            assert [list(rows.items) for rows in error.rows] == [
                [Item(b"b", b"2", 2)],
                [Item(b"a", b"1", 1)],
                [],
            ]

    async def test_an_incarnation_must_be_the_one_present(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"a", b"1"),))
        await write(backend, key, incarnation=made.incarnation, puts=((b"a", b"2"),))
        before = await read_head(backend, key)
        for expect in (Expect.ANY, Expect.PRESENT, Expect.ABSENT, at(before)):
            with pytest.raises(SessionDeleted) as caught:
                await write(
                    backend, key, incarnation=new_id(), expect=expect, puts=((b"a", b"3"),)
                )
            assert caught.value.head == before
        assert await read_head(backend, key) == before
        assert await read_values(backend, key) == {b"a": b"2"}

    async def test_a_commit_that_names_an_incarnation_never_creates(
        self, backend: Backend, key: SessionKey
    ) -> None:
        for expect in (Expect.ANY, Expect.ABSENT, Expect.PRESENT):
            commit = new_commit(expect=expect, puts=((b"a", b"1"),))
            named = msgspec.structs.replace(commit, incarnation=commit.new_incarnation)
            with pytest.raises(SessionDeleted) as caught:
                await backend.commit(key, named)
            assert caught.value.head is None
        assert (await backend.read(key)).head is None
