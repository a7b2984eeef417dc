"""Many commits, one transaction, and none that harms another."""

import asyncio
import functools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import CommitIdReused, Conflict, OutcomeUnknown, Unavailable
from perdure.testing.shorthand import (
    new_commit,
    other_content,
    read_head,
    read_values,
    resent,
    write,
)
from perdure.types import Append, Condition, Expect, SessionKey

from perdure_sqlite.backend import SqliteBackend
from perdure_sqlite.jobs import Transaction
from tests.backends.sqlite.conftest import Connect


def keys(count: int) -> list[SessionKey]:
    return [SessionKey("tenant", "session", f"chat-{n}") for n in range(count)]


class Gate:
    """Holds the writer, so that what comes meanwhile waits together."""

    def __init__(self, backend: SqliteBackend) -> None:
        self.opened = threading.Event()
        self.reached = threading.Event()
        self.held = backend._writer.submit(self.hold)

    def hold(self, _: Transaction) -> None:
        self.reached.set()
        assert self.opened.wait(10)

    async def open(self) -> None:
        """Let the writer go once everybody has queued."""
        await asyncio.sleep(0.02)
        self.opened.set()
        await self.held


async def test_what_waits_is_committed_together(backend: SqliteBackend) -> None:
    await backend.open()
    before = backend._writer.transactions
    await asyncio.gather(*(write(backend, key) for key in keys(200)))
    assert backend._writer.transactions - before <= 20
    for key in keys(200):
        assert (await read_head(backend, key)).version == 1


async def test_commits_of_one_session_in_one_transaction_count_up(
    backend: SqliteBackend, key: SessionKey
) -> None:
    made = await asyncio.gather(
        *(write(backend, key, appends=(Append(b"l", (b"%d" % n,)),)) for n in range(50))
    )
    assert sorted(m.version for m in made) == list(range(1, 51))
    items = await read_values(backend, key)
    assert [items[name] for name in sorted(items)] == [b"%d" % n for n in range(50)]


async def test_a_refused_commit_leaves_its_neighbours_alone(backend: SqliteBackend) -> None:
    one, two, three = keys(3)
    used = new_commit()
    await backend.commit(two, used)
    gate = Gate(backend)
    results = asyncio.gather(
        write(backend, one, puts=((b"a", b"1"),)),
        write(backend, two, expect=Expect.ABSENT),
        backend.commit(two, other_content(used)),
        write(backend, two, conditions=(Condition(b"none", 7),), puts=((b"b", b"2"),)),
        write(backend, three, puts=((b"c", b"3"),)),
        return_exceptions=True,
    )
    await gate.open()
    first, conflict, reused, condition, last = await results
    assert isinstance(conflict, Conflict)
    assert isinstance(reused, CommitIdReused)
    assert isinstance(condition, Conflict)
    assert not isinstance(first, BaseException)
    assert not isinstance(last, BaseException)
    assert await read_values(backend, one) == {b"a": b"1"}
    assert await read_values(backend, two) == {}
    assert await read_values(backend, three) == {b"c": b"3"}


async def test_a_commit_that_sqlite_refuses_fails_alone(backend: SqliteBackend) -> None:
    keys_ = keys(5)
    await backend.open()
    gate = Gate(backend)
    tasks = [
        write(backend, key, puts=((b"n", b"%d" % n),), expires_at=2**70 if n == 2 else None)
        for n, key in enumerate(keys_)
    ]
    results = asyncio.gather(*tasks, return_exceptions=True)
    await gate.open()
    outcomes = await results
    assert isinstance(outcomes[2], OverflowError)
    for n, key in enumerate(keys_):
        expected = {} if n == 2 else {b"n": b"%d" % n}
        assert await read_values(backend, key) == expected


async def test_a_cancelled_commit_whose_turn_has_not_come_is_not_run(
    backend: SqliteBackend, key: SessionKey
) -> None:
    await backend.open()
    gate = Gate(backend)
    task = asyncio.create_task(write(backend, key))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gate.open()
    assert (await backend.read(key)).head is None


