"""What the Worker's objects do that no client sees at once: what they cost, keep and repair."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator

import pytest

from perdure.backend import TOMBSTONE_MS, Backend
from perdure.errors import TooLarge
from perdure.testing.shorthand import (
    list_ids,
    new_commit,
    new_id,
    read_head,
    read_values,
    resent,
    write,
)
from perdure.types import Append, Get, ListQuery, Order, Scan, SessionKey

from tests.backends.durable_objects.harness import MovedWorker, WorkerHarness, name_of

MINUTE = 60_000
HOUR = 60 * MINUTE
TURN = (Append(b"log", (b"w" * 800, b"x" * 800, b"y" * 800, b"z" * 800)),)


@pytest.fixture
async def backend(durable_objects_harness: WorkerHarness) -> AsyncIterator[Backend]:
    backend = await durable_objects_harness.open()
    yield backend
    await backend.aclose()


@pytest.fixture
def key() -> SessionKey:
    return SessionKey(f"objects-{new_id().hex()}", "session", "s")


def ask(server: MovedWorker, action: str) -> str:
    """What the entry for tests answers: see worker/testing.ts."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/test/{action}") as response:
        return response.read().decode()


def rows_written(server: MovedWorker) -> int:
    return int(ask(server, "rows"))


def tables(server: MovedWorker, key: SessionKey) -> set[str]:
    return set(ask(server, f"tables/{name_of(key)}").split())


