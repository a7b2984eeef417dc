"""The database file: connecting to it, recognising it, creating it.

Nothing here opens the file by other means than SQLite: a process that closes any descriptor
of it drops the locks of all its connections (https://sqlite.org/howtocorrupt.html, 2.2).
"""

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from perdure.errors import Corrupt, FormatTooNew, Unavailable

from perdure_sqlite.failures import is_busy, translate
from perdure_sqlite.gate import Gate

APPLICATION_ID = 0x50455244
"""Marks an SQLite file as ours: ``PERD``."""

FORMAT = 1
"""Version of the tables, kept as ``user_version``."""

FIXED_WAL_RESET = (3, 51, 3)
"""The first SQLite without the WAL-reset bug (https://sqlite.org/wal.html#walresetbug)."""

Synchronous = Literal["full", "normal"]

FIRST_PAUSE = 0.000_2
LONGEST_PAUSE = 0.004
"""Seconds between two attempts to get a lock, first and at most (about)."""

T = TypeVar("T")

_forbidden = set[Path]()


class Stamp(msgspec.Struct, frozen=True):
    """What a file says of itself."""

    application_id: int
    format: int
    tables: int


def patiently(step: Callable[[], T], timeout: float) -> T:
    """``step()``, repeated for ``timeout`` seconds while another connection is in the way.

    Not SQLite's own busy handler, which does not cover every case (switching a file to WAL),
    and whose pauses grow to 100 ms: whoever waits longest would try least often. Here all try
    at short random intervals, so that nobody starves.
    """
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        time.sleep(pause * (0.5 + random.random()))
        pause = min(pause * 2, LONGEST_PAUSE)


class DatabaseFile:
    """Where the database is (an absolute path) and how connections to it are set up.

    Holds nothing open. ``gate``: to be entered by whoever uses a connection.
    """

    def __init__(
        self, path: Path, *, synchronous: Synchronous, setup: bool, timeout: float
    ) -> None:
        self.path = path
        self.synchronous: Synchronous = synchronous
        self.timeout = timeout
        self.gate = Gate()
        self._setup = setup

    def open_writer(self) -> sqlite3.Connection:
        """A connection that may write. Creates the file, or checks its stamp.

        Safe when many processes do so at once. Raises ``Unavailable``, ``Corrupt``,
        ``FormatTooNew``; the file is then as it was.
        """
        if self._setup:
            self._make_directory()
        elif not self.path.exists():
            raise Unavailable(
                f"{self.path} does not exist, and setup is off: create it first", lasting=True
            )
        try:
            connection = self._connect("rwc" if self._setup else "rw")
            try:
                patiently(lambda: self._prepare(connection), self.timeout)
                self._use_wal(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise translate(error, str(self.path)) from error
        return connection

    def open_reader(self) -> sqlite3.Connection:
        """A connection that only reads the file that a writer has opened before."""
        connection = self._connect("rw")
        connection.execute("PRAGMA query_only = ON")
        return connection

    def open_checkpointer(self) -> sqlite3.Connection:
        """A connection that moves the log into the database."""
        connection = self._connect("rw")
        self._set_synchronous(connection)
        return connection

    def forbid(self) -> None:
        """Have this process never open the file: it has inherited open connections to it."""
        _forbidden.add(self.path)

    def _connect(self, mode: str) -> sqlite3.Connection:
        if self.path in _forbidden:
            raise Unavailable(
                f"{self.path} cannot be used in this process: it was forked while a connection "
                "to the file was busy, and SQLite's locks do not survive that",
                lasting=True,
            )
        return sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )

    def _make_directory(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"the directory of {self.path} cannot be created: {error.strerror}",
                lasting=True,
            ) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check the file, or create the tables in an empty one."""
        try:
            connection.execute("BEGIN")
            stamp = read_stamp(connection)
            connection.execute("COMMIT")
            if self._check(stamp):
                return
            preamble, tables = schema()
            for statement in preamble:
                connection.execute(statement)
            connection.execute("BEGIN IMMEDIATE")
            if not self._check(read_stamp(connection)):
                for statement in tables:
                    connection.execute(statement)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _check(self, stamp: Stamp) -> bool:
        """Whether the file is ours to use; False if it is empty and may be made ours."""
        if stamp.application_id == APPLICATION_ID:
            if stamp.format > FORMAT:
                raise FormatTooNew(
                    f"{self.path} has format {stamp.format}, written by a newer "
                    f"perdure-sqlite; this one knows format {FORMAT}. Nothing was touched: "
                    "upgrade"
                )
            if stamp.format < 1:
                raise Corrupt(
                    f"{self.path} has format {stamp.format}, which perdure never wrote; it was "
                    "left as it is"
                )
            return True
        if stamp != Stamp(0, 0, 0):
            raise Corrupt(
                f"{self.path} is the SQLite database of another application (application_id "
                f"{stamp.application_id}, {stamp.tables} tables and indexes); it was left as "
                "it is"
            )
        if not self._setup:
            raise Unavailable(
                f"{self.path} has no perdure tables, and setup is off: run schema.sql on it",
                lasting=True,
            )
        return False

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        row = patiently(
            lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone(), self.timeout
        )
        if row[0] != "wal":
            raise Unavailable(
                f"{self.path}: its file system cannot hold a write-ahead log (SQLite stays in "
                f"mode {row[0]}); put the file on a local disk",
                lasting=True,
            )
        # Checkpoints are ours to time: see Writer. After a giant commit the log shrinks again.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        self._set_synchronous(connection)

    def _set_synchronous(self, connection: sqlite3.Connection) -> None:
        if self.synchronous == "full":
            connection.execute("PRAGMA synchronous = FULL")
            # macOS alone has another fsync that reaches the disk; elsewhere without effect.
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
        else:
            connection.execute("PRAGMA synchronous = NORMAL")


def read_stamp(connection: sqlite3.Connection) -> Stamp:
    """The stamp of a file; call it in a transaction."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return Stamp(application_id, version, tables)


def schema() -> tuple[list[str], list[str]]:
    """The statements of ``schema.sql`` before its transaction, and those in it."""
    from importlib.resources import files  # once in the life of a file

    text = files("perdure_sqlite").joinpath("sql", "schema.sql").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    statements = [statement.strip() for statement in "\n".join(lines).split(";")]
    begin, commit = statements.index("BEGIN IMMEDIATE"), statements.index("COMMIT")
    return statements[:begin], statements[begin + 1 : commit]
