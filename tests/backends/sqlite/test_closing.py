"""The end of a backend."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path

import pytest

from perdure.errors import StoreClosed
from perdure.testing.shorthand import new_id, read_values, write
from perdure.types import ListQuery, Scan, SessionKey

from perdure_sqlite.backend import SqliteBackend
from tests.backends.sqlite.conftest import Connect, names_in


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("perdure-sqlite")]


async def test_closing_finishes_what_is_under_way(
    backend: SqliteBackend, connect: Connect, key: SessionKey
) -> None:
    await write(backend, key, puts=tuple((b"%03d" % n, b"." * 10_000) for n in range(300)))
    await backend.open()
    writes = [asyncio.create_task(write(backend, key, puts=((b"a", b"1"),))) for _ in range(20)]
    reads = [asyncio.create_task(backend.read(key, Scan())) for _ in range(3)]
    await asyncio.sleep(0)
    await backend.aclose()
    assert [m.version for m in await asyncio.gather(*writes)] == list(range(2, 22))
    for snapshot in await asyncio.gather(*reads):
        assert len(snapshot.rows[0].items) >= 300
    assert (await read_values(connect(), key))[b"a"] == b"1"


async def test_afterwards_everything_says_so(backend: SqliteBackend, key: SessionKey) -> None:
    await write(backend, key)
    await backend.aclose()
    await backend.aclose()
    for operation in (
        backend.open,
        backend.describe,
        lambda: backend.read(key),
        lambda: write(backend, key),
        lambda: backend.stage(key, new_id(), new_id(), ()),
        lambda: backend.delete(key, id=new_id()),
        lambda: backend.list("t", "k", ListQuery()),
        backend.tenants,
        lambda: backend.kinds("t"),
        backend.sweep,
        lambda: backend.wait(key, after=None, timeout=1),
    ):
        with pytest.raises(StoreClosed, match="closed"):
            await operation()


async def test_closing_wakes_those_who_wait(backend: SqliteBackend, key: SessionKey) -> None:
    made = await write(backend, key)
    waiting = asyncio.create_task(backend.wait(key, after=made.head, timeout=60))
    await asyncio.sleep(0.05)
    await backend.aclose()
    with pytest.raises(StoreClosed):
        await asyncio.wait_for(waiting, 5)


async def test_closing_ends_the_threads_and_merges_the_log(
    backend: SqliteBackend, path: Path, key: SessionKey
) -> None:
    await write(backend, key, puts=tuple((b"%03d" % n, b"." * 10_000) for n in range(300)))
    await backend.read(key, Scan())
    await backend.wait(key, after=None, timeout=1)
    assert len(threads()) >= 3
    await backend.aclose()
    assert threads() == []
    assert names_in(path.parent) == [path.name]


async def test_closing_what_was_never_used(path: Path) -> None:
    await SqliteBackend(path).aclose()
    assert names_in(path.parent) == []


async def test_a_backend_that_is_dropped_ends_its_threads(path: Path, key: SessionKey) -> None:
    backend = SqliteBackend(path)
    made = await write(backend, key)
    await backend.wait(key, after=made.head, timeout=0)
    gone = weakref.ref(backend)
    connections = [*backend._writer.connections(), *backend._readers.connections()]
    del backend
    gc.collect()
    assert gone() is None
    for _ in range(200):
        if not threads():
            break
        await asyncio.sleep(0.01)
    assert threads() == []
    for connection in connections:  # those that it lent nobody would be a warning's reason
        connection.close()