async def test_an_append_writes_a_row_for_each_value_and_one_more(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    await write(backend, key, appends=TURN)
    moved_worker.advance(MINUTE)
    await write(backend, key, appends=TURN)  # tells the directory that a minute has passed
    await asyncio.sleep(0.05)
    head = await read_head(backend, key)
    before = rows_written(moved_worker)
    for version in range(head.version, head.version + 200):
        await write(backend, key, incarnation=head.incarnation, base=version, appends=TURN)
        await backend.read(key, Get(b"log"))
    assert rows_written(moved_worker) - before == 200 * 5


async def test_sliding_expiry_writes_nothing_more(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    await write(backend, key, appends=TURN, expires_in=HOUR)
    await asyncio.sleep(0.05)
    before = rows_written(moved_worker)
    for _ in range(20):
        await write(backend, key, appends=TURN, expires_in=HOUR)
    assert rows_written(moved_worker) - before == 20 * 5


async def test_a_session_in_use_tells_its_directory_once_a_minute(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    await write(backend, key)
    moved_worker.advance(MINUTE)
    before = rows_written(moved_worker)
    for _ in range(10):
        await write(backend, key)
    await asyncio.sleep(0.05)
    commits, listing = 10, rows_written(moved_worker) - before - 10
    # The alarm, the entry and its place by recency, and that the directory has heard of it.
    assert (commits, listing) == (10, 4)


async def test_a_refused_commit_writes_nothing(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    before = rows_written(moved_worker)
    await backend.read(key)
    assert not await backend.delete(key, id=new_id())
    with pytest.raises(TooLarge):
        await write(backend, key, puts=((b"a", b"x" * 1_990_001),))
    assert rows_written(moved_worker) == before
    assert not moved_worker.file(key).exists() or moved_worker.items(key) == {}


async def test_the_longest_value_is_kept_under_the_longest_key(
    backend: Backend, key: SessionKey
) -> None:
    longest = backend.capabilities.max_item_bytes
    made = await write(backend, key, puts=((b"k" * 512, b"v" * longest),))
    stage = new_id()
    await backend.stage(key, made.incarnation, stage, ((b"s" * 512, b"w" * longest),))
    await write(backend, key, stages=(stage,))
    found = await read_values(backend, key)
    assert {k[:1]: (len(k), len(v)) for k, v in found.items()} == {
        b"k": (512, longest),
        b"s": (512, longest),
    }


async def test_an_object_out_of_memory_is_as_it_was(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    commit = new_commit(appends=TURN, meta=b"m", labels=("l", "ü"), expires_in=HOUR)
    first = await backend.commit(key, commit)
    stage = new_id()
    await backend.stage(key, first.incarnation, stage, ((b"part", b"p"),))
    values = await read_values(backend, key)
    for _ in range(3):
        moved_worker.evict(key)
        assert await read_head(backend, key) == first.head
        moved_worker.evict(key)
        assert (await backend.commit(key, resent(commit))).replayed
        moved_worker.evict(key)
        assert await read_values(backend, key) == values
    moved_worker.evict(key)
    assert (await write(backend, key, stages=(stage,))).version == 2
    moved_worker.evict(key)
    assert await backend.delete(key, id=new_id())
    moved_worker.evict(key)
    assert (await backend.commit(key, commit)).replayed
    assert (await backend.read(key)).head is None


async def test_an_expired_session_goes_though_nobody_asks(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    await write(backend, key, appends=TURN, expires_in=HOUR)
    moved_worker.evict(key)
    moved_worker.advance(HOUR - MINUTE)
    assert len(moved_worker.items(key)) == 4
    moved_worker.advance(MINUTE)
    assert moved_worker.items(key) == {}
    assert await list_ids(backend, key) == []


async def test_nothing_is_left_once_the_tombstone_has_lapsed(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    commit = resent(new_commit(appends=TURN))
    made = await backend.commit(key, commit)
    await backend.stage(key, made.incarnation, new_id(), ((b"part", b"p"),))
    await backend.stage(key, new_id(), new_id(), ((b"part", b"p"),))
    await backend.delete(key, id=new_id())
    moved_worker.advance(MINUTE)
    assert len(moved_worker.items(key)) == 1
    moved_worker.advance(TOMBSTONE_MS - 2 * MINUTE)
    assert (await backend.commit(key, commit)).replayed
    assert "lives" in tables(moved_worker, key)
    moved_worker.advance(HOUR)
    assert tables(moved_worker, key) == set()
    assert (await write(backend, key)).version == 1
    assert await list_ids(backend, key) == [key.id]


async def test_tenants_and_kinds_without_sessions_go_after_a_while(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    other = SessionKey(key.tenant, "other", "o")
    await write(backend, key)
    await write(backend, other)
    await backend.delete(key, id=new_id())
    assert (await backend.kinds(key.tenant)).items == ("other", "session")
    moved_worker.advance(HOUR + MINUTE)
    assert (await backend.kinds(key.tenant)).items == ("other",)
    await write(backend, key)
    assert (await backend.kinds(key.tenant)).items == ("other", "session")
    for each in (key, other):
        await backend.delete(each, id=new_id())
    moved_worker.advance(HOUR + MINUTE)
    moved_worker.advance(HOUR + MINUTE)
    assert (await backend.kinds(key.tenant)).items == ()
    assert key.tenant not in (await backend.tenants(cursor=key.tenant[:-1])).items
    await write(backend, key)
    assert (await backend.kinds(key.tenant)).items == ("session",)
    assert await list_ids(backend, key) == [key.id]


async def test_what_the_directory_did_not_hear_it_is_told_again(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    deleted = SessionKey(key.tenant, key.kind, "deleted")
    await write(backend, deleted, labels=("l",))
    ask(moved_worker, "directories/fail")
    try:
        await write(backend, key, labels=("l",))
        await backend.delete(deleted, id=new_id())
        assert await list_ids(backend, key) == []
        moved_worker.evict(key)
        moved_worker.advance(MINUTE)
        moved_worker.advance(MINUTE)
        assert await list_ids(backend, key) == []
    finally:
        ask(moved_worker, "directories/work")
    moved_worker.advance(MINUTE)
    for query in (ListQuery(), ListQuery(label="l"), ListQuery(order=Order.RECENCY)):
        page = await backend.list(key.tenant, key.kind, query)
        assert [entry.key.id for entry in page.items] == [key.id]
    assert (await backend.kinds(key.tenant)).items == (key.kind,)
    assert (await backend.tenants(cursor=key.tenant[:-1])).items[0] == key.tenant


async def test_lists_are_long(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    """Longer than the page that a server gives at once, and with many that have gone."""
    ids = [f"{n:04}" for n in range(230)]
    for start in range(0, len(ids), 23):
        await asyncio.gather(
            *(
                write(
                    backend, SessionKey(key.tenant, key.kind, id), expires_in=1 + HOUR * (n % 2)
                )
                for n, id in enumerate(ids[start : start + 23], start)
            )
        )
    await asyncio.sleep(0.01)
    living = ids[1::2]
    assert await list_ids(backend, key, limit=1000) == living
    assert await list_ids(backend, key, limit=50) == living
    recent = await list_ids(backend, key, limit=70, order=Order.RECENCY)
    assert sorted(recent) == living


async def test_an_answer_has_an_end(backend: Backend, key: SessionKey) -> None:
    """However many large items are asked for at once."""
    value = b"v" * 1_900_000
    for n in range(4):
        await write(backend, key, puts=tuple((b"%d%d" % (n, m), value) for m in range(4)))
    scans = [Scan(max_bytes=1)] * 12
    found = await backend.read(key, *scans)
    assert all(len(rows.items) == 1 and rows.more for rows in found.rows)
    whole = await backend.read(key, Scan(), Scan(), Scan(), Scan())
    assert sum(len(rows.items) for rows in whole.rows) <= 20
    assert all(rows.items and rows.more for rows in whole.rows)
    with pytest.raises(TooLarge):
        await backend.read(key, *[Get(b"00")] * 40)
    with pytest.raises(TooLarge):
        await write(backend, key, puts=((b"new", b""),), returning=(Get(b"00"),) * 40)
    assert (await read_head(backend, key)).version == 4


async def test_an_expiry_may_be_in_any_year(
    backend: Backend, key: SessionKey, moved_worker: MovedWorker
) -> None:
    """Though no alarm can be set for it."""
    for expires_at in (2**53 - 1, 10**13, 10**12 * 8):
        made = await write(backend, key, expires_at=expires_at)
        assert made.head is not None
        assert made.head.expires_at == expires_at
        moved_worker.advance(MINUTE)
        moved_worker.evict(key)
        assert (await backend.read(key)).head == made.head
