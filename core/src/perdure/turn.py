"""A turn: read, work, commit once."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from perdure.cells import Cell, Cells, CellVersion, cell_key
from perdure.client import new_id
from perdure.codec import Encoded
from perdure.errors import Conflict, Unsupported
from perdure.handle import Handle
from perdure.layout import all_of, stream_prefix
from perdure.lease import Holding, Lease
from perdure.log import Entries, Log
from perdure.operations import Block
from perdure.position import START, Position
from perdure.request import Request, View
from perdure.rewrite import Cut, cut_after
from perdure.schema import Schema, T
from perdure.settings import Settings, settings
from perdure.types import (
    Append,
    At,
    Committed,
    Condition,
    Expect,
    Head,
    Item,
    Read,
    Scan,
    same_state,
)

R = TypeVar("R")

Acquire = Callable[[], Awaitable[tuple[Holding, Head | None]]]
"""Gets an exclusive turn its lease, and the session's head by then."""


class Turn(Block, Generic[T]):
    """What one turn reads and wants to write. ``async with session.turn() as turn:``

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

    def __init__(
        self, handle: Handle, schema: Schema[T], acquire: Acquire | None = None
    ) -> None:
        self.handle = handle
        self._schema = schema
        self._acquire = acquire
        self._holding: Holding | None = None
        self._based = False
        self._entries: dict[bytes, list[Encoded]] = {}  # by the prefixes of their streams
        self._cuts: dict[bytes, tuple[Position, Cut]] = {}
        self._settings = Settings()
        self._open = self._over = False
        self._untouched = True
        self.head: Head | None = None
        """The session's head as this turn has read it; ``None``: absent, or nothing read."""
        self.committed: Committed | None = None
        """The acknowledgement, once the block has ended; ``None`` if nothing was written."""
        self.lease: Lease | None = None
        """What an exclusive turn has."""
        self.cells = TurnCells(self)
        """The session's cells, at the turn's version, own writes included."""

    @Block._entering("turn")
    async def __aenter__(self) -> Self:
        if self._open or self._over:
            raise Unsupported("a turn is entered once: begin another with session.turn()")
        if self._acquire is not None:
            self._holding, self.head = await self._acquire()
            self.lease = self._holding.lease
        elif self.handle.seen:
            self._base((await self.handle.refresh()).head)
        self._open = True
        return self

    @Block._leaving
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open, self._over = False, True
        try:
            if kind is None:
                await self._commit()
        finally:
            if self._holding is not None:
                await self._holding.end()

    def append(self, *entries: T, stream: str = "") -> None:
        """Add entries to the end of the log, or of a stream. They are encoded now: later
        changes of the objects do not matter. Raises ``InvalidValue``, ``TooLarge``."""
        self.check_open()
        prefix = stream_prefix(stream)
        if entries:
            parts = self._entries.setdefault(prefix, [])
            first = sum(part.count for part in parts)
            self._schema.check(entries, first=first)
            parts.append(self.handle.client.codec.encode_entries(entries, first=first))

    async def entries(
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
        log: Log[T] = Log(
            last=last,
            limit=limit,
            after=after,
            before=before,
            stream=stream,
            type=self._schema.type,
            migrate=self._schema.migrate,
        )
        return await self.read_one(log)

    @Block._part
    async def read(self, *requests: Request[Any]) -> tuple[Any, ...]:
        """Several things at the turn's version, in one round trip. Own writes do not show.

        In an exclusive turn they are of one version, which may be a later one than that of
        the read before. The first read shows at least what was there when the turn began: the
        log, if the handle had read it before, without a round trip.
        """
        self.check_open()
        if self._holding is not None:
            requests = tuple(map(self.cells.noting, requests))
        current = self._based if self._holding is None else self._untouched
        self._untouched = False
        held = self.handle.held(requests, self.head) if current else None
        if held is not None:
            return tuple(held)
        view, answers = await self.handle.read(requests)
        self._base(view.head)
        return tuple(answers)

    @Block._part
    async def truncate(self, *, after: Position, stream: str = "") -> None:
        """Remove what the log, or a stream, held behind a position; what this turn appends
        comes then. In an exclusive turn what others append meanwhile goes too."""
        self.check_open()
        prefix = stream_prefix(stream)
        if prefix in self._cuts and after >= self._cuts[prefix][0]:
            return  # what is behind it goes already
        cut = await cut_after(self.handle.client, self.handle.key, prefix, after)
        if cut is None or cut.head is not None:
            self._base(None if cut is None else cut.head)
        self._cuts[prefix] = after, cut or Cut()

    def clear(self, *, stream: str = "") -> None:
        """Remove all that the log, or a stream, held; what this turn appends comes then."""
        self.check_open()
        prefix = stream_prefix(stream)
        self._cuts[prefix] = START, Cut(deletes=(all_of(prefix),))

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
        self.check_open()
        changes = settings(
            meta=meta,
            labels=labels,
            expires_in=expires_in,
            expires_at=expires_at,
            never_expires=never_expires,
        )
        if "expires_at" in changes:
            self._settings.pop("expires_in", None)
        elif "expires_in" in changes:
            self._settings.pop("expires_at", None)
        self._settings |= changes

    def check_open(self) -> None:
        if not self._open:
            raise Unsupported("this turn is over, or was not entered: use it in `async with`")
        if self._holding is not None:
            self._holding.check()

    async def read_one(self, request: Request[R]) -> R:
        (answer,) = await self.read(request)
        return answer

    def _base(self, head: Head | None) -> None:
        """Fix the version that the turn is based on, or see that it has not moved."""
        if self._holding is not None:
            self._holding.check_alive(head)
            self.head = head
        elif not self._based:
            self._based, self.head = True, head
        elif not same_state(head, self.head):
            raise Conflict(
                "the session was changed by another writer during this turn; nothing was "
                "written: begin the turn again",
                head=head,
            )

    async def _commit(self) -> None:
        codec = self.handle.client.codec
        puts, deletes = self.cells.changes()
        conditions = ()
        for _, cut in self._cuts.values():
            deletes = cut.deletes + deletes
            puts = cut.puts + puts
            conditions += cut.conditions
        if not (self._entries or puts or deletes or self._settings):
            if self._holding is not None:
                await self._holding.commit()
            return
        only_removes = not (self._entries or puts or self._settings)
        expect: Expect | At = Expect.PRESENT if only_removes else Expect.ANY
        if self._based:
            expect = At(self.head.version, self.head.tip) if self.head else Expect.ABSENT
        if only_removes and expect is Expect.ABSENT:
            return  # there is nothing to remove it from
        id = new_id()
        commit = self.handle.commit
        if self._holding is not None:
            expect, commit = Expect.ANY, self._holding.commit
            conditions += self.cells.conditions()
        try:
            self.committed = await commit(
                id=id,
                expect=expect,
                conditions=conditions,
                deletes=deletes,
                puts=puts,
                appends=tuple(
                    Append(prefix, codec.rows(id, parts))
                    for prefix, parts in self._entries.items()
                ),
                **self._settings,
            )
        except Conflict as conflict:
            if expect is not Expect.PRESENT or conflict.head is not None:
                raise
        self._entries.clear()  # the turn may be kept for its acknowledgement


class TurnCells:
    """The cells as a turn sees them: reads at the turn's version, own writes included."""

    def __init__(self, turn: Turn[Any]) -> None:
        self._turn = turn
        self._rows: dict[bytes, bytes | None] = {}
        self._versions: dict[bytes, int] = {}  # as an exclusive turn has read them; 0: absent
        self._scans: list[Scan] = []  # what else it has found absent

    async def get(self, name: str, default: Any = None) -> Any:
        """The cell's value, or ``default``. One round trip unless this turn wrote it."""
        key = cell_key(name)
        if key not in self._rows:
            return await self._turn.read_one(Cell(name, default))
        row = self._rows[key]
        if row is None:
            return default
        handle = self._turn.handle
        return handle.client.codec.open(handle.key, Item(key, row, 0))

    def __setitem__(self, name: str, value: Any) -> None:
        """Write a cell with the turn's commit; encoded now."""
        self._turn.check_open()
        handle = self._turn.handle
        row = handle.client.codec.seal(handle.key, value, path=f"cells[{name!r}]")
        self._rows[cell_key(name)] = row

    def __delitem__(self, name: str) -> None:
        """Remove a cell with the turn's commit, whether it exists or not."""
        self._turn.check_open()
        self._rows[cell_key(name)] = None

    def changes(self) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[bytes, ...]]:
        """(puts, deletes) for the commit."""
        puts = tuple((key, row) for key, row in self._rows.items() if row is not None)
        return puts, tuple(key for key, row in self._rows.items() if row is None)

    def noting(self, request: Request[Any]) -> Request[Any]:
        """The same request, which notes what versions the cells have that it finds."""
        return (
            Noting(request, self)
            if isinstance(request, Cell | CellVersion | Cells)
            else request
        )

    def note(self, read: Read, items: Sequence[Item]) -> None:
        """What was found by a read of cells; what the turn has seen first counts."""
        for item in items:
            if self._seen(item.key) is None:
                self._versions[item.key] = item.version
        if isinstance(read, Scan):
            if read.limit is None:
                self._scans.append(read)
        elif not items:
            self._versions.setdefault(read.key, 0)

    def conditions(self) -> tuple[Condition, ...]:
        """That the cells which the turn writes are as it has read them, if it has."""
        seen = ((key, self._seen(key)) for key in self._rows)
        return tuple(Condition(key, version) for key, version in seen if version is not None)

    def _seen(self, key: bytes) -> int | None:
        if key not in self._versions and any(
            scan.start <= key and (scan.stop is None or key < scan.stop) for scan in self._scans
        ):
            return 0
        return self._versions.get(key)


class Noting(Request[Any]):
    """A request for cells that has a turn note what it finds."""

    def __init__(self, request: Request[Any], cells: TurnCells) -> None:
        self._request = request
        self._cells = cells

    def compile(self) -> Read:
        return self._request.compile()

    def enough(self, items: Sequence[Item], view: View) -> bool:
        return self._request.enough(items, view)

    def answer(self, items: Sequence[Item], view: View) -> Any:
        self._cells.note(self.compile(), items)
        return self._request.answer(items, view)
