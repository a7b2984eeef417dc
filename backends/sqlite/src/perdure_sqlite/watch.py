"""Waiting for a session to change, in this process or another.

Commits of this process wake those who wait for their sessions directly. Those of others show
in ``PRAGMA data_version``, which one thread looks at for all, while anybody waits; only when
it has changed are the heads of the sessions waited for looked at.
"""

import asyncio
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable

from perdure.types import Head, SessionKey

from perdure_sqlite import statements as sql
from perdure_sqlite.delivery import Outcome, deliver
from perdure_sqlite.file import DatabaseFile

POLL_INTERVAL = 0.015
"""Seconds between two looks."""

State = tuple[int, bytes, bytes] | None
"""(version, tip, incarnation)."""


class Waiter(Outcome):
    """One call of ``wait``."""

    __slots__ = ("state",)

    def __init__(self, after: Head | None) -> None:
        super().__init__(asyncio.get_running_loop().create_future())
        self.state: State = (
            None if after is None else (after.version, after.tip, after.incarnation)
        )


class Watcher:
    """Wakes waiters. A wake-up is a hint to read the head."""

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self._db: sqlite3.Connection | None = None
        self._waiters: defaultdict[SessionKey, set[Waiter]] = defaultdict(set)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._stale = False  # its connection

    def add(self, key: SessionKey, waiter: Waiter) -> None:
        """Wake ``waiter`` once ``key`` differs from what it has seen. Add it before reading
        the head, so that nothing falls between."""
        with self._changed:
            first = not self._waiters
            self._waiters[key].add(waiter)
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(
                    target=self._run, name="perdure-sqlite-watcher", daemon=True
                )
                self._thread.start()
            if first:
                self._changed.notify()

    def remove(self, key: SessionKey, waiter: Waiter) -> None:
        """The end of a call, woken or not."""
        with self._changed:
            self._waiters[key].discard(waiter)
            if not self._waiters[key]:
                del self._waiters[key]

    def committed(self, keys: Iterable[SessionKey]) -> None:
        """This process has changed these sessions."""
        if self._waiters:
            with self._changed:
                woken = [w for key in keys if key in self._waiters for w in self._waiters[key]]
            deliver(woken)

    def reconnect(self) -> None:
        """Close the connection within a moment."""
        with self._changed:
            self._stale = True
            self._changed.notify()

    def stop(self) -> None:
        """Wake everybody, and let the thread end."""
        with self._changed:
            self._stopped = True
            woken = [waiter for waiters in self._waiters.values() for waiter in waiters]
            self._changed.notify()
        deliver(woken)

    def connections(self) -> list[sqlite3.Connection]:
        """What is open."""
        return [] if self._db is None else [self._db]

    def disconnect(self) -> None:
        """Close the connection. For who has shut the gate."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def join(self) -> None:
        """Wait for the thread to end, after :meth:`stop`."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        seen = -1
        while True:
            with self._changed:
                while not (self._waiters or self._stopped or self._stale):
                    self._changed.wait()
                if self._stopped:
                    break
                stale, self._stale = self._stale, False
            with self._file.gate.entered():
                if stale:
                    self.disconnect()
                    continue
                try:
                    seen = self._look(seen)
                except sqlite3.Error:
                    # Whoever waits learns of it from its own read, at the latest at its
                    # timeout.
                    seen = -1
            with self._changed:
                if not self._stopped:
                    self._changed.wait(POLL_INTERVAL)
        with self._file.gate.entered():
            self.disconnect()

    def _look(self, seen: int) -> int:
        """Compare the heads waited for if anything has changed since ``seen``; what is seen
        now."""
        if self._db is None:
            self._db = self._file.open_reader()
            seen = -1
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != seen:
            self._compare(self._db)
        return version

    def _compare(self, db: sqlite3.Connection) -> None:
        with self._changed:
            waiting = {key: list(waiters) for key, waiters in self._waiters.items()}
        for key, waiters in waiting.items():
            row = db.execute(sql.FIND_HEAD, (key.tenant, key.kind, key.id)).fetchone()
            state: State = None if row is None else (row[1], row[3], row[2])
            deliver([waiter for waiter in waiters if waiter.state != state])
