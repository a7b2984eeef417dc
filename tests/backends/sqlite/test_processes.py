"""Several processes on one file: crashes, forks, waiting."""

import asyncio
import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from perdure.errors import StoreClosed
from perdure.testing.shorthand import new_id, read_head, read_items, write
from perdure.types import Append, Head, SessionKey, append_key

from perdure_sqlite.backend import SqliteBackend
from tests.backends.sqlite.children import LOG, begin, line, spawn
from tests.backends.sqlite.conftest import Connect


async def test_a_killed_writer_loses_nothing_acknowledged(path: Path) -> None:
    key = SessionKey("t", "session", "stream")
    acknowledged: dict[int, bytes] = {}
    for acks in (3, 40, 150):
        child = await spawn("stream", path)
        await begin(child)
        for _ in range(acks):
            version, value = (await line(child)).split()
            acknowledged[int(version)] = bytes.fromhex(value)
        child.kill()
        assert child.stdout is not None
        # What it could still say before the signal came counts too, but for a torn last line.
        for rest in (await child.stdout.read()).splitlines(keepends=True):
            if rest.endswith(b"\n"):
                version, value = rest.decode().split()
                acknowledged[int(version)] = bytes.fromhex(value)
        await child.wait()
        backend = SqliteBackend(path)
        items = {item.version: item for item in await read_items(backend, key)}
        for version, value in acknowledged.items():
            assert items[version].key == append_key(LOG, version, 0)
            assert items[version].value[:16] == value
        head = await read_head(backend, key)
        assert list(items) == list(range(1, head.version + 1))
        assert head.version - len(acknowledged) <= 3  # at most one under way per life
        await backend.aclose()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_waiting_notices_another_process(
    backend: SqliteBackend, path: Path, key: SessionKey
) -> None:
    child = await spawn("append_once", path)
    made = await write(backend, key)
    bystander = SessionKey("tenant", "session", "bystander")
    nobody = asyncio.create_task(backend.wait(bystander, after=None, timeout=60))
    waiting = asyncio.create_task(backend.wait(key, after=made.head, timeout=20))
    await begin(child)
    assert await line(child) == "2"
    acknowledged = time.perf_counter()
    head = await waiting
    assert time.perf_counter() - acknowledged < 2
    assert head is not None
    assert head.version == 2
    assert not nobody.done()
    nobody.cancel()
    assert await child.wait() == 0


async def test_waiting_notices_what_came_between_reading_and_waiting(
    backend: SqliteBackend, connect: Connect, key: SessionKey
) -> None:
    other = connect()
    seen: Head | None = None
    for _ in range(20):
        seen_before = seen
        made = await write(other, key)
        seen = await asyncio.wait_for(backend.wait(key, after=seen_before, timeout=20), 5)
        assert seen == made.head


async def test_a_commit_of_this_process_wakes_without_polling(
    backend: SqliteBackend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure_sqlite.watch.POLL_INTERVAL", 60)
    made = await write(backend, key)
    for _ in range(5):
        waiting = asyncio.create_task(backend.wait(key, after=made.head, timeout=60))
        await asyncio.sleep(0.02)
        made = await write(backend, key)
        assert await asyncio.wait_for(waiting, 10) == made.head
    waiting = asyncio.create_task(backend.wait(key, after=made.head, timeout=60))
    await asyncio.sleep(0.02)
    await backend.delete(key, id=new_id())
    assert await asyncio.wait_for(waiting, 10) is None


@pytest.mark.skipif(
    not hasattr(time, "pthread_getcpuclockid"), reason="no clock of a thread's own"
)
async def test_nobody_waiting_means_nobody_polling(
    backend: SqliteBackend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure_sqlite.watch.POLL_INTERVAL", 0.000_2)
    made = await write(backend, key)

    def spent() -> float:
        thread = backend._watcher._thread
        assert thread is not None
        assert thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))

    await backend.wait(key, after=made.head, timeout=0.2)
    busy = spent()
    await asyncio.sleep(0.2)
    assert spent() - busy < busy / 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_fork_may_not_use_the_backend_and_does_not_harm_it(
    backend: SqliteBackend, path: Path, key: SessionKey
) -> None:
    await write(backend, key)
    await backend.read(key)
    child = os.fork()
    if child == 0:
        os._exit(use_in_fork(backend, path, key))
    for _ in range(50):
        await write(backend, key, appends=(Append(LOG, (b"x" * 3000,)),))
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (await read_head(backend, key)).version == 51
    assert (await read_head(backend, SessionKey("t", "session", "of-child"))).version == 1
    await backend.aclose()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def use_in_fork(backend: SqliteBackend, path: Path, key: SessionKey) -> int:
    """What the child process does; its exit code."""
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(None)  # the parent's, which does not run here
    for operation in (
        lambda: backend.read(key),
        lambda: write(backend, key),
        lambda: backend.delete(key, id=new_id()),
        lambda: backend.wait(key, after=None, timeout=1),
        backend.open,
    ):
        try:
            loop.run_until_complete(operation())
        except StoreClosed as error:
            if "forked" not in str(error):
                return 2
        else:
            return 3
    loop.run_until_complete(backend.aclose())
    own = SqliteBackend(path)
    loop.run_until_complete(write(own, SessionKey("t", "session", "of-child")))
    loop.run_until_complete(own.aclose())
    return 0


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
async def test_a_disk_that_fills_up_loses_nothing_and_works_again(path: Path) -> None:
    child = await spawn("fill", path)
    await begin(child)
    assert await line(child) == "NOT_APPLIED"
    assert await line(child) == "1"
    assert await child.wait() == 0


async def test_a_backend_that_nobody_closes_does_not_keep_the_process(path: Path) -> None:
    child = await spawn("leave_open", path)
    await begin(child)
    assert await line(child) == "left"
    assert await asyncio.wait_for(child.wait(), 10) == 0
