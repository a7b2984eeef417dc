"""Values derived from a stream, read together with the entries after what they reflect."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, overload

import msgspec

from perdure.handle import Handle
from perdure.layout import all_of, rows_stop, stream_prefix
from perdure.log import Entries, Log
from perdure.position import Position, parse_position
from perdure.request import Request, View
from perdure.schema import T
from perdure.types import Item, Scan, check_identifier

MAX_NAME_BYTES = 24
"""Longest name of a derived value, in UTF-8 bytes: beside that of its stream it must fit an
item key."""

FIRST_PAGE = 64 * 1024
"""So many bytes are read at first, from the end of the stream back: what was derived and, as a
rule, all entries after it."""


class Resumed(msgspec.Struct, Generic[T], frozen=True):
    """What was derived from a stream, and how it went on."""

    value: Any
    """``None``: nothing was derived, or the entry that it reflects last is gone."""
    position: Position | None
    """The last entry that ``value`` reflects; ``None`` if there is no value."""
    entries: Entries[T]
    """The entries behind that one; all entries of the stream if there is no value."""


class Derived(Request[Resumed[T]]):
    """The value derived from the log, or a stream, under a name, with the entries after it.

    One scan from the end of the stream to where the value stands, so that it costs in
    proportion to what is returned, and to other values derived from the same stream.
    """

    @overload
    def __init__(self: "Derived[Any]", name: str, *, stream: str = "") -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        stream: str = "",
        type: type[T],
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        stream: str = "",
        type: Any = Any,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        self._prefix = stream_prefix(stream)
        self._key = derived_key(self._prefix, name)
        self._stream = stream
        self._type = type
        self._migrate = migrate

    def compile(self) -> Scan:
        whole = all_of(self._prefix)
        return Scan(whole.start, whole.stop, reverse=True, max_bytes=FIRST_PAGE)

    def enough(self, items: Sequence[Item], view: View) -> bool:
        found, _ = self._derived(items, view)
        if found is None:
            return False
        row_key = self._prefix + parse_position(found)[0]
        # With the row of the entry itself: if that is not there, all rows are asked for.
        return items[-1].key <= row_key and self._holds(items, found, view)

    def answer(self, items: Sequence[Item], view: View) -> Resumed[T]:
        position, value = self._derived(items, view)
        stop = rows_stop(self._prefix)
        rows = [item for item in reversed(items) if item.key < stop]
        if position is not None and not self._holds(rows, position, view):
            position = value = None
        log: Log[T] = Log(
            after=position, stream=self._stream, type=self._type, migrate=self._migrate
        )
        if position is not None:
            row_key = self._prefix + parse_position(position)[0]
            rows = [row for row in rows if row.key >= row_key]
        return Resumed(value, position, log.select(rows, view))

    def _derived(self, items: Sequence[Item], view: View) -> tuple[Position | None, Any]:
        """What is stored under the name: the position it reflects, and the value."""
        for item in items:
            if item.key == self._key:
                pair = view.codec.open_own(view.key, item, tuple[str, Any])
                return Position(pair[0]), pair[1]
            if item.key < self._key:
                break
        return None, None

    def _holds(self, rows: Sequence[Item], position: Position, view: View) -> bool:
        """Whether the entry at a position is still in the stream."""
        row, index = parse_position(position)
        for item in rows:
            if item.key == self._prefix + row:
                first, count = view.codec.row_span(item.value)
                return first <= index < first + count
        return False


def derived_key(prefix: bytes, name: object) -> bytes:
    """The item key of a value derived from a stream. Raises :class:`InvalidKey`."""
    return rows_stop(prefix) + check_identifier("name", name, MAX_NAME_BYTES).encode()


async def derive(handle: Handle, name: str, value: Any, at: Position, stream: str) -> None:
    """Keep a value derived from a stream up to the entry ``at``. Raises ``InvalidValue``,
    ``TooLarge``, ``InvalidKey``, ``SessionDeleted``."""
    key = derived_key(stream_prefix(stream), name)
    parse_position(at)
    codec = handle.client.codec
    row = codec.seal(handle.key, (at, value), path=f"derived[{name!r}]")
    await handle.commit(puts=((key, row),))
