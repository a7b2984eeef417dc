"""One connection: statements out, results in, driven by the event loop.

libpq's pipeline mode, spoken through psycopg's ``pq`` module. psycopg's own cursors and
pipelines cost three to five times the CPU per statement, and a generator under
``AsyncConnection.wait`` twice; a reader that stays registered with the loop costs least.
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

from psycopg import AsyncConnection, Error, OperationalError
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow

from perdure.errors import Unsupported

from perdure_postgres.failures import Failure, connect_failed, lost, refused
from perdure_postgres.parameters import BINARY, Parameter, encode

OLDEST_SERVER = 130000
"""PostgreSQL 13, which is also what compatible engines say they are."""

_ENCODINGS = (b"UTF8", b"SQL_ASCII", None)
"""Those that hold any text: SQL_ASCII takes the bytes as they are, and a pooler may not say."""

_SYNC = ExecStatus.PIPELINE_SYNC
_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class Statement(NamedTuple):
    """SQL with ``$1``, ``$2``, … and what stands for them.

    The server infers the types of the parameters: cast where it cannot (``$1::bigint``).
    """

    query: bytes
    parameters: tuple[Parameter, ...] = ()


class Encoded(NamedTuple):
    """A statement ready to be sent."""

    query: bytes
    values: list[bytes | None]
    formats: list[int]

    @classmethod
    def of(cls, statement: Statement) -> "Encoded":
        """Raises ``TypeError`` if a parameter is none."""
        return cls(statement.query, *encode(statement.parameters))


Finished = Callable[["Connection", list[PGresult], Failure | None], None]
"""Called with the results, one per statement, or why there are none."""


EPOCH = (
    b"substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
    b" || CASE current_setting('synchronous_commit') WHEN 'off'"
    b" THEN pg_postmaster_start_time()::text ELSE '' END"
)
"""The line of history that a server writes: its timeline, which a standby changes when it is
promoted; with ``synchronous_commit=off``, which may lose the last commits, also its start."""


class Link(NamedTuple):
    """A connection of libpq, and what its server was when it was made."""

    pgconn: PGconn
    epoch: bytes
    """Empty if it cannot be told: an engine that is not Postgres itself."""


async def connect(conninfo: str, location: str, timeout: float) -> Link:
    """Connect to any of the hosts that ``conninfo`` names.

    Raises ``Unavailable``, or ``Unsupported`` if the server is too old or the database cannot
    hold any text.
    """
    made = await _made(conninfo, timeout)
    if isinstance(made, str):
        raise connect_failed(made, location)
    pgconn, epoch = made
    if pgconn.server_version < OLDEST_SERVER:
        version = (pgconn.parameter_status(b"server_version") or b"unknown").decode()
        pgconn.finish()
        raise Unsupported(f"{location}: PostgreSQL {version} is too old; perdure needs 13")
    encoding = pgconn.parameter_status(b"server_encoding")
    if encoding not in _ENCODINGS:
        name = encoding.decode() if encoding else "unknown"
        pgconn.finish()
        raise Unsupported(
            f"{location}: the encoding of the database is {name}, which lacks most of Unicode; "
            "perdure needs UTF8"
        )
    return Link(pgconn, epoch)


async def _made(conninfo: str, timeout: float) -> tuple[PGconn, bytes] | str:
    """A connection and its epoch, or why there is none. Not raised: psycopg's errors hold the
    password, so none may be chained to ours."""
    try:
        async with asyncio.timeout(timeout):
            pgconn = (await _Connector.connect(conninfo)).pgconn
            return pgconn, await _epoch(pgconn)
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except Error as error:
        return str(error)


async def _epoch(pgconn: PGconn) -> bytes:
    """Not by a cursor of psycopg's, which waits up to ten seconds more when it is cancelled."""
    loop = asyncio.get_running_loop()
    socket = pgconn.socket
    answered: asyncio.Future[bytes] = loop.create_future()
    epoch = b""

    def read() -> None:
        nonlocal epoch
        if answered.cancelled():
            return
        try:
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    loop.remove_reader(socket)
                    answered.set_result(epoch)
                    return
                if result.status == ExecStatus.TUPLES_OK:
                    epoch = result.get_value(0, 0) or b""
        except OperationalError as error:
            loop.remove_reader(socket)  # at once: the next may get its number
            answered.set_exception(error)

    try:
        pgconn.send_query(b"SELECT " + EPOCH)
        pgconn.flush()
        loop.add_reader(socket, read)
        return await answered
    except BaseException:
        if answered.cancelled():
            loop.remove_reader(socket)
        pgconn.finish()
        raise


class _Connector(AsyncConnection[TupleRow]):
    """psycopg resolves names, tries all hosts and speaks TLS; then we take the connection."""

    def __del__(self, *_: object) -> None:
        """No warning that it was not closed: libpq's connection outlives this object."""


