"""Notifications for all who wait in this process, over one connection.

LISTEN holds for a session, so it needs a connection of its own, and none behind a transaction
pooler. https://www.postgresql.org/docs/current/sql-listen.html
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

from psycopg.pq.abc import PGresult
from psycopg.sql import SQL, Identifier

from perdure.errors import PerdureError, StoreClosed, Unavailable, Unsupported

from perdure_postgres.connection import Connection, Encoded, connect
from perdure_postgres.failures import Failure, copy, translate
from perdure_postgres.settings import Settings, location

LINGER = 10.0
"""For how many seconds a channel that nobody waits on is still listened to: whoever watches a
session waits on it again and again."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
"""Seconds between two attempts to connect, at most; they are random."""

_LISTEN = SQL("LISTEN {}")
_UNLISTEN = SQL("UNLISTEN {}")

_NO_LISTEN = frozenset(("0A000", "42601"))
"""What an engine without LISTEN says: not supported, or a syntax error."""


class Subscription:
    """Somebody waits on a channel, until :meth:`close`."""

    def __init__(self, listener: "Listener", channel: str, wake: Callable[[], None]) -> None:
        self._listener = listener
        self.channel = channel
        self.wake = wake

    def close(self) -> None:
        """Be woken no more. Idempotent."""
        self._listener.leave(self)


class Listener:
    """Owns the connection that listens, from the first subscription on.

    A lost connection is made anew, and everybody is woken then: nobody repeats what was
    notified in between. A wake-up is a hint to read, nothing more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        at = settings.listens_at
        self._conninfo = "" if at is None else settings.connect_string(at, direct=True)
        self._location = settings.location if at is None else location(at)
        self._unsupported = (
            f"{self._location}: LISTEN needs a direct connection (?listen_url=)"
            if at is None
            else ""
        )
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._left: dict[str, float] = {}  # channels without subscription, since when
        self._joining: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._listening: set[str] = set()  # on this connection
        self._connection: Connection | None = None
        self._missed = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def listen(self, channel: str, wake: Callable[[], None]) -> Subscription:
        """Call ``wake`` whenever ``channel`` is notified, from the return of this call on.

        Raises ``Unsupported`` if there is no direct connection or the engine has no LISTEN;
        ``Unavailable``; ``StoreClosed``.
        """
        if self._closed:
            raise StoreClosed(f"{self._location}: this backend was closed")
        if self._unsupported:
            raise Unsupported(self._unsupported)
        subscription = Subscription(self, channel, wake)
        self._subscriptions.setdefault(channel, set()).add(subscription)
        self._left.pop(channel, None)
        if channel in self._listening:
            return subscription
        listening = asyncio.get_running_loop().create_future()
        self._joining[channel].append(listening)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(self._settings.timeout):
                await listening
        except TimeoutError:
            subscription.close()
            seconds = self._settings.timeout
            raise Unavailable(f"{self._location}: no answer within {seconds:g} s") from None
        except BaseException:
            subscription.close()
            raise
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """The end of a subscription."""
        subscriptions = self._subscriptions.get(subscription.channel)
        if subscriptions is not None and subscription in subscriptions:
            subscriptions.remove(subscription)
            if not subscriptions:
                self._left[subscription.channel] = asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """Wake everybody, and disconnect."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._fail(StoreClosed(f"{self._location}: this backend was closed"))
        self._wake_all()

    async def _run(self) -> None:
        """Keep listening to what is asked for, as long as something is."""
        pause = FIRST_PAUSE
        try:
            while self._wanted():
                self._changed.clear()
                try:
                    await self._update()
                except PerdureError as error:
                    self._fail(error)
                    await asyncio.sleep(random.uniform(0, pause))
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                pause = FIRST_PAUSE
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        await self._changed.wait()
        finally:
            if self._connection is not None:
                self._connection.close()
            self._missed = False

    async def _update(self) -> None:
        """Connect if need be, and listen to exactly what is asked for."""
        connection = self._connection
        if connection is None:
            timeout = self._settings.timeout
            link = await connect(self._conninfo, self._location, timeout)
            connection = self._connection = Connection(
                link, prepare=False, lost=self._lost, notified=self._notified
            )
        wanted = self._wanted()
        missing = wanted - self._listening
        await self._execute(
            connection,
            [_LISTEN.format(Identifier(channel)).as_bytes() for channel in missing]
            + [
                _UNLISTEN.format(Identifier(channel)).as_bytes()
                for channel in self._listening - wanted
            ],
        )
        if self._connection is not connection:  # it broke right after its answer
            return
        self._listening = wanted
        for channel in missing:
            for listening in self._joining.pop(channel, ()):
                if not listening.done():
                    listening.set_result(None)
        if self._missed:
            self._missed = False
            self._wake_all()

    async def _execute(self, connection: Connection, queries: list[bytes]) -> None:
        if not queries:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def finished(_: Connection, __: list[PGresult], failure: Failure | None) -> None:
            if done.done():
                return
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

        connection.send([Encoded(query, [], []) for query in queries], finished)
        try:
            async with asyncio.timeout(self._settings.timeout):
                await done
        except TimeoutError:
            connection.close()
            raise Unavailable(f"{self._location}: no answer to LISTEN") from None
        except Failure as failure:
            if failure.sqlstate in _NO_LISTEN:
                self._unsupported = f"{self._location}: the server has no LISTEN: {failure}"
                raise Unsupported(self._unsupported) from failure
            raise translate(failure, self._location, writes=False) from failure

    def _wanted(self) -> set[str]:
        """The channels to listen to: those that somebody waits on, or lately did."""
        limit = asyncio.get_running_loop().time() - LINGER
        for channel, left in list(self._left.items()):
            if left <= limit or self._unsupported:
                del self._left[channel]
                del self._subscriptions[channel]
        return set(self._subscriptions)

    def _fail(self, error: PerdureError) -> None:
        """Nobody who has just asked for a channel gets it. Each gets an error of its own."""
        for waiting in self._joining.values():
            for listening in waiting:
                if not listening.done():
                    listening.set_exception(copy(error))
        self._joining.clear()

    def _wake_all(self) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in tuple(subscriptions):
                subscription.wake()

    def _notified(self, channel: bytes) -> None:
        for subscription in tuple(self._subscriptions.get(channel.decode(), ())):
            subscription.wake()

    def _lost(self, _: Connection) -> None:
        self._connection = None
        self._listening = set()
        self._missed = True
        self._changed.set()
