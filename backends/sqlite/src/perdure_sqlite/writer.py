"""The one thread that writes: group commit, and the upkeep of the log.

Everything that waits is committed as one transaction, so that many sessions share one fsync.
Jobs refuse before they write; should SQLite itself fail inside one, the transaction is rolled
back and each job runs again by itself, so that one cannot fail its neighbours.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from perdure.errors import PerdureError, StoreClosed
from perdure.types import SessionKey

from perdure_sqlite.delivery import deliver
from perdure_sqlite.failures import (
    commit_may_stand,
    is_busy,
    is_full,
    translate,
    unknown_outcome,
)
from perdure_sqlite.file import LONGEST_PAUSE, DatabaseFile, patiently
from perdure_sqlite.jobs import Job, Transaction

MAX_BATCH_JOBS = 512
MAX_BATCH_BYTES = 64 << 20
"""A transaction takes no further job beyond these."""

CHECKPOINT_BYTES = 4 << 20
"""After so many bytes written, the log is moved into the database."""

JOB_OVERHEAD = 16 << 10
"""About what a small commit adds to the log besides its values: the pages it touches."""

LONG_HOLD = 0.001
"""Seconds after which a transaction has held the write lock for long."""

SHARING = 0.25
"""Seconds for which others count as present after they were in the way."""

COMPANY_PART = 0.25
COMPANY_SECONDS = 0.002
"""How long to wait for company: this part of the time that the last transaction took, and at
most so many seconds."""

T = TypeVar("T")


class Writer:
    """Owns the writing connection, its thread, and the queue in front of it.

    It calls, from its thread: ``committed`` with the sessions that a transaction may have
    changed; ``upkeep`` in a transaction of its own, in idle time, after a job has left
    something for it; ``broken`` after it has given up its connection.
    """

    def __init__(
        self,
        file: DatabaseFile,
        clock: Callable[[], int],
        committed: Callable[[Sequence[SessionKey]], None],
        upkeep: Callable[[Transaction], object],
        broken: Callable[[], None],
    ) -> None:
        self._file = file
        self._path = str(file.path)
        self._clock = clock
        self._committed = committed
        self._upkeep = upkeep
        self._broken = broken
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._db: sqlite3.Connection | None = None
        self._checkpointer: sqlite3.Connection | None = None
        self._written = 0  # since the last checkpoint
        self._company = 1  # jobs of the last transaction
        self._began = self._ended = 0.0
        self._held = 0.0
        self._sharing_until = 0.0
        self._discarded = False
        self.transactions = 0
        """How many transactions were committed so far."""

    def submit(
        self, work: Callable[[Transaction], T], key: SessionKey | None = None, size: int = 0
    ) -> asyncio.Future[T]:
        """Queue a job of about ``size`` bytes; ``key`` is the session that it may change.

        The future is resolved once its transaction is committed. If it is cancelled before
        its turn comes, the job is not run. Raises ``StoreClosed``.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._stopped:
                raise StoreClosed(f"{self._path}: this backend was closed")
            if self._thread is None:
                # A daemon: a backend that nobody closes must not keep the interpreter alive.
                thread = threading.Thread(
                    target=self._run, name="perdure-sqlite-writer", daemon=True
                )
                thread.start()
                self._thread = thread
            self._queue.put(Job(future, work, key, size))
        return future

    def open(self) -> asyncio.Future[None]:
        """Resolved once the file is open and checked. Takes no lock if it exists already."""
        return self.submit(_open)

    def stop(self) -> None:
        """Take no more jobs; the thread ends after those that wait. Does not wait for it."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread to end, after :meth:`stop`."""
        if self._thread is not None:
            self._thread.join()

    def connections(self) -> list[sqlite3.Connection]:
        """What is open."""
        return [c for c in (self._db, self._checkpointer) if c is not None]

    def disconnect(self) -> None:
        """Close all connections. For who has shut the gate, and for the own thread."""
        for connection in self.connections():
            connection.close()
        self._db = self._checkpointer = None

    def _run(self) -> None:
        gate = self._file.gate
        try:
            while (first := self._next()) is not None:
                jobs = [first]
                with gate.entered():
                    self._process(jobs)
                deliver(jobs)
                keys = [job.key for job in jobs if job.key is not None and job.error is None]
                if keys:
                    self._committed(keys)
                self._written += sum(job.size + JOB_OVERHEAD for job in jobs)
                if self._written >= CHECKPOINT_BYTES:
                    with gate.entered():
                        self._checkpoint()
        finally:
            self._end()

    def _end(self) -> None:
        """Nothing is left waiting, should the thread end by anything but :meth:`stop`."""
        self.stop()
        left: list[Job] = []
        while not self._queue.empty():
            job = self._queue.get()
            if job is not None:
                left.append(job)
        self._fail(left, StoreClosed(f"{self._path}: this backend was closed"))
        deliver(left)
        with self._file.gate.entered():
            self.disconnect()

    def _next(self) -> Job | None:
        """The next job; ``None`` to stop. Idle time before it goes to the upkeep."""
        while self._discarded and self._queue.empty():
            self._discarded = False
            with self._file.gate.entered():
                try:
                    db = self._begin()
                except (sqlite3.Error, PerdureError) as error:
                    self._end_failed(error)  # a sweep will do it
                else:
                    self._attempt(db, ())
        return self._queue.get()

    def _process(self, jobs: list[Job]) -> None:
        """Give an outcome to the first of ``jobs`` and to whatever else is waiting."""
        try:
            if jobs[0].work is _open:
                self._connect()
                return
            self._await_company(jobs)
            db = self._begin()
        except (sqlite3.Error, PerdureError) as error:
            self._end_failed(error)
            self._take(jobs, MAX_BATCH_JOBS)
            self._fail(jobs, error)
            return
        self._take(jobs, MAX_BATCH_JOBS)
        self._company = len(jobs)
        if self._attempt(db, jobs) or len(jobs) == 1:
            return
        for job in jobs:
            try:
                db = self._begin()
            except (sqlite3.Error, PerdureError) as error:
                self._end_failed(error)
                self._fail((job,), error)
            else:
                self._attempt(db, (job,))

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = self._file.open_writer()
        return self._db

    def _begin(self) -> sqlite3.Connection:
        """Take the write lock, and let others have it in between.

        SQLite's lock has no queue, and who has just released it stands closest: where a sync
        is slow, others would find it free once in many attempts. So whoever has met others
        here, and held the lock for long, leaves it to them for about as long as they pause.

        Raises ``sqlite3.Error`` or what opening the file raises.
        """
        db = self._connect()
        if self._held >= LONG_HOLD and self._ended < self._sharing_until:
            free_from = self._ended + min(self._held, LONGEST_PAUSE)
            time.sleep(max(0.0, free_from - time.monotonic()))
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            patiently(lambda: db.execute("BEGIN IMMEDIATE"), self._file.timeout)
            self._sharing_until = time.monotonic() + SHARING
        self._began = time.monotonic()
        return db

    def _await_company(self, jobs: list[Job]) -> None:
        """Wait a little for as many jobs as the last transaction had.

        Those whose commits it acknowledged are about to send their next ones. Without this the
        first of them would be committed alone, and all others wait for that sync and one more.
        """
        patience = min(self._held * COMPANY_PART, COMPANY_SECONDS)
        self._take(jobs, self._company, until=time.monotonic() + patience)

    def _take(self, jobs: list[Job], most: int, until: float = 0.0) -> None:
        """Add to ``jobs`` what waits, or comes before ``until``, up to ``most`` in all."""
        size = sum([job.size for job in jobs])
        while len(jobs) < most and size < MAX_BATCH_BYTES:
            try:
                job = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return
            if job is None:
                self._queue.put(None)  # nothing comes after it: see stop
                return
            jobs.append(job)
            size += job.size

    def _attempt(self, db: sqlite3.Connection, jobs: Sequence[Job]) -> bool:
        """Run the jobs, or the upkeep if there are none, in the transaction begun; end it.

        False: it was rolled back, none is applied, and all have an error that says so.
        """
        try:
            tx = Transaction(db, self._clock())
            for job in jobs:
                if job.future.cancelled():
                    continue
                job.error = None
                try:
                    job.value = job.work(tx)
                except PerdureError as error:
                    job.error = error
            if not jobs:
                self._upkeep(tx)
        # Whatever else a job raises is for its caller, and must not end the thread.
        except BaseException as error:  # noqa: BLE001
            self._end_failed(error)
            self._fail(jobs, error)
            return False
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._end_failed(error)
            self._fail(jobs, error, at_commit=True)
            return commit_may_stand(error)
        self._ended = time.monotonic()
        self._held = self._ended - self._began
        self.transactions += 1
        self._discarded = self._discarded or tx.discarded
        return True

    def _fail(
        self, jobs: Sequence[Job], error: BaseException, *, at_commit: bool = False
    ) -> None:
        """Give each job an error of its own, since each is raised elsewhere."""
        for job in jobs:
            if isinstance(error, sqlite3.Error):
                make = unknown_outcome if at_commit and commit_may_stand(error) else translate
                job.error = make(error, self._path)
                job.error.__cause__ = error
            elif isinstance(error, PerdureError):
                job.error = type(error)(*error.args)
                vars(job.error).update(vars(error))
                job.error.__cause__ = error
            else:
                job.error = error

    def _end_failed(self, error: BaseException) -> None:
        """End the transaction, if SQLite has not done so by itself.

        After an error that says something of the connection, the next job opens another, and
        so do all others: while one that found the file read-only is open, new ones will too.
        """
        if self._db is None:
            return
        broken = isinstance(error, sqlite3.Error) and not (is_busy(error) or is_full(error))
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            broken = True
        if broken:
            self.disconnect()  # which rolls back too
            self._broken()

    def _checkpoint(self) -> None:
        """Move the log into the database, so that it can start again from its beginning.

        Under the write lock: nobody appends meanwhile, so that it comes to an end however
        busy the file is, and nobody can reset the log, which makes the WAL-reset bug of
        SQLite before 3.51.3 impossible between processes that all do so.
        """
        self._written = 0
        try:
            if self._checkpointer is None:
                self._checkpointer = self._file.open_checkpointer()
            db = self._begin()
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            db.execute("ROLLBACK")
        except (sqlite3.Error, PerdureError) as error:
            # What is in the log is safe there; the next checkpoint will move it.
            self._end_failed(error)


def _open(_: Transaction) -> None:
    """The job that needs no transaction, only a connection."""
