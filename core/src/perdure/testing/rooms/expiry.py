"""An expired session is absent: from the moment on, for everyone, swept or not; never early."""

import asyncio

import pytest

from perdure.backend import Backend
from perdure.errors import Conflict, SessionDeleted
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Room, let_pass
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
from perdure.types import NEVER, Append, Condition, Expect, Get, Item, Scan, SessionKey

HOUR = 3_600_000
LIFE = 600
"""Milliseconds: short enough to sit through where time really passes."""


async def sweep_all(backend: Backend) -> None:
    while await backend.sweep():
        pass


class ExpiryRoom(Room):
    async def test_a_session_expires_to_the_millisecond(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        if harness.clock is None or backend.capabilities.clock_error:
            pytest.skip("the engine keeps time")
        for relative in (True, False):
            expires_at = harness.clock() + LIFE
            commit = (
                new_commit(puts=((b"a", b"1"),), expires_in=LIFE)
                if relative
                else new_commit(puts=((b"a", b"1"),), expires_at=expires_at)
            )
            made = await backend.commit(key, commit)
            assert made.head is not None
            assert made.head.expires_at == expires_at
            await harness.advance(LIFE - 1)
            await sweep_all(backend)
            assert await read_values(backend, key) == {b"a": b"1"}
            assert await list_ids(backend, key) == [key.id]
            await harness.advance(1)
            assert (await backend.read(key)).head is None
            assert await list_ids(backend, key) == []

    async def test_a_session_expires_when_the_engines_clock_says_so(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        if harness.clock is not None:
            pytest.skip("the kit keeps time")
        error = backend.capabilities.clock_error
        made = await write(backend, key, puts=((b"a", b"1"),))
        expires_at = made.now + LIFE
        await write(backend, key, expires_at=expires_at)
        while (snapshot := await backend.read(key, Get(b"a"))).now < expires_at + error:
            if snapshot.now < expires_at - error:
                assert snapshot.head is not None, "expired early"
            await asyncio.sleep(0.01)
        assert snapshot.head is None, "outlived its expiry"
        assert not snapshot.rows[0].items

    async def test_an_expired_session_is_absent_to_every_operation(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, puts=((b"a", b"1"),), labels=("l",), expires_in=LIFE)
        seen = at(await read_head(backend, key))
        await let_pass(harness, LIFE + backend.capabilities.clock_error)
        snapshot = await backend.read(key, Get(b"a"), Scan())
        assert snapshot.head is None
        assert not any(rows.items for rows in snapshot.rows)
        assert await list_ids(backend, key) == []
        assert await list_ids(backend, key, label="l") == []
        assert await backend.wait(key, after=None, timeout=0.01) is None
        for expect in (Expect.PRESENT, seen):
            with pytest.raises(Conflict) as conflict:
                await write(backend, key, expect=expect)
            assert conflict.value.head is None
        with pytest.raises(Conflict):
            await write(backend, key, conditions=(Condition(b"a", 1),))
        with pytest.raises(SessionDeleted) as deleted:
            await write(backend, key, incarnation=made.incarnation)
        assert deleted.value.head is None
        assert not await backend.delete(key, id=new_id())
        assert not await backend.delete(key, id=new_id(), incarnation=made.incarnation)
        assert (await backend.read(key)).head is None

    async def test_a_session_made_after_expiry_begins_anew(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        first = await write(
            backend,
            key,
            puts=((b"a", b"1"),),
            deletes=(b"b",),
            meta=b"m",
            labels=("l",),
            expires_in=LIFE,
        )
        await let_pass(harness, LIFE + backend.capabilities.clock_error)
        commit = new_commit(expect=Expect.ABSENT, puts=((b"b", b"2"),))
        second = await backend.commit(key, commit)
        assert (second.version, second.incarnation) == (1, commit.new_incarnation)
        head = await read_head(backend, key)
        assert (head.meta, head.meta_version, head.labels) == (b"", 0, ())
        assert (head.last_delete, head.expires_at) == (0, None)
        assert head.created_at >= first.now + LIFE - backend.capabilities.clock_error
        assert await read_items(backend, key) == [Item(b"b", b"2", 1)]
        assert await list_ids(backend, key, label="l") == []
        with pytest.raises(SessionDeleted) as caught:
            await write(backend, key, incarnation=first.incarnation)
        assert caught.value.head == head
        await sweep_all(backend)
        assert await read_values(backend, key) == {b"b": b"2"}, "sweeping spares the living"

    async def test_a_repeat_after_expiry_is_recognised(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(appends=(Append(b"log", (b"once",)),), expires_in=LIFE)
        first = await backend.commit(key, commit)
        await let_pass(harness, LIFE + backend.capabilities.clock_error)
        for _ in range(2):
            again = await backend.commit(key, resent(commit))
            assert again.replayed
            assert (again.version, again.incarnation) == (1, first.incarnation)
            assert again.head is None
            await sweep_all(backend)
        assert (await backend.read(key)).head is None

    async def test_expiry_stays_until_changed_or_taken_away(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key, expires_in=HOUR)
        expires_at = (await read_head(backend, key)).expires_at
        assert expires_at is not None
        assert abs(expires_at - made.now - HOUR) <= backend.capabilities.clock_error
        await write(backend, key, puts=((b"a", b"1"),))
        assert (await read_head(backend, key)).expires_at == expires_at
        await write(backend, key, expires_at=expires_at + HOUR)
        assert (await read_head(backend, key)).expires_at == expires_at + HOUR
        await write(backend, key, expires_at=NEVER)
        assert (await read_head(backend, key)).expires_at is None
        await write(backend, key, expires_in=LIFE)
        await write(backend, key, expires_at=NEVER)
        await let_pass(harness, 2 * LIFE)
        await sweep_all(backend)
        assert await read_values(backend, key) == {b"a": b"1"}

    async def test_extending_in_time_keeps_the_session_alive(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"),), expires_in=2 * LIFE)
        for _ in range(4):
            await let_pass(harness, LIFE)
            await write(backend, key, expect=Expect.PRESENT, expires_in=2 * LIFE)
        head = await read_head(backend, key)
        assert head.version == 5
        assert await read_values(backend, key) == {b"a": b"1"}

    async def test_a_refused_commit_does_not_extend_life(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, expires_in=LIFE)
        before = await read_head(backend, key)
        for expires_in in (1, HOUR):
            with pytest.raises(Conflict):
                await write(backend, key, expect=Expect.ABSENT, expires_in=expires_in)
            assert await read_head(backend, key) == before
        await let_pass(harness, LIFE + backend.capabilities.clock_error)
        assert (await backend.read(key)).head is None

    async def test_sweeping_removes_the_expired_and_nothing_else(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        living = SessionKey(key.tenant, key.kind, "living")
        await write(backend, living, puts=((b"a", b"1"),), expires_in=HOUR)
        await write(backend, key, puts=((b"a", b"x" * 100),), expires_in=LIFE)
        await let_pass(harness, LIFE + backend.capabilities.clock_error)
        await sweep_all(backend)
        assert await backend.sweep() == 0
        assert await list_ids(backend, key) == ["living"]
        assert await read_values(backend, living) == {b"a": b"1"}
        stored = await harness.raw_items(key)
        if stored is not None:
            assert stored == {}
            assert await harness.raw_items(living) == {b"a": b"1"}
