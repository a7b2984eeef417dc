"""The SQLite backend: one file, one writing thread, readers beside it."""

import asyncio
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from perdure.backend import (
    Backend,
    Capabilities,
    Description,
    Durability,
)
from perdure.errors import OutcomeUnknown, StoreClosed
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    HeadEntry,
    ListQuery,
    Page,
    Read,
    SessionKey,
    Snapshot,
    same_state,
)

from perdure_sqlite import listing, operations
from perdure_sqlite.file import FIXED_WAL_RESET, FORMAT, DatabaseFile, Synchronous
from perdure_sqlite.readers import Readers
from perdure_sqlite.reading import MAX_READ_BYTES, Steps, snapshot
from perdure_sqlite.watch import Waiter, Watcher
from perdure_sqlite.writer import Writer

FORK_SECONDS = 5.0
"""How long a fork waits for what uses a connection."""

SWEEP_STEP = 100
"""How many things one transaction of a sweep removes at most."""

_DURABILITY: dict[Synchronous, str] = {
    "full": "An acknowledged commit is in the write-ahead log and synced to the disk "
    "(WAL, synchronous=FULL): it survives a power loss if the disk keeps what it has synced.",
    "normal": "An acknowledged commit is in the write-ahead log but not yet synced (WAL, "
    "synchronous=NORMAL): it survives a crash of any process, but the last ones may be lost "
    "with the operating system or the power.",
}


def now_ms() -> int:
    """This host's clock."""
    return time.time_ns() // 1_000_000


