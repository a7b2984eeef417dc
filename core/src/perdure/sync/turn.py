"""Twins of :mod:`perdure.turn`, written by ``python -m tests.core.sync.generate``."""

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self

from perdure import turn as asynchronous
from perdure.background import Background
from perdure.lease import Lease
from perdure.log import Entries
from perdure.position import Position
from perdure.request import Request
from perdure.schema import T
from perdure.types import Committed, Condition, Head, Item, Read


class TurnCells:
    """The cells as a turn sees them: reads at the turn's version, own writes included."""

    __slots__ = ("_background", "_turncells")

    def __init__(self, of: asynchronous.TurnCells, background: Background) -> None:
        self._turncells = of
        self._background = background

    def get(self, name: str, default: Any = None) -> Any:
        """The cell's value, or ``default``. One round trip unless this turn wrote it."""
        return self._background.run(self._turncells.get(name, default))

    def __setitem__(self, name: str, value: Any) -> None:
        """Write a cell with the turn's commit; encoded now."""
        self._turncells[name] = value

    def __delitem__(self, name: str) -> None:
        """Remove a cell with the turn's commit, whether it exists or not."""
        del self._turncells[name]

    def changes(self) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[bytes, ...]]:
        """(puts, deletes) for the commit."""
        return self._turncells.changes()

    def noting(self, request: Request[Any]) -> Request[Any]:
        """The same request, which notes what versions the cells have that it finds."""
        return self._turncells.noting(request)

    def note(self, read: Read, items: Sequence[Item]) -> None:
        """What was found by a read of cells; what the turn has seen first counts."""
        self._turncells.note(read, items)

    def conditions(self) -> tuple[Condition, ...]:
        """That the cells which the turn writes are as it has read them, if it has."""
        return self._turncells.conditions()


class Turn(Generic[T]):
    """What one turn reads and wants to write. ``with session.turn() as turn:``

    Everything read in it is of one version, ``head``; everything written goes in one commit
    when the block ends, on the condition that the session is still at that version. Raises
    ``Conflict`` if it is not: nothing was written, and the turn must be done again on what
    is there now. A block that raises writes nothing.

    On a handle that has seen its session, the turn begins by reading what is new. On one that
    has not, the first read inside fixes the version; a turn that reads nothing has nothing
    to protect and is applied whatever the session's version.

    An exclusive turn holds the session's lease instead, so that no other exclusive turn works
    on it at the same time. Others may write to it meanwhile, and what they write does not stop
    the turn: each read shows what there is by then, and the commit requires that the lease was
    not lost (``LeaseLost``) and that the cells that the turn has read and writes are as it has
    first read them (``Conflict``). It gives the lease back, as does a block that raises.
    """

    __slots__ = ("_background", "_turn")

    def __init__(self, of: asynchronous.Turn[T], background: Background) -> None:
        self._turn = of
        self._background = background

    @property
    def head(self) -> Head | None:
        """The session's head as this turn has read it; ``None``: absent, or nothing read."""
        return self._turn.head

    @property
    def committed(self) -> Committed | None:
        """The acknowledgement, once the block has ended; ``None`` if nothing was written."""
        return self._turn.committed

    @property
    def lease(self) -> Lease | None:
        """What an exclusive turn has."""
        return self._turn.lease

    @property
    def cells(self) -> TurnCells:
        """The session's cells, at the turn's version, own writes included."""
        return TurnCells(self._turn.cells, self._background)

    def __enter__(self) -> Self:
        self._background.run(self._turn.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._background.run(self._turn.__aexit__(kind, error, trace))

    def append(self, *entries: T, stream: str = "") -> None:
        """Add entries to the end of the log, or of a stream. They are encoded now: later
        changes of the objects do not matter. Raises ``InvalidValue``, ``TooLarge``."""
        self._turn.append(*entries, stream=stream)

    def entries(
        self,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
        stream: str = "",
    ) -> Entries[T]:
        """Entries of the log, or of a stream, as the turn found it, without what it appends
        itself."""
        return self._background.run(
            self._turn.entries(
                last=last, limit=limit, after=after, before=before, stream=stream
            )
        )

    def read(self, *requests: Request[Any]) -> tuple[Any, ...]:
        """Several things at the turn's version, in one round trip. Own writes do not show.

        In an exclusive turn they are of one version, which may be a later one than that of
        the read before. The first read shows at least what was there when the turn began: the
        log, if the handle had read it before, without a round trip.
        """
        return self._background.run(self._turn.read(*requests))

    def truncate(self, *, after: Position, stream: str = "") -> None:
        """Remove what the log, or a stream, held behind a position; what this turn appends
        comes then. In an exclusive turn what others append meanwhile goes too."""
        self._background.run(self._turn.truncate(after=after, stream=stream))

    def clear(self, *, stream: str = "") -> None:
        """Remove all that the log, or a stream, held; what this turn appends comes then."""
        self._turn.clear(stream=stream)

    def set(
        self,
        *,
        meta: bytes | None = None,
        labels: tuple[str, ...] | None = None,
        expires_in: float | None = None,
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> None:
        """Set the session's meta, labels or expiry with this commit; see ``Session.set``."""
        self._turn.set(
            meta=meta,
            labels=labels,
            expires_in=expires_in,
            expires_at=expires_at,
            never_expires=never_expires,
        )
