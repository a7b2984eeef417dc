"""What an error of SQLite means to the caller.

Codes: https://sqlite.org/rescode.html. The low byte is the primary code.
"""

import sqlite3
from pathlib import Path

from perdure.errors import (
    Corrupt,
    OutcomeUnknown,
    PerdureError,
    TooLarge,
    Unavailable,
)

_PRIMARY = 0xFF


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code; 0 for an error of Python's module itself, which has none."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way, so that trying again will help.

    ``PROTOCOL`` is what SQLite says when it lost the race for a lock of the write-ahead log
    very often in a row.
    """
    return primary_code(error) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
    )


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room for what was to be written."""
    return primary_code(error) == sqlite3.SQLITE_FULL


def commit_may_stand(error: sqlite3.Error) -> bool:
    """Whether the transaction may be found committed although ``COMMIT`` raised this.

    The frames of a transaction count once the last of them, the commit frame, is whole in the
    log. A full disk or a failed write left it incomplete: not applied. Any other I/O error,
    above all that of the ``fsync``, came when it may have been there already, and a crash
    right now would recover it.
    """
    return (
        primary_code(error) == sqlite3.SQLITE_IOERR
        and error.sqlite_errorcode != sqlite3.SQLITE_IOERR_WRITE
    )


def translate(error: sqlite3.Error, path: str) -> PerdureError:
    """The error to raise where nothing was applied. A new instance each time."""
    code = primary_code(error)
    if is_busy(error):
        return Unavailable(
            f"{path}: another process kept the database locked for too long; nothing was "
            "applied"
        )
    if is_full(error):
        return Unavailable(f"{path}: the disk is full; nothing was applied", lasting=True)
    if code == sqlite3.SQLITE_NOTADB:
        return Corrupt(f"{path} is not an SQLite database; it was left as it is")
    if code == sqlite3.SQLITE_CORRUPT:
        return Corrupt(
            f"{path} is damaged ({error}); nothing was changed. Restore it from a copy, or see "
            "https://sqlite.org/recovery.html"
        )
    if code == sqlite3.SQLITE_ERROR:
        return Corrupt(f"{path} does not have the tables of perdure ({error})")
    if code == sqlite3.SQLITE_TOOBIG:
        return TooLarge(f"{path}: a value exceeds what SQLite stores; nothing was applied")
    if code == sqlite3.SQLITE_CANTOPEN:
        return Unavailable(
            f"{path} is a directory, not a file"
            if Path(path).is_dir()
            else f"{path} cannot be opened: the directory is missing, or it or the file may "
            "not be read and written by this user",
            lasting=True,
        )
    if code == sqlite3.SQLITE_READONLY:
        return Unavailable(
            f"{path} may not be written ({error}); nothing was applied. See to the permissions "
            "of the file, and of those beside it whose names end in -wal and -shm",
            lasting=True,
        )
    return Unavailable(f"{path}: {error} ({error_name(error)}); nothing was applied")


def unknown_outcome(error: sqlite3.Error, path: str) -> OutcomeUnknown:
    """The error to raise where :func:`commit_may_stand`."""
    return OutcomeUnknown(f"{path}: {error} ({error_name(error)}) while committing")


def error_name(error: sqlite3.Error) -> str:
    """SQLite's name of the extended code, as ``SQLITE_IOERR_FSYNC``."""
    return getattr(error, "sqlite_errorname", type(error).__name__)
