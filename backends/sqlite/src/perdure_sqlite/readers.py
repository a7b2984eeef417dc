"""Reading beside the writer: idle connections, and threads for long reads."""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from perdure.errors import StoreClosed

from perdure_sqlite.delivery import Outcome, deliver
from perdure_sqlite.failures import is_busy, translate
from perdure_sqlite.file import DatabaseFile, patiently
from perdure_sqlite.reading import Steps, finish

THREADS = 4

SUSPENDED = 8
"""So many long reads at most keep their connection and snapshot while they wait for a thread;
others begin anew once they have one."""

T = TypeVar("T")
Reading = Callable[[sqlite3.Connection], Steps[T]]


class Readers:
    """Runs reads: on the calling thread while they are short, then on one of a few others.

    A connection serves one read at a time, from whichever thread.
    """

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self._path = str(file.path)
        self._idle: deque[sqlite3.Connection] = deque()
        self._threads = ThreadPoolExecutor(THREADS, "perdure-sqlite-reader")  # starts none yet
        self._places = threading.BoundedSemaphore(SUSPENDED)
        self._suspended: set[Steps[Any]] = set()
        self._closed = False

    async def run(self, read: Reading[T]) -> T:
        """The result of ``read``.

        A read that finds something in the way (another connection, which recovers the log
        after a crash, or a fork) begins again on another thread, where it can wait. Raises
        ``Unavailable``, ``Corrupt``, ``StoreClosed``.
        """
        steps: Steps[T] | None = None
        try:
            if self._file.gate.enter(wait=False):
                steps = self._connected(read)
                next(steps)
        except StopIteration as stop:
            return stop.value
        except sqlite3.Error as error:
            if not is_busy(error):
                raise translate(error, self._path) from error
            steps = None
        if steps is not None and not self._places.acquire(blocking=False):
            steps.close()
            steps = None
        if steps is not None:
            self._suspended.add(steps)
        outcome = Outcome(asyncio.get_running_loop().create_future())
        try:
            self._threads.submit(self._run, outcome, read, steps)
        except RuntimeError:  # the threads were shut down just now
            raise self._was_closed() from None
        return await outcome.future

    def acquire(self) -> sqlite3.Connection:
        """An idle connection, or a new one. Raises ``sqlite3.Error``, ``StoreClosed``."""
        if self._closed:
            raise self._was_closed()
        try:
            return self._idle.pop()
        except IndexError:
            return self._file.open_reader()

    def release(self, db: sqlite3.Connection) -> None:
        """Give a connection back."""
        if db.in_transaction:  # could not be ended: the connection is of no use
            db.close()
        else:
            self._idle.append(db)
        if self._closed:
            self.drop_idle()

    def close(self) -> None:
        """Let the long reads end, and close all connections. Blocks. Idempotent."""
        self._closed = True
        self._threads.shutdown()
        self.drop_idle()

    def drop_idle(self) -> None:
        """Close the connections that are not in use."""
        with suppress(IndexError):  # until there is none
            while True:
                self._idle.pop().close()

    def suspend_no_longer(self) -> None:
        """Have the long reads that wait for a thread give their connections back."""
        while self._suspended:
            with suppress(KeyError):  # a thread has just taken it
                self._suspended.pop().close()

    def connections(self) -> list[sqlite3.Connection]:
        """What is open and idle."""
        return list(self._idle)

    def _connected(self, read: Reading[T]) -> Steps[T]:
        """The read on a connection, once the gate was entered; leaves it at the end."""
        try:
            db = self.acquire()
            try:
                return (yield from read(db))
            finally:
                self.release(db)
        finally:
            self._file.gate.leave()

    def _anew(self, read: Reading[T]) -> T:
        self._file.gate.enter(wait=True)
        return finish(self._connected(read))

    def _run(self, outcome: Outcome, read: Reading[T], steps: Steps[T] | None) -> None:
        try:
            if steps is not None:
                self._places.release()
                try:
                    self._suspended.remove(steps)
                except KeyError:
                    steps = None
            if steps is None:
                outcome.value = patiently(lambda: self._anew(read), self._file.timeout)
            else:
                outcome.value = finish(steps)
        except sqlite3.Error as error:
            outcome.error = translate(error, self._path)
        # Whatever it is, whoever awaits the read must hear of it.
        except BaseException as error:  # noqa: BLE001
            outcome.error = error
        deliver((outcome,))

    def _was_closed(self) -> StoreClosed:
        return StoreClosed(f"{self._path}: this backend was closed")
