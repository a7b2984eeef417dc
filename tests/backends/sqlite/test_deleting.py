"""Deletions, and the removal of what nobody sees any more."""

import asyncio
from pathlib import Path

from perdure.testing import TestClock
from perdure.testing.shorthand import new_id, read_items, write
from perdure.types import Append, SessionKey

from perdure_sqlite.backend import SqliteBackend
from perdure_sqlite.jobs import ITEMS_AT_ONCE
from tests.backends.sqlite.conftest import Connect, size_of


def count(backend: SqliteBackend, table: str) -> int:
    db = backend._readers.acquire()
    try:
        return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        backend._readers.release(db)


async def fill(backend: SqliteBackend, key: SessionKey, items: int) -> None:
    await write(backend, key, appends=(Append(b"l", (b"x",) * items),))


async def test_a_large_session_is_gone_at_once_and_its_items_soon(
    backend: SqliteBackend, key: SessionKey
) -> None:
    for _ in range(4):
        await fill(backend, key, ITEMS_AT_ONCE)
    assert await backend.delete(key, id=new_id())
    assert (await backend.read(key)).head is None
    await fill(backend, key, 3)
    assert len(await read_items(backend, key)) == 3, "a successor has none of its items"
    for _ in range(500):  # what was to be discarded is noted until nothing of it was found
        if count(backend, "items") == 3 and not count(backend, "discarded"):
            break
        await asyncio.sleep(0.01)
    assert count(backend, "items") == 3
    assert count(backend, "discarded") == 0


async def test_what_a_closed_backend_left_is_swept_by_another(
    backend: SqliteBackend, connect: Connect, key: SessionKey
) -> None:
    for _ in range(4):
        await fill(backend, key, ITEMS_AT_ONCE)
    deleting = asyncio.create_task(backend.delete(key, id=new_id()))
    await asyncio.sleep(0)
    backend._writer.stop()
    assert await deleting
    await backend.aclose()
    other = connect()
    await other.open()
    assert count(other, "items") == 3 * ITEMS_AT_ONCE
    swept = 0
    while removed := await other.sweep():
        swept += removed
    assert swept >= 1
    assert count(other, "items") == 0
    assert count(other, "discarded") == 0


async def test_a_sweep_is_done_in_small_transactions(connect: Connect) -> None:
    clock = TestClock()
    backend = connect(clock=clock)
    for n in range(250):
        await write(backend, SessionKey("t", "k", f"{n}"), expires_in=1000)
    clock.advance(1000)
    before = backend._writer.transactions
    assert await backend.sweep(limit=230) == 230
    assert backend._writer.transactions - before >= 3
    assert await backend.sweep() == 20
    assert await backend.sweep() == 0
    assert count(backend, "sessions") == 0


async def test_what_is_staged_for_a_successor_survives_the_expiry(
    connect: Connect, key: SessionKey
) -> None:
    clock = TestClock()
    backend = connect(clock=clock)
    await write(backend, key, expires_in=1000)
    clock.advance(1000)
    stage, incarnation = new_id(), new_id()
    await backend.stage(key, incarnation, stage, ((b"part", b"1"),))
    made = await write(backend, key, new_incarnation=incarnation, stages=(stage,))
    assert made.version == 1
    assert [item.value for item in await read_items(backend, key)] == [b"1"]


async def test_the_log_does_not_grow_for_ever(
    backend: SqliteBackend, path: Path, key: SessionKey
) -> None:
    for _ in range(1500):
        await write(backend, key, puts=((b"a", b"." * 3000),), appends=())
    assert size_of(path.with_name(path.name + "-wal")) < 16 << 20
    assert size_of(path) < 1 << 20


async def test_a_turn_writes_as_much_at_any_length(
    backend: SqliteBackend, path: Path, key: SessionKey
) -> None:
    """Bytes appended to the log per commit, counted while nothing is moved out of it."""
    log = path.with_name(path.name + "-wal")

    async def per_turn() -> float:
        backend._writer._written = -(1 << 40)
        db = backend._writer._db
        assert db is not None
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for _ in range(40):
            await write(backend, key, appends=(Append(b"l", (b"." * 3200,)),))
        return size_of(log) / 40

    await backend.open()
    for _ in range(70):
        await write(backend, key, appends=(Append(b"l", (b"." * 3200,)),))
    early = await per_turn()
    for _ in range(20):
        await write(backend, key, appends=(Append(b"l", (b"." * 3200,) * 50),))
    late = await per_turn()
    assert early < 24_000
    assert late < early * 1.1
