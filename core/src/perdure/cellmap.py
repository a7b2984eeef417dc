"""A session's cells, as a handle offers them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perdure.cells import Cell, Cells, CellVersion, Versioned, cell_key
from perdure.errors import Conflict, InvalidKey, SessionDeleted
from perdure.handle import Handle
from perdure.operations import OnSession
from perdure.settings import milliseconds, moment
from perdure.types import Condition, Expect, Get


class CellMap(OnSession):
    """An ordered map of strings to values. ``Session.cells``."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @OnSession._operation("cells.get")
    async def get(self, name: str, default: Any = None) -> Any:
        """The cell's value, or ``default``. One round trip."""
        _, (value,) = await self._handle.read([Cell(name, default)])
        return value

    @OnSession._operation("cells.get_versioned")
    async def get_versioned(self, name: str) -> Versioned[Any] | None:
        """The cell's value with its version, for ``expect=``; ``None`` if there is none."""
        _, (value,) = await self._handle.read([CellVersion(name)])
        return value

    @OnSession._operation("cells.scan")
    async def scan(
        self,
        prefix: str = "",
        *,
        start: str | None = None,
        stop: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> dict[str, Any]:
        """A range of cells in key order, as of one version. See :class:`perdure.Cells`."""
        request = Cells(prefix, start=start, stop=stop, limit=limit, reverse=reverse)
        _, (value,) = await self._handle.read([request])
        return value

    @OnSession._operation("cells.put")
    async def put(
        self,
        name: str,
        value: Any,
        *,
        expect: int | None = None,
        expires_in: float | None = None,
        expires_at: datetime | None = None,
    ) -> int:
        """Write a cell and return its version. Creates the session if it is absent.

        ``expect``: the version that the cell must have (0: none), else ``Conflict``.
        ``expires_in``: seconds, by the backend's clock; asking that clock costs a second
        round trip. Or ``expires_at``, a time with its zone. Raises ``InvalidValue``,
        ``InvalidKey``, ``TooLarge``, ``SessionDeleted``.
        """
        key = cell_key(name)
        handle = self._handle
        if expires_in is not None and expires_at is not None:
            raise InvalidKey("give one of expires_in and expires_at")
        until = None if expires_at is None else moment(expires_at)
        if expires_in is not None:
            lasting = milliseconds(expires_in)
            until = (await handle.refresh()).now + lasting
        codec = handle.client.codec
        row = codec.seal(handle.key, value, path=f"cells[{name!r}]", expires_at=until)
        conditions = () if expect is None else (Condition(key, expect),)
        try:
            result = await handle.commit(puts=((key, row),), conditions=conditions)
        except Conflict:
            if expect != 0:
                raise
            # A cell that has expired is absent to the caller, though not to the backend.
            snapshot = await handle.client.snapshot(handle.key, Get(key))
            lapsed = snapshot.rows[0].items
            until = codec.expires_at(lapsed[0].value) if lapsed else None
            if until is None or until > snapshot.now:
                raise
            conditions = (Condition(key, lapsed[0].version),)
            try:
                result = await handle.commit(
                    puts=((key, row),), conditions=conditions, on=snapshot.head
                )
            except SessionDeleted as gone:
                if handle.incarnation is not None:
                    raise
                raise Conflict(
                    "the session was replaced by another; nothing was written", head=gone.head
                ) from gone
        return result.version

    @OnSession._operation("cells.update")
    async def update(self, cells: Mapping[str, Any]) -> int:
        """Write several cells in one commit and return their version."""
        if not cells:
            raise TypeError("update() needs at least one cell")
        handle = self._handle
        codec = handle.client.codec
        puts = tuple(
            (cell_key(name), codec.seal(handle.key, value, path=f"cells[{name!r}]"))
            for name, value in cells.items()
        )
        return (await handle.commit(puts=puts)).version

    @OnSession._operation("cells.delete")
    async def delete(self, *names: str) -> None:
        """Remove cells in one commit. Does nothing where there is no session."""
        keys = tuple(cell_key(name) for name in names)
        if not keys:
            return
        try:
            await self._handle.commit(deletes=keys, expect=Expect.PRESENT)
        except Conflict:
            return  # no session, no cells
