"""Large things: removed in steps, unseen; written and adopted whole."""

from typing import Any

import psycopg
import pytest

from perdure.errors import StageMissing
from perdure.testing.shorthand import new_commit, new_id, read_items, read_values, write
from perdure.types import Append, Item, KeyRange, Scan, SessionKey, append_key

from perdure_postgres import removal
from perdure_postgres.backend import PostgresBackend
from tests.backends.postgres.conftest import Connect

Connection = psycopg.AsyncConnection[Any]
MIB = 1 << 20


async def fill(backend: PostgresBackend, key: SessionKey, count: int) -> bytes:
    """Make a session of so many items; its incarnation."""
    made = await write(backend, key, puts=tuple((b"%06d" % n, b"v") for n in range(count)))
    return made.incarnation


async def sid_of(db: Connection, key: SessionKey) -> int:
    cursor = await db.execute("SELECT sid FROM sessions WHERE tenant = %s", (key.tenant,))
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def left(db: Connection, sid: int) -> int:
    cursor = await db.execute("SELECT count(*) FROM items WHERE sid = %s", (sid,))
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("count", [0, 9, 10, 11, 35])
async def test_a_deletion_removes_all_items_in_steps(
    backend: PostgresBackend,
    db: Connection,
    key: SessionKey,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    monkeypatch.setattr(removal, "PURGE_STEP", 10)
    incarnation = await fill(backend, key, count)
    await backend.stage(key, incarnation, new_id(), tuple((b"%d" % n, b"") for n in range(12)))
    sid = await sid_of(db, key)
    assert await backend.delete(key, id=new_id())
    assert await left(db, sid) == 0
    cursor = await db.execute("SELECT count(*) FROM discarded WHERE tenant = %s", (key.tenant,))
    assert await cursor.fetchone() == (0,)


async def test_what_a_deletion_left_behind_goes_with_the_sweep(
    backend: PostgresBackend, db: Connection, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that deleted died before it had removed everything."""
    await fill(backend, key, 30)
    sid = await sid_of(db, key)

    async def die(*_: object) -> None: ...

    monkeypatch.setattr(removal, "PURGE_STEP", 10)
    with monkeypatch.context() as patch:
        patch.setattr(removal, "_purge", die)
        assert await backend.delete(key, id=new_id())
    assert (await backend.read(key, Scan())).head is None
    assert await left(db, sid) == 20
    await write(backend, key, puts=((b"a", b"successor"),))
    while await backend.sweep():
        pass
    assert await left(db, sid) == 0
    assert await read_values(backend, key) == {b"a": b"successor"}


async def test_a_deletion_is_one_though_not_all_its_items_can_be_removed(
    connect: Connect, db: Connection, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first transaction has deleted the session; the second never gets a lock."""
    monkeypatch.setattr(removal, "PURGE_STEP", 10)
    backend = connect(timeout=0.4)
    await fill(backend, key, 30)
    sid = await sid_of(db, key)
    async with db.transaction():
        await db.execute(
            "SELECT FROM items WHERE sid = %s AND key = %s FOR UPDATE", (sid, b"000015")
        )
        assert await backend.delete(key, id=new_id())
    assert (await backend.read(key)).head is None
    assert await left(db, sid) == 20
    while await backend.sweep():
        pass
    assert await left(db, sid) == 0


async def test_a_session_over_an_expired_one_leaves_its_items_to_the_sweep(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    await fill(backend, key, 5)
    sid = await sid_of(db, key)
    await db.execute("UPDATE sessions SET expires_at = 1 WHERE tenant = %s", (key.tenant,))
    await write(backend, key, puts=((b"a", b"successor"),))
    assert await read_values(backend, key) == {b"a": b"successor"}
    while await backend.sweep():
        pass
    assert await left(db, sid) == 0
    assert await read_values(backend, key) == {b"a": b"successor"}


async def test_a_commit_as_large_as_declared(backend: PostgresBackend, key: SessionKey) -> None:
    capabilities = backend.capabilities
    long = bytes(capabilities.max_item_bytes - 10_000)
    made = await write(backend, key, puts=((b"long", long),))
    count = capabilities.max_commit_items - 2
    made = await write(
        backend,
        key,
        incarnation=made.incarnation,
        base=1,
        appends=(Append(b"log", (b"x" * 1000,) * (count // 2)),),
        puts=tuple((b"p%d" % n, b"y" * 100) for n in range(count // 2)),
    )
    items = {item.key: item for item in await read_items(backend, key)}
    assert len(items) == count + 1
    assert items[b"long"].value == long
    assert items[append_key(b"log", 2, count // 2 - 1)].version == made.version


async def test_many_ranges_and_keys_are_deleted_at_once(
    backend: PostgresBackend, key: SessionKey
) -> None:
    await fill(backend, key, 2000)
    deletes: list[bytes | KeyRange] = [b"%06d" % n for n in range(0, 1000, 2)]
    deletes += [KeyRange(b"%06d" % n, b"%06d" % (n + 15)) for n in range(1000, 2000, 10)]
    kept = tuple((b"%06d" % n, b"kept") for n in range(0, 2000, 500))
    await write(backend, key, deletes=tuple(deletes), puts=kept)
    expected = {b"%06d" % n: b"v" for n in range(1, 1000, 2)} | dict(kept)
    assert await read_values(backend, key) == expected


async def test_parts_that_a_commit_overwrites_are_gone(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    made = await write(backend, key, puts=((b"a", b"old"), (b"b", b"old"), (b"c", b"old")))
    first, second = new_id(), new_id()
    await backend.stage(
        key, made.incarnation, first, ((b"a", b"1"), (b"b", b"1"), (b"x", b"1"))
    )
    await backend.stage(key, made.incarnation, second, ((b"b", b"2"), (b"y", b"2")))
    await write(backend, key, stages=(first, second), puts=((b"a", b"put"), (b"y", b"put")))
    assert await read_items(backend, key) == [
        Item(b"a", b"put", 2),
        Item(b"b", b"2", 2),
        Item(b"c", b"old", 1),
        Item(b"x", b"1", 2),
        Item(b"y", b"put", 2),
    ]
    cursor = await db.execute("SELECT count(*) FROM stages WHERE tenant = %s", (key.tenant,))
    assert await cursor.fetchone() == (0,)
    cursor = await db.execute(
        "SELECT count(*) FROM items WHERE sid < 0 AND sid NOT IN (SELECT sid FROM stages) "
        "AND sid NOT IN (SELECT sid FROM discarded)"
    )
    assert await cursor.fetchone() == (0,)


async def test_a_repeat_adopts_nothing_that_was_staged_since(
    backend: PostgresBackend, key: SessionKey
) -> None:
    stage = new_id()
    commit = new_commit(stages=(stage,), puts=((b"a", b"1"),))
    await backend.stage(key, commit.new_incarnation, stage, ((b"part", b"1"),))
    made = await backend.commit(key, commit)
    await backend.stage(key, made.incarnation, stage, ((b"part", b"2"), (b"late", b"2")))
    assert (await backend.commit(key, commit)).replayed
    assert await read_values(backend, key) == {b"a": b"1", b"part": b"1"}
    await write(backend, key, stages=(stage,))
    assert await read_values(backend, key) == {b"a": b"1", b"part": b"2", b"late": b"2"}
    with pytest.raises(StageMissing):
        await write(backend, key, stages=(stage,))


async def test_adopting_does_not_write_long_values_again(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    made = await write(backend, key)
    stage = new_id()
    for n in range(8):
        await backend.stage(key, made.incarnation, stage, ((b"%d" % n, bytes(2 * MIB)),))
    before = await log_position(db)
    await write(backend, key, stages=(stage,))
    assert await log_position(db) - before < MIB
    (rows,) = (await backend.read(key, Scan())).rows
    assert [len(item.value) for item in rows.items] == [2 * MIB] * 8


async def log_position(db: Connection) -> int:
    """Bytes of write-ahead log ever written."""
    cursor = await db.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]
