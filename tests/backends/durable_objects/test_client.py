"""How many requests the client makes, over which connections, and how it begins and ends."""

import asyncio
import os
from collections.abc import AsyncGenerator

import pytest
from aiohttp import web
from msgspec.structs import replace

from perdure.backend import Durability, Wait
from perdure.errors import Conflict, SessionDeleted, StoreClosed, TooLarge, Unavailable
from perdure.protocol import requests
from perdure.protocol.limits import MAX_BODY_BYTES
from perdure.types import Expect, ListQuery, Scan, SessionKey

from tests.backends.durable_objects.front import Front
from tests.backends.durable_objects.opened import client_of, commit_of, new_key


@pytest.fixture
async def front(durable_objects_url: str) -> AsyncGenerator[Front]:
    async with Front.before(durable_objects_url) as front:
        yield front


async def test_every_operation_is_one_request_from_the_first_on(front: Front) -> None:
    key = new_key()
    async with client_of(front.url) as client:
        made = await client.commit(key, commit_of(b"one"))
        assert (await client.read(key, Scan())).head == made.head
        await client.stage(key, made.incarnation, os.urandom(16), ((b"a", b"b"),))
        await client.list(key.tenant, key.kind, ListQuery())
        await client.kinds(key.tenant)
        await client.tenants(limit=1)
        await client.delete(key, id=os.urandom(16))
        await client.sweep(limit=1)
        late = replace(commit_of(b"late"), incarnation=made.incarnation)
        with pytest.raises(SessionDeleted):
            await client.commit(key, late)
    assert front.requests == [
        "commit", "read", "stage", "list", "kinds", "tenants", "delete", "sweep", "commit",
    ]  # fmt: skip
    assert front.connections == 1


async def test_connections_are_kept_and_no_more_than_allowed(front: Front) -> None:
    async with client_of(front.url, connections=4) as client:
        keys = [new_key() for _ in range(12)]
        for _ in range(3):
            await asyncio.gather(*(client.commit(key, commit_of(b"x")) for key in keys))
    assert len(front.requests) == 36
    assert front.connections <= 4


async def test_who_waits_takes_no_connection_from_others(durable_objects_url: str) -> None:
    key = new_key()
    async with client_of(durable_objects_url, connections=1) as client:
        waiting = [
            asyncio.create_task(client.wait(key, after=None, timeout=20)) for _ in range(5)
        ]
        await asyncio.sleep(0.1)
        made = await client.commit(key, commit_of(b"x"))
        assert await asyncio.gather(*waiting) == [made.head] * 5


async def test_waiting_may_last_longer_than_a_request(durable_objects_url: str) -> None:
    loop = asyncio.get_running_loop()
    async with client_of(durable_objects_url, timeout=0.1) as client:
        begun = loop.time()
        assert await client.wait(new_key(), after=None, timeout=1.5) is None
        assert loop.time() - begun >= 1.4


async def test_a_page_is_filled_from_a_server_with_shorter_ones(front: Front) -> None:
    tenant = new_key().tenant
    names = [f"{number:02}" for number in range(11)]

    async def short_pages(request: web.Request) -> web.StreamResponse:
        query = requests.decode_list(await request.read())
        shorter = ListQuery(limit=min(query.limit, 4), cursor=query.cursor)
        return await front.pass_on(request, requests.encode_list(shorter))

    async with client_of(front.url) as client:
        await asyncio.gather(
            *(client.commit(SessionKey(tenant, "s", name), commit_of()) for name in names)
        )
        front.handler = short_pages
        page = await client.list(tenant, "s", ListQuery(limit=10))
        assert [entry.key.id for entry in page.items] == names[:10]
        rest = await client.list(tenant, "s", ListQuery(limit=10, cursor=page.cursor))
        assert [entry.key.id for entry in rest.items] == names[10:]
        assert rest.cursor is None


async def test_capabilities_are_the_server_s_once_it_was_asked(
    durable_objects_url: str,
) -> None:
    async with client_of(durable_objects_url) as client:
        before = client.capabilities
        await client.open()
        after = client.capabilities
        assert before.loop_bound
        assert after.loop_bound
        assert before.durability is Durability.NONE
        assert after.durability is not Durability.NONE
        assert before.max_item_bytes < after.max_item_bytes < 2_000_000
        assert before.max_commit_items < after.max_commit_items
        assert after.wait is Wait.PUSH
        described = await client.describe()
        assert described.details["protocol"] == "1"
        assert "plums" not in str(described)


async def test_a_conflict_tells_how_the_session_is(durable_objects_url: str) -> None:
    key = new_key()
    async with client_of(durable_objects_url) as client:
        made = await client.commit(key, commit_of(b"x"))
        again = replace(commit_of(b"y"), expect=Expect.ABSENT, returning=(Scan(),))
        with pytest.raises(Conflict) as raised:
            await client.commit(key, again)
        assert raised.value.head == made.head
        assert raised.value.now >= made.now
        assert [item.value for item in raised.value.rows[0].items] == [b"x"]


async def test_a_request_over_the_limit_is_not_sent(front: Front) -> None:
    parts = tuple((b"%d" % n, bytes(1 << 20)) for n in range(33))
    async with client_of(front.url) as client:
        with pytest.raises(TooLarge, match=str(MAX_BODY_BYTES)):
            await client.stage(new_key(), os.urandom(16), os.urandom(16), parts)
    assert front.requests == []


async def test_a_cancelled_request_leaves_the_client_usable(front: Front) -> None:
    key = new_key()
    async with client_of(front.url, connections=1) as client:
        await client.commit(key, commit_of(b"x"))

        async def slow(request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(0.2)
            return await front.pass_on(request)

        front.handler = slow
        reading = asyncio.create_task(client.read(new_key()))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        front.handler = front.pass_on
        snapshot = await client.read(key, Scan())
        assert [item.value for item in snapshot.rows[0].items] == [b"x"]


async def test_closing_waits_for_what_is_under_way(front: Front) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return await front.pass_on(request)

    front.handler = slow
    key = new_key()
    async with client_of(front.url) as client:
        committing = asyncio.create_task(client.commit(key, commit_of(b"x")))
        await asyncio.sleep(0.05)
        await client.aclose()
        assert committing.done()
        assert (await committing).version == 1
        for work in (client.read(key), client.open(), client.wait(key, after=None, timeout=1)):
            with pytest.raises(StoreClosed):
                await work


async def test_nobody_there_means_nothing_was_sent(durable_objects_url: str) -> None:
    async with Front.before(durable_objects_url) as front:
        url = front.url
    async with client_of(url) as client:
        for work in (client.commit(new_key(), commit_of(b"x")), client.open()):
            with pytest.raises(Unavailable) as raised:
                await work
            assert not raised.value.lasting
            assert "plums" not in str(raised.value)
