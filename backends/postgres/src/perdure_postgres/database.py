"""The pool, and group commit on top of it.

Commits of any sessions that wait in this process go together: one ``Sync``, one transaction,
one flush of the server's log. Nobody waits for company: up to two groups are under way at a
time, and what has come meanwhile goes when one of them has ended. If a statement fails, the
server rolls its whole group back, and each commit is sent again by itself, so that none fails
another.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult

from perdure.errors import Outcome, StoreClosed, Unavailable

from perdure_postgres.connection import EPOCH, Connection, Encoded, Link, Statement, connect
from perdure_postgres.failures import RETRIED, UNFIT, Failure, copy, translate
from perdure_postgres.listening import Listener, Subscription
from perdure_postgres.settings import Settings

Row = tuple[Any, ...]
"""``bytes``, ``str``, ``int``, ``bool``, lists of them, or ``None``."""

GROUP_COMMITS = 16
GROUP_BYTES = 1 << 20
"""A group takes no further commit beyond these."""

FEW_GROUPS = 2
"""So many groups may be under way whatever their size. More make groups smaller, not faster,
so from then on only full ones go, and only on every other connection of the pool."""

IDLE_SECONDS = 300.0
"""How long a connection that nobody needs is kept."""

ATTEMPTS = 6
FIRST_PAUSE = 0.005
"""How often the server is asked in all if it says ``RETRIED``; the pauses between grow fourfold
and are random."""

RECONNECT_PAUSE = 1.0
"""Seconds after a failed attempt to connect until the next, while other connections work."""


class Results(list[list[Row]]):
    """The rows of each statement, in their order, and which line of history they are of."""

    def __init__(self, rows: Iterable[list[Row]], epoch: bytes) -> None:
        super().__init__(rows)
        self.epoch = epoch
        """As ``Snapshot.epoch``."""


class Job:
    """One call: its statements and whoever awaits their results."""

    __slots__ = ("attempts", "deadline", "future", "order", "size", "statements", "writes")

    def __init__(
        self,
        future: asyncio.Future[Results],
        statements: Sequence[Statement],
        order: bytes,
        deadline: float,
        *,
        writes: bool,
    ) -> None:
        self.future = future
        self.statements = [Encoded.of(statement) for statement in statements]
        self.size = sum([len(v) for s in self.statements for v in s.values if v is not None])
        self.order = order
        self.deadline = deadline
        """When to stop waiting for a connection. The server then has as long to answer."""
        self.writes = writes
        self.attempts = 1


class Database:
    """Runs statements. Belongs to the event loop of its first call.

    Every call raises ``Unavailable`` (nothing was applied: never sent, or the server said so),
    ``OutcomeUnknown`` (sent, and no answer came), ``StoreClosed``, and ``TooLarge`` or
    ``Corrupt`` if the server says so. Cancelling one takes it out of the queue or, if it is
    under way, lets it end unattended; its connection stays in use until then, and is clean.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._conninfo = settings.connect_string(settings.conninfo, direct=settings.prepare)
        self._most_groups = max(1, settings.pool // 2)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._transformer = Transformer()
        self._listener = Listener(settings)
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the one used last at the end
        self._commits: deque[Job] = deque()
        self._others: deque[Job] = deque()
        self._groups = 0  # under way
        self._connecting: set[asyncio.Task[Link]] = set()
        self._reconnect_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered: set[asyncio.Future[Results]] = set()
        self._closed = False  # for new calls
        self._ended = False  # also for those that are left

    async def run(self, *statements: Statement, writes: bool) -> Results:
        """The rows of each statement, all run in one transaction and one round trip.

        ``writes``: whether a lost answer leaves the outcome unknown.
        """
        loop = self._check_usable()
        deadline = loop.time() + self._settings.timeout
        job = Job(loop.create_future(), statements, b"", deadline, writes=writes)
        self._others.append(job)
        return await self._submitted(job)

    async def commit(self, order: bytes, *statements: Statement) -> Results:
        """The same for a commit, which may share its transaction with those of other sessions.

        ``order`` is the same for all commits of a session. A group is sent in this order, so
        that two groups never wait for each other's locks.
        """
        loop = self._check_usable()
        deadline = loop.time() + self._settings.timeout
        job = Job(loop.create_future(), statements, order, deadline, writes=True)
        (self._commits if job.size < GROUP_BYTES else self._others).append(job)
        return await self._submitted(job)

    async def listen(self, channel: str, wake: Callable[[], None]) -> Subscription:
        """See :meth:`perdure_postgres.listening.Listener.listen`."""
        self._check_usable()
        return await self._listener.listen(channel, wake)

    async def aclose(self) -> None:
        """Take no more calls, wait until those under way are answered, and disconnect."""
        self._closed = True
        if self._process != os.getpid():
            return
        # Nobody waits for those that were cancelled.
        while awaited := [future for future in self._unanswered if not future.done()]:
            await asyncio.wait(awaited)
        self._ended = True
        await self._listener.aclose()
        connecting = tuple(self._connecting)
        for task in connecting:
            task.cancel()
        for connection in tuple(self._connections):
            connection.close()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)

    def _check_usable(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise StoreClosed(f"{self._settings.location}: this backend was closed")
        if self._process != os.getpid():
            raise StoreClosed(
                f"{self._settings.location}: connected by the process that this one was "
                "forked from; open it anew in this process"
            )
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise RuntimeError("this backend belongs to another event loop")
            self._loop = loop
        return loop

    def _submitted(self, job: Job) -> asyncio.Future[Results]:
        self._unanswered.add(job.future)
        self._dispatch()
        self._keep_watch()
        return job.future

    # Which jobs go on which connection

    def _dispatch(self) -> None:
        """Give idle connections their work, and see to it that there are enough of them."""
        while self._idle:
            if grouped := self._turn_of_commits():
                jobs = self._take_group()
            elif self._others:
                jobs = [self._others.popleft()]
            else:
                return
            jobs = [job for job in jobs if not self._abandoned(job)]
            if jobs:
                self._groups += grouped
                statements = [statement for job in jobs for statement in job.statements]
                self._idle.pop().send(statements, partial(self._answered, jobs, grouped))
        if (self._others or self._turn_of_commits()) and not self._ended:
            self._connect_more()

    def _turn_of_commits(self) -> bool:
        """Whether the next connection goes to a group, in the order of arrival."""
        if not self._commits or self._groups >= self._most_groups:
            return False
        if self._groups >= FEW_GROUPS and len(self._commits) < GROUP_COMMITS:
            return False
        return not self._others or self._commits[0].deadline <= self._others[0].deadline

    def _take_group(self) -> list[Job]:
        jobs = [self._commits.popleft()]
        size = jobs[0].size
        while self._commits and len(jobs) < GROUP_COMMITS and size < GROUP_BYTES:
            job = self._commits.popleft()
            size += job.size
            jobs.append(job)
        jobs.sort(key=_order)
        return jobs

    def _answered(
        self,
        jobs: list[Job],
        grouped: bool,
        connection: Connection,
        results: list[PGresult],
        failure: Failure | None,
    ) -> None:
        """The server has answered, or never will."""
        self._groups -= grouped
        if failure is None:
            at = 0
            for job in jobs:
                stop = at + len(job.statements)
                if not self._abandoned(job):
                    rows = [self._load(result) for result in results[at:stop]]
                    job.future.set_result(Results(rows, connection.epoch))
                    self._unanswered.discard(job.future)
                at = stop
            self._transformer.set_pgresult(None)  # which may be large
        elif failure.outcome is Outcome.NOT_APPLIED and len(jobs) > 1:
            self._others.extendleft(reversed(jobs))
        else:
            for job in jobs:
                self._retry_or_fail(job, failure)
        if failure is not None and failure.sqlstate in UNFIT:
            # So will be those that were made before; others may be on another server by now.
            for unfit in (connection, *self._idle):
                unfit.close()
        if not connection.closed:
            self._idle.append(connection)
        self._dispatch()

    def _load(self, result: PGresult) -> list[Row]:
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def _retry_or_fail(self, job: Job, failure: Failure) -> None:
        if self._abandoned(job):
            return
        loop = job.future.get_loop()
        if failure.outcome is Outcome.NOT_APPLIED and failure.sqlstate in RETRIED:
            pause = random.uniform(0, FIRST_PAUSE * 4 ** (job.attempts - 1))
            if job.attempts < ATTEMPTS and loop.time() + pause < job.deadline:
                job.attempts += 1
                loop.call_later(pause, self._again, job)
                return
        self._fail(job, translate(failure, self._settings.location, writes=job.writes))

    def _again(self, job: Job) -> None:
        self._others.appendleft(job)
        self._dispatch()

    def _abandoned(self, job: Job) -> bool:
        """Whether its caller was cancelled. It is over then."""
        if job.future.done():
            self._unanswered.discard(job.future)
            return True
        return False

    def _fail(self, job: Job, error: BaseException) -> None:
        if not self._abandoned(job):
            job.future.set_exception(error)
            self._unanswered.discard(job.future)

    # Connections come and go

    def _connect_more(self) -> None:
        if self._connections and asyncio.get_running_loop().time() < self._reconnect_at:
            return
        wanted = len(self._others) + (1 if self._turn_of_commits() else 0)
        room = self._settings.pool - len(self._connections) - len(self._connecting)
        for _ in range(min(wanted - len(self._connecting), room)):
            task = asyncio.create_task(
                connect(self._conninfo, self._settings.location, self._settings.timeout)
            )
            self._connecting.add(task)
            task.add_done_callback(self._connected)

    def _preamble(self, epoch: bytes) -> Statement | None:
        """Behind a pooler no setting may outlive a transaction, so each brings its own."""
        if self._settings.prepare:
            return None
        return Statement(
            b"SELECT " + (EPOCH if epoch else b"''") + b","
            b" set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true)",
            (str(self._settings.statement_timeout), str(self._settings.lock_timeout)),
        )

    def _connected(self, task: asyncio.Task[Link]) -> None:
        self._connecting.discard(task)
        if task.cancelled():  # by the end of the loop, or by us
            return
        error = task.exception()
        if error is None:
            link = task.result()
            if self._ended:  # while it was being made
                link.pgconn.finish()
                return
            connection = Connection(
                link,
                prepare=self._settings.prepare,
                preamble=self._preamble(link.epoch),
                lost=self._lost,
            )
            self._connections.add(connection)
            self._idle.append(connection)
            self._dispatch()
            return
        self._reconnect_at = asyncio.get_running_loop().time() + RECONNECT_PAUSE
        if self._connections or self._connecting:
            return  # those who wait may still be served
        for queue in (self._commits, self._others):
            while queue:
                self._fail(queue.popleft(), copy(error))

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _keep_watch(self) -> None:
        if self._timer is None:
            seconds = min(1.0, self._settings.timeout / 10)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Give up what takes too long, and connections that nobody needs."""
        self._timer = None
        settings = self._settings
        now = asyncio.get_running_loop().time()
        for queue in (self._commits, self._others):
            while queue and queue[0].deadline <= now:
                made = len(self._connections)
                what = f"came free ({made} of {settings.pool} in use)" if made else "was made"
                error = Unavailable(
                    f"{settings.location}: no connection {what} within {settings.timeout:g} s; "
                    "nothing was applied"
                )
                self._fail(queue.popleft(), error)
        for connection in tuple(self._connections):
            quiet = now - connection.progress
            if quiet > (settings.timeout if connection.busy else IDLE_SECONDS):
                connection.close(f"no answer within {settings.timeout:g} s")
        self._dispatch()  # it may be time to connect again
        if self._connections or self._unanswered:
            self._keep_watch()


def _order(job: Job) -> bytes:
    return job.order