class Connection:
    """Owns a libpq connection. One unit of work at a time, all under one ``Sync``.

    That makes a unit one transaction, without ``BEGIN`` and ``COMMIT``. ``preamble`` goes in
    front of each, and returns the epoch first. ``lost`` is called once, when the connection is
    found broken or is closed; ``notified`` with the channel of each notification. All on the
    event loop's thread.
    """

    def __init__(
        self,
        link: Link,
        *,
        prepare: bool,
        preamble: Statement | None = None,
        lost: "Callable[[Connection], None]",
        notified: Callable[[bytes], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pgconn = pgconn = link.pgconn
        self._prepare = prepare
        self._preamble = None if preamble is None else Encoded.of(preamble)
        self._lost = lost
        self._notified = notified
        self._socket = pgconn.socket
        self._names: dict[bytes, bytes] = {}
        self._preparing: list[tuple[int, bytes]] = []  # in this unit: result and query
        self._finished: Finished | None = None
        self._wanted: list[bool] = []  # per result: whether it is a statement's
        self._results: list[PGresult] = []
        self._failure: Failure | None = None
        self._sent = False
        self._writing = False
        self._unwatched = False
        self.progress = self._loop.time()
        """When bytes last went either way."""
        self.closed = False
        self.epoch = link.epoch
        """Of the server that answered last: behind a pooler each time perhaps another."""
        pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._read)

    @property
    def busy(self) -> bool:
        """Whether a unit of work is under way."""
        return self._finished is not None

    def send(self, statements: Iterable[Encoded], finished: Finished) -> None:
        """Send one unit of work. ``finished`` is called later, also if it cannot be sent."""
        self._finished = finished
        self._results = []
        self._wanted = []
        self._failure = None
        self._sent = False
        self.progress = self._loop.time()
        try:
            if self._preamble is not None:
                self._send(self._preamble, wanted=False)
            for statement in statements:
                self._send(statement, wanted=True)
            self._pgconn.pipeline_sync()
            self._flush()
        except OperationalError as error:
            self._unwatch()
            self._loop.call_soon(self._break, str(error))

    def close(self, reason: str = "the connection was closed") -> None:
        """Break off whatever is under way."""
        self._break(reason)

    def _send(self, statement: Encoded, *, wanted: bool) -> None:
        query, values, formats = statement
        if self._prepare:
            name = self._names.get(query)
            if name is None:
                # Named by its text: should a pooler mix up sessions after all, no statement
                # is ever taken for another.
                name = b"perdure_" + blake2b(query, digest_size=5).hexdigest().encode()
                self._pgconn.send_prepare(name, query)
                self._preparing.append((len(self._wanted), query))
                self._wanted.append(False)
                self._names[query] = name
            self._pgconn.send_query_prepared(name, values, formats, BINARY)
        else:
            self._pgconn.send_query_params(query, values, None, formats, BINARY)
        self._wanted.append(wanted)

    def _flush(self) -> None:
        if self._pgconn.flush():
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._write)
            return
        self._sent = True
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _write(self) -> None:
        self.progress = self._loop.time()
        try:
            self._flush()
        except OperationalError as error:
            self._break(str(error))

    def _read(self) -> None:
        pgconn = self._pgconn
        self.progress = self._loop.time()
        broken = ""
        try:
            if self._writing:  # libpq may send the rest as it reads, and not tell
                self._flush()
            pgconn.consume_input()
        except OperationalError as error:
            broken = str(error)  # after what it had said before
        ended = False
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if ended:  # twice: nothing is expected any more
                    break
                ended = True  # of one statement's results
                continue
            ended = False
            if result.status == _SYNC:
                self._finish()
                break
            if result.status not in _DONE and self._failure is None:
                self._failure = refused(result)
            self._results.append(result)
        if self._notified is not None:
            while (notify := pgconn.notifies()) is not None:
                self._notified(notify.relname)
        if broken or pgconn.status == ConnStatus.BAD:
            self._break(broken or "the connection broke")

    def _finish(self) -> None:
        """The unit is over: committed, or rolled back as its failure says."""
        finished, self._finished = self._finished, None
        results, self._results = self._results, []
        preparing, self._preparing = self._preparing, []
        if self._failure is not None:
            for at, query in preparing:  # no rollback undoes those that were prepared
                if at >= len(results) or results[at].status != ExecStatus.COMMAND_OK:
                    del self._names[query]
        elif False in self._wanted:
            if self._preamble is not None:
                self.epoch = results[0].get_value(0, 0) or b""
            results = [r for r, wanted in zip(results, self._wanted, strict=True) if wanted]
        if finished is not None:
            finished(self, results, self._failure)

    def _break(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self._unwatch()
        self._pgconn.finish()
        if self._failure is None or not self._failure.sqlstate:
            self._failure = lost(reason, sent=self._sent)
        self._lost(self)
        self._finish()

    def _unwatch(self) -> None:
        """At once: libpq may have closed the socket, and the next may get its number."""
        if self._unwatched or self._loop.is_closed():
            return
        self._unwatched = True
        # The selector cannot change what it watches of a closed one; then it forgets it.
        with suppress(OSError):
            self._loop.remove_reader(self._socket)
        with suppress(OSError):
            self._loop.remove_writer(self._socket)
