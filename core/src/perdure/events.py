"""Events: what each operation of a store has cost, told to whoever watches over it.

``Store(url, on_event=callable)`` calls ``callable(event)`` once per operation, when it is over.
An :class:`Event` never holds content. An operation that another one makes is part of it, and
what either asks of the backend is counted for the outer one.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextvars import ContextVar, Token, copy_context
from inspect import iscoroutinefunction
from typing import TypeVar

import msgspec

from perdure.backend import Backend
from perdure.errors import Outcome, PerdureError
from perdure.types import Rows, SessionKey
from perdure.uri import parse

R = TypeVar("R")

logger = logging.getLogger("perdure")


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One operation, when it is over. Holds nothing that a session holds.

    Counts are of what passed between the store and its backend, as stored: compressed and,
    with ``keys=``, encrypted.
    """

    operation: str
    """The method called: ``append``, ``entries``, ``turn``, ``cells.put``, ``list``, … One of a
    few dozen."""
    backend: str
    """The package that the backend is of, without ``perdure_``: ``sqlite``, ``redis``, …"""
    key: SessionKey | None
    """The session; ``None`` where the operation is about several. A tenant or an id may be
    personal data: leave it out of what is kept or sent elsewhere, unless that is wanted."""
    started_at: int
    """Nanoseconds since the Unix epoch, by this process's clock."""
    elapsed: float
    """Seconds from its start to its end."""
    duration: float
    """Seconds spent in it. Less than ``elapsed`` for what leaves and comes back: a turn without
    the caller's work in its block, a generator without what is done with what it yields."""
    round_trips: int
    """How often the backend was asked. 0 for an append that went with another one's commit."""
    bytes_sent: int
    """Values written and staged."""
    bytes_received: int
    """Values read."""
    items_written: int
    items_read: int
    """Items that came back, and sessions listed."""
    conflicts: int
    """How often another writer was faster. All but the last were retried if ``error`` is
    ``Conflict``, else all."""
    unanswered: int
    """How often the backend was asked and gave no answer, or none in time."""
    resends: int
    """How often a commit was sent again that might have been applied."""
    replayed: bool
    """A commit sent again had been applied before."""
    outcome: Outcome | None
    """What became of it if it raised. ``None``: it did not."""
    error: str | None
    """The name of the class of what it raised, ``CancelledError`` if it was cancelled. A turn
    tells of what its block raised, too."""


OnEvent = Callable[[Event], object]

_current: ContextVar["Operation | None"] = ContextVar("perdure operation", default=None)


def current() -> "Operation | None":
    """The operation that the running task is in."""
    return _current.get()


class Observer:
    """Tells one callable of a store's operations."""

    def __init__(self, on_event: OnEvent, source: str | Backend) -> None:
        """``source``: a URL or a backend. Raises ``TypeError``."""
        if not callable(on_event) or iscoroutinefunction(on_event):
            raise TypeError("on_event must be a callable, and no coroutine function")
        self._on_event = on_event
        self._failed = False
        self.backend = parse(source).scheme if isinstance(source, str) else ""
        """What events call the backend; of a URL the scheme, until a backend is made."""

    def tell(self, event: Event) -> None:
        """Hand over an event. What the callable raises is logged, the first time."""
        try:
            self._on_event(event)
        # Whatever a stranger's function raises must not reach the operation.
        except Exception:
            if not self._failed:
                self._failed = True
                logger.exception("on_event raised; it will not be logged if it does again")

    async def one(
        self, name: str, key: SessionKey | None, work: Callable[[], Awaitable[R]]
    ) -> R:
        """Await a whole operation, and tell of it. ``work`` is called when this is awaited, so
        that nothing is left unawaited if it never is."""
        if self.inside():
            return await work()
        operation = Operation(self, name, key)
        try:
            return await operation.run(work())
        except BaseException as error:
            operation.fail(error)
            raise
        finally:
            operation.end()

    async def each(
        self,
        name: str,
        key: SessionKey | None,
        items: AsyncGenerator[R, None],
    ) -> AsyncGenerator[R, None]:
        """Yield what a generator yields, and tell of it when that ends or is closed."""
        operation = None if self.inside() else Operation(self, name, key)
        try:
            while True:
                step = anext(items, _END)
                item = await (step if operation is None else operation.run(step))
                if isinstance(item, _End):
                    return
                yield item
        except GeneratorExit:
            raise
        except BaseException as error:
            if operation is not None:
                operation.fail(error)
            raise
        finally:
            try:
                await items.aclose()
            finally:
                if operation is not None:
                    operation.end()

    def inside(self) -> bool:
        """Whether what is called now is part of an operation of the same store."""
        outer = current()
        # A task that an operation has begun may outlive it.
        return outer is not None and outer.observer is self and not outer.over


class _End:
    """Comes behind the last item."""


_END = _End()


class Operation:
    """An operation under way: what it has cost so far. May be run in several parts."""

    __slots__ = (
        "_begun",
        "_context",
        "_error",
        "_name",
        "_outcome",
        "bytes_received",
        "bytes_sent",
        "conflicts",
        "duration",
        "items_read",
        "items_written",
        "key",
        "observer",
        "over",
        "replayed",
        "resends",
        "round_trips",
        "started_at",
        "unanswered",
        "wrote",
    )

    def __init__(self, observer: Observer, name: str, key: SessionKey | None) -> None:
        self.observer = observer
        self.key = key
        self._name = name
        self._error: str | None = None
        self._outcome: Outcome | None = None
        self._context = copy_context()  # tracing knows its parent by that
        self.round_trips = self.bytes_sent = self.bytes_received = 0
        self.items_read = self.items_written = 0
        self.conflicts = self.unanswered = self.resends = 0
        self.replayed = self.wrote = self.over = False
        self.duration = 0.0
        self.started_at = time.time_ns()
        self._begun = time.perf_counter()

    async def run(self, part: Awaitable[R]) -> R:
        """Await a part of it. What the backend is asked meanwhile, in this task or in those
        that it starts, counts for this operation."""
        token = _current.set(self)
        begun = time.perf_counter()
        try:
            return await part
        finally:
            self.duration += time.perf_counter() - begun
            _leave(token)

    async def begin(self, part: Callable[[], Awaitable[R]]) -> R:
        """The same, of a part that is called when this is awaited."""
        return await self.run(part())

    def fail(self, error: BaseException) -> None:
        """It raises this."""
        self._error = type(error).__qualname__
        if isinstance(error, PerdureError):
            self._outcome = error.outcome
        else:
            self._outcome = Outcome.UNKNOWN if self.wrote else Outcome.NOT_APPLIED

    def end(self) -> None:
        """Tell of it, in the context that it began in."""
        self.over = True
        event = Event(
            operation=self._name,
            backend=self.observer.backend,
            key=self.key,
            started_at=self.started_at,
            elapsed=time.perf_counter() - self._begun,
            duration=self.duration,
            round_trips=self.round_trips,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            items_written=self.items_written,
            items_read=self.items_read,
            conflicts=self.conflicts,
            unanswered=self.unanswered,
            resends=self.resends,
            replayed=self.replayed,
            outcome=self._outcome,
            error=self._error,
        )
        self._context.run(self.observer.tell, event)

    def received(self, rows: Sequence[Rows]) -> None:
        """The backend has sent these."""
        for some in rows:
            self.items_read += len(some.items)
            for item in some.items:
                self.bytes_received += len(item.value)


def _leave(token: Token[Operation | None]) -> None:
    try:
        _current.reset(token)
    except ValueError:  # a coroutine that nobody awaits any more is closed elsewhere
        return
