"""What outlives a backend that is closed, and what a closed one does."""

import pytest

from perdure.backend import Backend
from perdure.errors import StoreClosed
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Connect, Room
from perdure.testing.shorthand import list_ids, new_id, read_head, read_items, write
from perdure.types import Append, KeyRange, SessionKey


async def use(backend: Backend, key: SessionKey) -> None:
    await write(
        backend,
        key,
        puts=((b"a", b"1"), (b"\xff\0", b"\0\xff")),
        appends=(Append(b"log", (b"one", b"two")),),
        meta=b"meta",
        labels=("l",),
        expires_in=1_000_000_000,
    )
    await write(backend, key, deletes=(b"a", KeyRange(b"x")), puts=((b"b", b"2"),))


class DurabilityRoom(Room):
    async def test_what_was_acknowledged_is_there_after_a_restart(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.persistent:
            pytest.skip("nothing outlives this backend")
        backend = await connect()
        await use(backend, key)
        head, items = await read_head(backend, key), await read_items(backend, key)
        await backend.aclose()
        backend = await connect()
        assert await read_head(backend, key) == head
        assert await read_items(backend, key) == items
        assert await list_ids(backend, key) == [key.id]
        assert await list_ids(backend, key, label="l") == [key.id]
        made = await write(backend, key, incarnation=head.incarnation)
        assert made.version == head.version + 1

    async def test_stages_wait_through_a_restart(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.persistent:
            pytest.skip("nothing outlives this backend")
        backend = await connect()
        made = await write(backend, key)
        stage = new_id()
        await backend.stage(key, made.incarnation, stage, ((b"part", b"1"),))
        await backend.aclose()
        backend = await connect()
        await write(backend, key, stages=(stage,))
        assert [item.value for item in await read_items(backend, key)] == [b"1"]

    async def test_every_client_sees_what_any_was_told(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.shared:
            pytest.skip("one client only")
        clients = [await connect() for _ in range(3)]
        for n in range(12):
            made = await write(clients[n % 3], key, puts=((b"n", b"%d" % n),))
            for client in clients:
                assert (await client.read(key)).head == made.head
        assert await clients[0].delete(key, id=new_id())
        for client in clients:
            assert (await client.read(key)).head is None
            assert await list_ids(client, key) == []

    async def test_a_closed_backend_says_so(self, connect: Connect, key: SessionKey) -> None:
        backend = await connect()
        await write(backend, key)
        await backend.aclose()
        await backend.aclose()
        with pytest.raises(StoreClosed):
            await backend.read(key)
        with pytest.raises(StoreClosed):
            await write(backend, key)
        with pytest.raises(StoreClosed):
            await backend.delete(key, id=new_id())

    async def test_opening_is_idempotent(self, connect: Connect, key: SessionKey) -> None:
        backend = await connect()
        await backend.open()
        await write(backend, key)
        await backend.open()
        assert (await read_head(backend, key)).version == 1
