"""A server is killed under load, again and again: nothing acknowledged is lost.

``PERDURE_KILLS=500`` kills so many times.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

import msgspec

from perdure import Head, Order, SessionKey, Store
from perdure.backend import Backend
from perdure.plugins import open_backend
from perdure.testing.race import judge
from perdure.testing.recorder import AnyCall, Write
from perdure.testing.shorthand import list_pages, read_items
from perdure.types import Item

from tests.races.load import LABELS, LASTING, MORTAL, Load
from tests.services.dynamodb import Dynoxide, new_table, table_url
from tests.services.postgres import Postgres
from tests.services.server import Server
from tests.services.valkey import Valkey
from tests.services.worker import Worker

KILLS = int(os.environ.get("PERDURE_KILLS", "30"))

Held = tuple[Head | None, list[Item]]
"""What a session holds."""


async def test_killing_valkey_loses_nothing_acknowledged(tmp_path: Path) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with Valkey.start(tmp_path / "valkey", *options) as server:
        await kill_again_and_again(server, server.url)


async def test_killing_postgres_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with Postgres.start(tmp_path / "postgres") as server:
        await kill_again_and_again(server, server.url)


async def test_killing_workerd_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with Worker.serve(tmp_path / "workerd") as server:
        await kill_again_and_again(server, server.url, kills=max(KILLS, 50))


async def test_killing_dynoxide_loses_nothing_acknowledged(
    tmp_path: Path, aws_credentials: None
) -> None:
    """Its tables are in a SQLite database. (AWS's do not go down with a machine.)"""
    with (
        Dynoxide.start(tmp_path / "dynoxide", on_disk=True) as server,
        new_table(server.url) as table,
    ):
        # So hasty that the backend tries once, and leaves it to the store to send again.
        hasty = table_url(server.url, table) + "&timeout=0.001"
        await kill_again_and_again(server, hasty, kills=KILLS // 2)


async def kill_again_and_again(server: Server, url: str, kills: int = KILLS) -> None:
    async def kill() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)

    await disturb_again_and_again(kill, url, kills)


async def disturb_again_and_again(
    disturb: Callable[[], Awaitable[None]], url: str, times: int
) -> None:
    """See that nothing is lost to a disturbance under load, or to those after it."""
    load = Load(url)
    kept: dict[SessionKey, bytes] = {}
    resent = 0
    try:
        for _ in range(times):
            tenant = f"kill-{uuid4()}"
            async with asyncio.timeout(60):
                await write_through(disturb, load, tenant)
            backend = open_backend(url)  # one that knows nothing yet
            try:
                calls = load.take_calls()
                resent += sum(isinstance(call, Write) and call.commit.resend for call in calls)
                found = await check(backend, tenant, calls, load.acknowledged)
                kept |= {key: fingerprint(held) for key, held in found.items()}
            finally:
                await backend.aclose()
        backend = open_backend(url)
        try:
            for key, before in kept.items():
                after = fingerprint(await contents(backend, key))
                assert after == before, f"a later disturbance has changed {key}"
        finally:
            await backend.aclose()
    finally:
        await load.aclose()
    assert resent, "no disturbance came between a commit and its reply"


async def write_through(
    disturb: Callable[[], Awaitable[None]], load: Load, tenant: str
) -> None:
    """Disturb the server while all write, then let them end what they have begun."""
    busy, stop = asyncio.Event(), asyncio.Event()
    writing = asyncio.create_task(load.run(tenant, busy, stop))
    try:
        await busy.wait()
        await asyncio.sleep(random.uniform(0, 0.1))
        await disturb()
    finally:
        stop.set()
        await writing


async def check(
    backend: Backend,
    tenant: str,
    calls: list[AnyCall],
    acknowledged: dict[SessionKey, list[int]],
) -> dict[SessionKey, Held]:
    """Compare what is there with what the writers were told, and return it."""
    assert await judge(backend, calls) == []
    keys = [SessionKey.of(tenant, "session", id) for id in (*LASTING, *MORTAL)]
    found = {key: await contents(backend, key) for key in keys}
    store = Store(backend, tenant=tenant)
    for id, key in zip(LASTING, keys, strict=False):
        session = store.session(id)
        entries = await session.entries()
        assert sorted(entry[0] for entry in entries) == sorted(acknowledged[key])
        cells = await session.cells.scan()
        assert cells.get("count") == cells.get("twin")
    heads = {key: head for key, (head, _) in found.items() if head is not None}
    for order in Order:
        assert await listed(backend, keys[0], order, None) == heads
        for label in LABELS:
            carry = {key: head for key, head in heads.items() if label in head.labels}
            assert await listed(backend, keys[0], order, label) == carry
    return found


async def contents(backend: Backend, key: SessionKey) -> Held:
    return (await backend.read(key)).head, await read_items(backend, key)


def fingerprint(held: Held) -> bytes:
    """Of constant size: there may be many kills."""
    return blake2b(msgspec.msgpack.encode(held)).digest()


async def listed(
    backend: Backend, key: SessionKey, order: Order, label: str | None
) -> dict[SessionKey, Head]:
    """What the lists of ``key``'s tenant and kind show."""
    pages = await list_pages(backend, key, order=order, label=label)
    return {entry.key: entry.head for page in pages for entry in page}
