"""Waiting for a session to change: woken by whoever changes it, and never for good."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress

import pytest

from perdure.backend import Backend
from perdure.errors import StoreClosed
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Connect, Room
from perdure.testing.shorthand import new_id, read_head, write
from perdure.types import Head, SessionKey

LONG = 10.0
"""Seconds that a wait may take which something ends; well below what a machine can stall."""


async def ended_by(
    backend: Backend, key: SessionKey, after: Head | None, change: Coroutine[None, None, object]
) -> Head | None:
    """What ``wait`` returns when ``change`` comes while it waits."""
    waiting = asyncio.create_task(backend.wait(key, after=after, timeout=LONG))
    await asyncio.sleep(0.03)
    assert not waiting.done(), "nothing has changed yet"
    await change
    async with asyncio.timeout(LONG / 2):
        return await waiting


class Waiting(Room):
    async def test_a_commit_ends_it(self, backend: Backend, key: SessionKey) -> None:
        await write(backend, key)
        after = await read_head(backend, key)
        head = await ended_by(backend, key, after, write(backend, key))
        assert head == await read_head(backend, key)

    async def test_creation_ends_it(self, backend: Backend, key: SessionKey) -> None:
        head = await ended_by(backend, key, None, write(backend, key))
        assert head == await read_head(backend, key)

    async def test_deletion_ends_it(self, backend: Backend, key: SessionKey) -> None:
        await write(backend, key)
        after = await read_head(backend, key)
        assert await ended_by(backend, key, after, backend.delete(key, id=new_id())) is None

    async def test_expiry_ends_it(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, expires_in=200)
        after = await read_head(backend, key)
        assert await ended_by(backend, key, after, harness.advance(200)) is None

    async def test_a_commit_through_another_client_ends_it(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.shared:
            pytest.skip("one client only")
        watcher, writer = await connect(), await connect()
        await write(writer, key)
        after = await read_head(watcher, key)
        head = await ended_by(watcher, key, after, write(writer, key))
        assert head is not None
        assert head.version == 2
        assert await ended_by(watcher, key, head, writer.delete(key, id=new_id())) is None

    async def test_a_change_that_came_before_ends_it_at_once(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        first = await read_head(backend, key)
        await write(backend, key, puts=((b"a", b"1"),))
        async with asyncio.timeout(LONG / 2):
            head = await backend.wait(key, after=first, timeout=LONG)
            assert head == await read_head(backend, key)
            assert await backend.wait(key, after=None, timeout=LONG) == head
            await backend.delete(key, id=new_id())
            assert await backend.wait(key, after=head, timeout=LONG) is None

    async def test_a_successor_at_the_same_version_is_a_change(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        first = await read_head(backend, key)
        await backend.delete(key, id=new_id())
        await write(backend, key)
        async with asyncio.timeout(LONG / 2):
            head = await backend.wait(key, after=first, timeout=LONG)
        assert head == await read_head(backend, key)
        assert head != first

    async def test_its_timeout_ends_it(self, backend: Backend, key: SessionKey) -> None:
        async with asyncio.timeout(LONG / 2):
            assert await backend.wait(key, after=None, timeout=0.05) is None
            await write(backend, key)
            head = await read_head(backend, key)
            assert await backend.wait(key, after=head, timeout=0.05) == head
            assert await backend.wait(key, after=head, timeout=0) == head

    async def test_other_sessions_do_not_matter(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        after = await read_head(backend, key)
        waiting = asyncio.create_task(backend.wait(key, after=after, timeout=0.2))
        for id in ("other", key.id + "x"):
            await write(backend, SessionKey(key.tenant, key.kind, id))
        assert await waiting == after

    async def test_many_wait_for_one_session(self, backend: Backend, key: SessionKey) -> None:
        await write(backend, key)
        after = await read_head(backend, key)
        waits = [backend.wait(key, after=after, timeout=LONG) for _ in range(20)]
        waiting = asyncio.gather(*waits)
        await asyncio.sleep(0.03)
        await write(backend, key)
        async with asyncio.timeout(LONG / 2):
            heads = await waiting
        assert {head.version for head in heads if head is not None} == {2}

    async def test_a_cancelled_wait_leaves_the_backend_usable(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        after = await read_head(backend, key)
        waiting = [
            asyncio.create_task(backend.wait(key, after=after, timeout=LONG)) for _ in range(5)
        ]
        await asyncio.sleep(0.02)
        for task in waiting[1:]:
            task.cancel()
        await asyncio.wait(waiting[1:])
        await write(backend, key)
        async with asyncio.timeout(LONG / 2):
            assert await waiting[0] == await read_head(backend, key)

    async def test_closing_ends_it(self, connect: Connect, key: SessionKey) -> None:
        backend = await connect()
        await write(backend, key)
        after = await read_head(backend, key)
        waiting = asyncio.create_task(backend.wait(key, after=after, timeout=LONG))
        await asyncio.sleep(0.02)
        async with asyncio.timeout(LONG / 2):
            await backend.aclose()
            with suppress(StoreClosed):
                assert await waiting == after