class SqliteBackend(Backend):
    """Sessions in the SQLite file at ``path``, shared by all processes that open it.

    ``synchronous``: ``"full"`` survives a power loss, ``"normal"`` perhaps not. ``clock`` gives
    ms since the epoch and must be the same for all who share the file. ``setup=False`` never
    creates the file or its tables. ``timeout``: for how many seconds to try while another
    process holds the write lock, before ``Unavailable``.

    Short reads are answered on the calling thread: they take less than going to another.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "full",
        clock: Callable[[], int] = now_ms,
        setup: bool = True,
        timeout: float = 10.0,
    ) -> None:
        # Absolute now: a later change of directory must not make it another file.
        self._file = DatabaseFile(
            Path(path).absolute(), synchronous=synchronous, setup=setup, timeout=timeout
        )
        self._clock = clock
        self._readers = Readers(self._file)
        self._watcher = Watcher(self._file)
        self._writer = Writer(
            self._file,
            clock,
            committed=self._watcher.committed,
            upkeep=operations.purge,
            broken=partial(_reconnect, self._readers, self._watcher),
        )
        self._open = False
        self._closed = False
        self._inherited = False
        self.capabilities = Capabilities(
            max_item_bytes=16 << 20,
            max_commit_bytes=64 << 20,
            max_commit_items=10_000,
            max_read_bytes=MAX_READ_BYTES,
            recency_lag=operations.RECENCY_LAG,
            durability=Durability.HOST if synchronous == "full" else Durability.PROCESS,
            durability_note=_DURABILITY[synchronous],
        )
        self._abandoned = weakref.finalize(self, _abandon, self._writer, self._watcher)
        self._abandoned.atexit = False
        _live[id(self)] = self

    async def open(self) -> None:
        self._check_usable()
        if not self._open:
            await self._writer.open()
            self._open = not self._closed

    async def describe(self) -> Description:
        await self.open()
        return await self._readers.run(self._describe)

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        if not self._open:
            await self.open()
        return await self._readers.run(lambda db: snapshot(db, self._clock, key, reads))

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self._check_usable()
        size = sum([len(value) for _, value in commit.puts])
        for append in commit.appends:
            size += sum([len(value) for value in append.values])
        try:
            return await self._writer.submit(
                lambda tx: operations.commit(tx, key, commit), key, size
            )
        except OutcomeUnknown as error:
            error.commit = commit
            raise

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self._check_usable()
        size = sum([len(value) for _, value in puts])
        await self._writer.submit(
            lambda tx: operations.stage(tx, key, incarnation, stage, puts), size=size
        )

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        if expect is Expect.ABSENT:
            raise ValueError("deleting a session that is expected to be absent")
        self._check_usable()
        return await self._writer.submit(
            lambda tx: operations.delete(tx, key, id, expect, incarnation), key
        )

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        await self.open()
        return await self._readers.run(
            lambda db: listing.sessions(db, self._clock(), tenant, kind, query)
        )

    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        await self.open()
        return await self._readers.run(lambda db: listing.tenants(db, cursor, limit))

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        await self.open()
        return await self._readers.run(lambda db: listing.kinds(db, tenant, cursor, limit))

    async def sweep(self, *, limit: int = 1000) -> int:
        self._check_usable()
        removed = 0
        while removed < limit:
            step = min(SWEEP_STEP, limit - removed)
            swept = await self._writer.submit(partial(operations.sweep, limit=step))
            if not swept:
                break
            removed += swept
        return removed

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        await self.open()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            waiter = Waiter(after)
            self._watcher.add(key, waiter)
            try:
                snapshot = await self.read(key)
                head = snapshot.head
                left = deadline - loop.time()
                if left <= 0 or not same_state(head, after):
                    return head
                if head is not None and head.expires_at is not None:
                    left = min(left, (head.expires_at - snapshot.now) / 1000)
                await asyncio.wait((waiter.future,), timeout=left)
            finally:
                self._watcher.remove(key, waiter)

    async def aclose(self) -> None:
        if not self._inherited:
            self._open = False
            self._closed = True
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._watcher.stop()
        self._writer.stop()
        self._watcher.join()
        self._writer.join()
        self._readers.close()
        self._abandoned.detach()

    def _check_usable(self) -> None:
        if self._inherited:
            raise StoreClosed(
                f"{self._file.path}: opened by the process that this one was forked from; "
                "open it anew in this process"
            )
        if self._closed:
            raise StoreClosed(f"{self._file.path}: this backend was closed")

    def _describe(self, db: sqlite3.Connection) -> Steps[Description]:
        yield  # never in a hurry
        (mode,) = db.execute("PRAGMA journal_mode").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        details = {
            "sqlite": sqlite3.sqlite_version,
            "journal mode": mode,
            "synchronous": self._file.synchronous,
            "format": str(FORMAT),
            "size": f"{pages * page_size} bytes",
        }
        if sqlite3.sqlite_version_info < FIXED_WAL_RESET:
            details["warning"] = (
                f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug, fixed in 3.51.3 "
                "(https://sqlite.org/wal.html#walresetbug). perdure's own checkpoints avoid "
                "it; let no other program write to or checkpoint this file."
            )
        return Description(
            backend="sqlite",
            location=str(self._file.path),
            durability=self.capabilities.durability_note,
            details=details,
        )

    def prepare_fork(self) -> None:
        """Called before this process forks: close all connections. See :mod:`.gate`.

        If somebody uses one for longer than ``FORK_SECONDS``, they stay open, and the child
        cannot use the file.
        """
        if self._inherited:  # whoever used it may have held its locks, and is not here
            return
        self._file.gate.shut()
        self._readers.suspend_no_longer()
        if self._file.gate.emptied(FORK_SECONDS):
            self._watcher.disconnect()
            self._writer.disconnect()
            self._readers.drop_idle()

    def resume(self) -> None:
        """Called after this process has forked."""
        if not self._inherited:
            self._file.gate.open()

    def disown(self) -> None:
        """Called in a process forked from the one that made this backend."""
        self._open = False
        self._inherited = True
        self._abandoned.detach()
        connections = (
            *self._writer.connections(),
            *self._watcher.connections(),
            *self._readers.connections(),
        )
        if connections:
            import ctypes  # hardly ever needed

            # Not even closing is safe here (https://sqlite.org/howtocorrupt.html, 2.6), and
            # that is what happens to a connection that nothing refers to: so something must.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connections))
            self._file.forbid()


def _reconnect(readers: Readers, watcher: Watcher) -> None:
    """The writer has given up its connection: all others go too."""
    readers.drop_idle()
    watcher.reconnect()


def _abandon(writer: Writer, watcher: Watcher) -> None:
    """A backend was dropped without being closed: let its threads end."""
    watcher.stop()
    writer.stop()


_live: weakref.WeakValueDictionary[int, SqliteBackend] = weakref.WeakValueDictionary()
_forking = threading.RLock()
_prepared: list[SqliteBackend] = []
"""Those whose gates are shut. For who holds the lock: of two threads that fork, the first would
else open the gates before the second has forked."""


def _living() -> list[SqliteBackend]:
    """All there are, while other threads make more: a copy that nobody can come between."""
    found = [reference() for reference in _live.valuerefs()]
    return [backend for backend in found if backend is not None]


def _before_fork() -> None:
    _forking.acquire()
    _prepared.extend(_living())
    for backend in _prepared:
        backend.prepare_fork()


def _after_fork_in_parent() -> None:
    while _prepared:
        _prepared.pop().resume()
    with suppress(RuntimeError):  # this module was imported while the process forked
        _forking.release()


def _after_fork_in_child() -> None:
    for backend in _living():
        backend.disown()
    _prepared.clear()
    with suppress(RuntimeError):
        _forking.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
