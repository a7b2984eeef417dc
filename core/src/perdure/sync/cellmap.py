"""Twins of :mod:`perdure.cellmap`, written by ``python -m tests.core.sync.generate``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perdure import cellmap as asynchronous
from perdure.background import Background
from perdure.cells import Versioned


class CellMap:
    """An ordered map of strings to values. ``Session.cells``."""

    __slots__ = ("_background", "_cellmap")

    def __init__(self, of: asynchronous.CellMap, background: Background) -> None:
        self._cellmap = of
        self._background = background

    def get(self, name: str, default: Any = None) -> Any:
        """The cell's value, or ``default``. One round trip."""
        return self._background.run(self._cellmap.get(name, default))

    def get_versioned(self, name: str) -> Versioned[Any] | None:
        """The cell's value with its version, for ``expect=``; ``None`` if there is none."""
        return self._background.run(self._cellmap.get_versioned(name))

    def scan(
        self,
        prefix: str = "",
        *,
        start: str | None = None,
        stop: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> dict[str, Any]:
        """A range of cells in key order, as of one version. See :class:`perdure.Cells`."""
        return self._background.run(
            self._cellmap.scan(prefix, start=start, stop=stop, limit=limit, reverse=reverse)
        )

    def put(
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
        return self._background.run(
            self._cellmap.put(
                name, value, expect=expect, expires_in=expires_in, expires_at=expires_at
            )
        )

    def update(self, cells: Mapping[str, Any]) -> int:
        """Write several cells in one commit and return their version."""
        return self._background.run(self._cellmap.update(cells))

    def delete(self, *names: str) -> None:
        """Remove cells in one commit. Does nothing where there is no session."""
        self._background.run(self._cellmap.delete(*names))
