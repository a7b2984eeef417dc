"""Which reads keep the event loop waiting, and that none shows a torn session."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from perdure.testing.shorthand import write
from perdure.types import Append, Get, Scan, SessionKey, Snapshot

from perdure_sqlite.backend import SqliteBackend
from perdure_sqlite.readers import SUSPENDED, THREADS
from perdure_sqlite.reading import SHORT_BYTES, SHORT_ROWS
from tests.backends.sqlite.conftest import Connect


class Threads:
    """Counts the reads that were moved to another thread."""

    def __init__(self, backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved = 0
        run = backend._readers._run

        def note(*args: Any) -> None:
            assert threading.current_thread() is not threading.main_thread()
            self.moved += 1
            run(*args)

        monkeypatch.setattr(backend._readers, "_run", note)


@pytest.fixture
async def session(backend: SqliteBackend, key: SessionKey) -> SessionKey:
    """1000 log rows of 3000 bytes, and a few cells."""
    await write(backend, key, puts=tuple((b"c%d" % n, b"cell") for n in range(9)))
    for _ in range(10):
        await write(backend, key, appends=(Append(b"l", (b"." * 3000,) * 100),))
    return key


async def test_short_reads_stay_and_long_ones_move(
    backend: SqliteBackend, session: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(backend, monkeypatch)
    await backend.read(session)
    await backend.read(session, Get(b"c1"), Get(b"c2"), Scan(b"c", b"d"))
    await backend.read(session, Scan(b"l", b"m", limit=20, reverse=True))
    await backend.read(session, Scan(b"l", b"m", since=11))
    await backend.read(session, Scan(b"l", b"m", since=10, limit=50))
    assert threads.moved == 0
    (rows,) = (await backend.read(session, Scan(b"l", b"m"))).rows
    assert threads.moved == 1
    assert len(rows.items) == 1000
    assert not rows.more
    await backend.read(session, *[Scan(b"l", b"m", limit=20)] * 8)
    assert threads.moved == 2, "many short scans are a long read"
    await backend.read(session, *[Get(b"c1")] * (SHORT_ROWS + 1))
    assert threads.moved == 3


async def test_a_session_with_a_very_long_value_is_read_elsewhere(
    backend: SqliteBackend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(backend, key, puts=((b"a", b"." * SHORT_BYTES),))
    threads = Threads(backend, monkeypatch)
    await backend.read(key, Get(b"a"))
    assert threads.moved == 0
    stage = b"s" * 16
    head = (await backend.read(key)).head
    assert head is not None
    await backend.stage(key, head.incarnation, stage, ((b"b", b"." * (SHORT_BYTES + 1)),))
    await write(backend, key, stages=(stage,))
    for read in (Get(b"b"), Scan()):
        await backend.read(key, read)
    assert threads.moved == 2
    await backend.read(key)
    assert threads.moved == 2


async def test_a_long_read_sees_one_version_while_others_write(
    backend: SqliteBackend, session: SessionKey
) -> None:
    async def rewrite() -> None:
        for n in range(40):
            value = b"%d" % n
            await write(backend, session, puts=((b"a", value), (b"z", value)))

    writing = asyncio.create_task(rewrite())
    seen: set[int] = set()
    while not writing.done():
        snapshot = await backend.read(session, Get(b"a"), Scan(b"l", b"m"), Get(b"z"))
        assert snapshot.head is not None
        seen.add(snapshot.head.version)
        first, log, last = snapshot.rows
        assert [item.value for item in first.items] == [item.value for item in last.items]
        assert all(
            i.version <= snapshot.head.version for rows in (first, last) for i in rows.items
        )
        assert len(log.items) == 1000
    await writing
    assert len(seen) > 1


async def test_many_long_reads_share_a_few_connections(
    backend: SqliteBackend, session: SessionKey
) -> None:
    tasks = [asyncio.create_task(backend.read(session, Scan())) for _ in range(60)]
    for task in tasks[::3]:
        await asyncio.sleep(0)
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    for n, snapshot in enumerate(done):
        if n % 3:
            assert isinstance(snapshot, Snapshot)
            assert len(snapshot.rows[0].items) == 1009
    for _ in range(200):
        if backend._readers._places._value == SUSPENDED:
            break
        await asyncio.sleep(0.01)
    assert len(backend._readers.connections()) <= SUSPENDED + THREADS + 1
    for db in backend._readers.connections():
        assert not db.in_transaction


async def test_reads_go_on_while_another_holds_the_write_lock(
    connect: Connect, path: Path, session: SessionKey
) -> None:
    backend = connect()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert (await backend.read(session, Get(b"c1"))).rows[0].items[0].value == b"cell"
    other.execute("ROLLBACK")
    other.close()


async def test_what_is_read_is_bounded_by_max_read_bytes(
    backend: SqliteBackend, key: SessionKey
) -> None:
    most = backend.capabilities.max_read_bytes
    for n in range(5):
        await write(backend, key, puts=((b"%d" % n, b"." * (most // 4 + 1)),))
    (rows,) = (await backend.read(key, Scan())).rows
    assert [item.key for item in rows.items] == [b"0", b"1", b"2", b"3"]
    assert rows.more
    (rows,) = (await backend.read(key, Scan(reverse=True))).rows
    assert [item.key for item in rows.items] == [b"4", b"3", b"2", b"1"]
    assert rows.more