async def test_cancelling_at_any_moment_leaves_whole_commits(
    backend: SqliteBackend, key: SessionKey
) -> None:
    """Each commit writes two items and a log row: either all are there or none."""
    await backend.open()
    for n in range(150):
        fields = new_commit(
            puts=((b"a%d" % n, b"1"), (b"b%d" % n, b"1")), appends=(Append(b"l", (b"%d" % n,)),)
        )
        task = asyncio.create_task(backend.commit(key, fields))
        await asyncio.sleep(n * 2e-6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    last = await write(backend, key)
    items = await read_values(backend, key)
    numbers = {int(name[1:]) for name in items if name.startswith(b"a")}
    assert numbers == {int(name[1:]) for name in items if name.startswith(b"b")}
    assert numbers == {int(value) for name, value in items.items() if name.startswith(b"l")}
    assert last.version == len(numbers) + 1


async def test_a_lock_held_for_too_long_is_unavailable_and_not_applied(
    connect: Connect, path: Path, key: SessionKey
) -> None:
    backend = connect(timeout=0.2)
    await backend.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked for too long"):
        await write(backend, key)
    assert (await backend.read(key)).head is None  # readers are not in anybody's way
    other.execute("ROLLBACK")
    other.close()
    assert (await write(backend, key)).version == 1


async def test_a_full_database_is_unavailable_and_usable_when_there_is_room(
    backend: SqliteBackend, key: SessionKey
) -> None:
    made = await write(backend, key)
    db = backend._writer._db
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute("PRAGMA max_page_count = 40").fetchone()
    assert pages < 40
    small = SessionKey("tenant", "session", "small")
    gate = Gate(backend)
    results = asyncio.gather(
        write(backend, small, puts=((b"a", b"1"),)),
        write(backend, key, puts=((b"big", b"." * 1_000_000),)),
        return_exceptions=True,
    )
    await gate.open()
    fits, full = await results
    assert not isinstance(fits, BaseException)
    assert isinstance(full, Unavailable)
    assert "disk is full" in str(full)
    assert await read_values(backend, key) == {}
    assert await read_values(backend, small) == {b"a": b"1"}
    db.execute("PRAGMA max_page_count = 1000000").fetchone()
    again = await write(
        backend, key, incarnation=made.incarnation, puts=((b"big", b"." * 1_000_000),)
    )
    assert again.version == 2


class Sabotaged(sqlite3.Connection):
    """A connection on which a COMMIT reports an error, whatever became of it."""

    code = 0
    applied = False
    armed = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql != "COMMIT" or not Sabotaged.armed:
            return super().execute(sql, parameters)
        Sabotaged.armed = False
        super().execute("COMMIT" if Sabotaged.applied else "ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = Sabotaged.code
        error.sqlite_errorname = "SQLITE_IOERR"
        raise error


def sabotage(code: int, *, applied: bool) -> None:
    """Let the next COMMIT report ``code``; ``applied``: it succeeded nevertheless."""
    Sabotaged.code, Sabotaged.applied, Sabotaged.armed = code, applied, True


@pytest.fixture
def sabotaged(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteBackend]:
    ordinary = functools.partial(sqlite3.connect, factory=Sabotaged)
    monkeypatch.setattr("perdure_sqlite.file.sqlite3.connect", ordinary)
    yield connect()
    Sabotaged.armed = False


@pytest.mark.parametrize("applied", [False, True])
async def test_a_failed_sync_leaves_the_outcome_unknown_until_resent(
    sabotaged: SqliteBackend, key: SessionKey, applied: bool
) -> None:
    backend = sabotaged
    made = await write(backend, key)
    commit = new_commit(
        base=1, incarnation=made.incarnation, appends=(Append(b"log", (b"once",)),)
    )
    sabotage(sqlite3.SQLITE_IOERR_FSYNC, applied=applied)
    with pytest.raises(OutcomeUnknown) as caught:
        await backend.commit(key, commit)
    assert caught.value.commit == commit
    assert not caught.value.forgotten
    again = await backend.commit(key, resent(commit))
    assert again.replayed == applied
    assert again.version == 2
    assert list((await read_values(backend, key)).values()) == [b"once"]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
async def test_a_write_that_fails_at_commit_is_tried_alone(
    sabotaged: SqliteBackend, code: int
) -> None:
    gate = Gate(sabotaged)
    made = asyncio.gather(*(write(sabotaged, key) for key in keys(3)))
    gate.held.add_done_callback(lambda _: sabotage(code, applied=False))
    await gate.open()
    assert [m.version for m in await made] == [1, 1, 1]
    sabotage(code, applied=False)
    with pytest.raises(Unavailable, match="nothing was applied"):
        await write(sabotaged, keys(1)[0])
    assert (await read_head(sabotaged, keys(1)[0])).version == 1


async def test_one_backend_serves_several_event_loops(
    backend: SqliteBackend, key: SessionKey
) -> None:
    async def append(count: int) -> None:
        for _ in range(count):
            await write(backend, key, appends=(Append(b"log", (b"x",)),))
            await backend.read(key)

    threads = [threading.Thread(target=asyncio.run, args=(append(50),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    await append(50)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert (await read_head(backend, key)).version == 250


async def test_a_loop_that_ended_early_hurts_nobody(
    backend: SqliteBackend, key: SessionKey
) -> None:
    await backend.open()
    gate = Gate(backend)

    async def leave() -> None:
        asyncio.get_running_loop().call_later(0.01, task_of_loop.append, None)
        task_of_loop.append(asyncio.ensure_future(write(backend, key)))
        await asyncio.sleep(0.02)

    task_of_loop: list[object] = []
    await asyncio.to_thread(asyncio.run, leave())
    await gate.open()
    assert (await write(backend, SessionKey("t", "k", "other"))).version == 1
