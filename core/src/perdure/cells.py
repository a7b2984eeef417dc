"""Cells: a session's ordered, keyed collection; state is one use of it."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from perdure.layout import CELL, CELL_STOP, prefix_stop
from perdure.log import check_count
from perdure.request import Request, View
from perdure.types import Get, Item, Scan, check_identifier

D = TypeVar("D")

MAX_CELL_KEY_BYTES = 500
"""Longest cell key, in UTF-8 bytes."""


def cell_key(name: object) -> bytes:
    """The item key of a cell. Raises :class:`InvalidKey`."""
    return CELL + check_identifier("cell key", name, MAX_CELL_KEY_BYTES).encode()


class Versioned(msgspec.Struct, Generic[D], frozen=True):
    """A value with the version of the commit that wrote it, for use as ``expect=``."""

    value: D
    version: int


class Cell(Request[Any]):
    """One cell's value, or ``default`` where there is none or it has expired."""

    def __init__(self, name: str, default: Any = None) -> None:
        self._key = cell_key(name)
        self._default = default

    def compile(self) -> Get:
        return Get(self._key)

    def answer(self, items: Sequence[Item], view: View) -> Any:
        live = live_cells(items, view)
        return view.codec.open(view.key, live[0]) if live else self._default


class CellVersion(Request["Versioned[Any] | None"]):
    """One cell with the version that wrote it; ``None`` where there is none."""

    def __init__(self, name: str) -> None:
        self._key = cell_key(name)

    def compile(self) -> Get:
        return Get(self._key)

    def answer(self, items: Sequence[Item], view: View) -> "Versioned[Any] | None":
        live = live_cells(items, view)
        if not live:
            return None
        return Versioned(view.codec.open(view.key, live[0]), live[0].version)


class Cells(Request[dict[str, Any]]):
    """A range of cells in key order (by code point; last first with ``reverse``).

    ``start`` is inclusive and ``stop`` exclusive; ``prefix`` narrows both.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        start: str | None = None,
        stop: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> None:
        check_count("limit", limit)
        low = cell_key(prefix) if prefix else CELL
        high = prefix_stop(low) if prefix else CELL_STOP
        if start is not None:
            low = max(low, cell_key(start) if start else CELL)
        if stop is not None:
            bound = cell_key(stop) if stop else CELL
            high = bound if high is None else min(high, bound)
        if high is not None and low > high:
            low = high
        most = None if limit is None else max(1, limit)
        self._scan = Scan(low, high, limit=most, reverse=reverse)
        self._limit = limit

    def compile(self) -> Scan:
        return self._scan

    def enough(self, items: Sequence[Item], view: View) -> bool:
        return self._limit is not None and len(live_cells(items, view)) >= self._limit

    def answer(self, items: Sequence[Item], view: View) -> dict[str, Any]:
        live = live_cells(items, view)
        return {
            item.key[len(CELL) :].decode(): view.codec.open(view.key, item)
            for item in (live if self._limit is None else live[: self._limit])
        }


def live_cells(items: Sequence[Item], view: View) -> list[Item]:
    """The cells that have not expired by the snapshot's clock."""
    live: list[Item] = []
    for item in items:
        expires_at = view.codec.expires_at(item.value)
        if expires_at is None or expires_at > view.now:
            live.append(item)
    return live
