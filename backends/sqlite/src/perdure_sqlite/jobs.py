"""What the writer runs: jobs, several to a transaction."""

import sqlite3
from collections.abc import Callable

from perdure.types import SessionKey

from perdure_sqlite.delivery import Future, Outcome

ITEMS_AT_ONCE = 2_000
"""At most so many items of deleted sessions are removed by one transaction."""


class Transaction:
    """What a job works with."""

    __slots__ = ("db", "discarded", "now", "removable")

    def __init__(self, db: sqlite3.Connection, now: int) -> None:
        self.db = db
        self.now = now
        """The time of all jobs in this transaction."""
        self.removable = ITEMS_AT_ONCE
        """How many more items of deleted sessions this transaction may remove."""
        self.discarded = False
        """Whether items of deleted sessions were left for a later transaction."""


class Job(Outcome):
    """One call of the backend, waiting for its turn or for its acknowledgement."""

    __slots__ = ("key", "size", "work")

    def __init__(
        self,
        future: Future,
        work: Callable[[Transaction], object],
        key: SessionKey | None,
        size: int,
    ) -> None:
        super().__init__(future)
        self.work = work
        self.key = key
        self.size = size
