"""Streams, of which the log is one: what is read of them, and where their entries stand."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, overload

import msgspec

from perdure.codec import Codec
from perdure.errors import InvalidKey
from perdure.layout import rows_stop, stream_prefix, successor
from perdure.position import Position, parse_position, position_of
from perdure.request import Request, View
from perdure.schema import Schema, T
from perdure.types import Head, Item, Scan

ENTRY_BYTES = 1024
"""A limited read of the log stops first after so many bytes per entry asked for: rows hold
several entries, so that as many rows as entries may be far too much. It goes on if that was
too little."""


MAX_COUNT = 1 << 53
"""Larger counts are mistakes, and overflow some backends' integers."""


class Entry(msgspec.Struct, Generic[T], frozen=True):
    """One entry of a stream and where it stands."""

    position: Position
    value: T


class Span(msgspec.Struct, frozen=True, gc=False):
    """The part of one row that was asked for."""

    item: Item
    first: int
    """Index of the row's first entry."""
    skip: int
    take: int


class Entries(list[T]):
    """Entries of a stream, oldest first: a plain list that also knows where they stand."""

    __slots__ = ("head", "spans")

    def __init__(
        self,
        values: Sequence[T] = (),
        spans: Sequence[Span] = (),
        head: Head | None = None,
    ) -> None:
        super().__init__(values)
        self.spans = spans
        """The rows that the entries were read from."""
        self.head = head
        """The session's head as of this read; ``None`` if it was absent."""

    @property
    def positions(self) -> list[Position]:
        """The position of each entry as read, whatever was done to the list since."""
        return [
            position_of(span.item.key, span.first + span.skip + index)
            for span in self.spans
            for index in range(span.take)
        ]


def check_count(name: str, count: object) -> None:
    """Raise :class:`InvalidKey` unless ``count`` is ``None`` or a sensible number."""
    if count is not None and (type(count) is not int or not 0 <= count < MAX_COUNT):
        raise InvalidKey(f"{name} must be an int from 0 up, not {count!r}")


class Log(Request[Entries[T]]):
    """Entries of the session's log, or of the ``stream`` of that name, oldest first.

    ``last``: the last so many. ``limit``: the first so many. ``after`` and ``before`` are
    positions and exclusive. Costs in proportion to what is returned. A position of another
    stream selects by where it would stand here; a long entry that ``before`` falls inside is
    left out. With a ``type``, entries are decoded to it; ``migrate`` is as
    :meth:`perdure.Scope.session` says.
    """

    @overload
    def __init__(
        self: "Log[Any]",
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
        stream: str = "",
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
        stream: str = "",
        type: type[T],
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
        stream: str = "",
        type: Any = Any,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        if last is not None and limit is not None:
            raise InvalidKey("give last or limit, not both")
        for name, count in (("last", last), ("limit", limit)):
            check_count(name, count)
        self.count = last if last is not None else limit
        self.from_end = last is not None
        self.prefix = stream_prefix(stream)
        self.schema: Schema[T] = Schema(type, migrate)
        self.after = self._point(after)
        self.before = self._point(before)

    def _point(self, position: Position | None) -> tuple[bytes, int] | None:
        """The key of a row of this stream and an index."""
        if position is None:
            return None
        row, index = parse_position(position)
        return self.prefix + row, index

    @property
    def whole(self) -> bool:
        """Whether this asks for everything."""
        return self.count is None and self.after is None and self.before is None

    @property
    def tail(self) -> bool:
        """Whether this asks for the last entries there are."""
        return self.from_end and self.after is None and self.before is None

    def covered_by(self, items: Sequence[Item], codec: Codec) -> bool:
        """Whether the last rows of the log, in key order, hold all that is asked for."""
        return self.count is not None and (
            sum(span.take for span in self._spans(items, codec)) >= self.count
        )

    def compile(self) -> Scan:
        # The rows at both ends may hold entries on either side of the position.
        start = self.after[0] if self.after else self.prefix
        stop = successor(self.before[0]) if self.before else rows_stop(self.prefix)
        if self.count is None:
            return Scan(start, stop)
        return Scan(
            start,
            stop,
            limit=self.count + 2,
            reverse=self.from_end,
            max_bytes=self.count * ENTRY_BYTES,
        )

    def enough(self, items: Sequence[Item], view: View) -> bool:
        """Of rows in the order scanned; what is cut off at the far end does not count."""
        if self.count is None:
            return False
        if self.tail:  # all rows count in full
            left = self.count
            for item in items:
                left -= view.codec.row_count(item.value)
                if left <= 0:
                    return True
            return False
        spans = self._spans(items[::-1] if self.from_end else items, view.codec)
        if spans and not self.from_end and view.codec.more_fragments(spans[-1].item.value):
            return False
        return sum(span.take for span in spans) >= self.count

    def answer(self, items: Sequence[Item], view: View) -> Entries[T]:
        return self.select(items[::-1] if self.from_end else items, view)

    def select(self, items: Sequence[Item], view: View) -> Entries[T]:
        """The entries asked for, out of rows in key order that hold at least these."""
        if self.whole:
            rows = self.schema.unpack(view.codec, view.key, items)
            return Entries(
                list(chain.from_iterable(rows)), WholeSpans(items, rows, view.codec), view.head
            )
        spans = self._spans(items, view.codec)
        rows = self.schema.unpack(view.codec, view.key, [span.item for span in spans])
        values = [
            value
            for span, row in zip(spans, rows, strict=True)
            for value in row[span.skip : span.skip + span.take]
        ]
        return Entries(values, spans, view.head)

    def _spans(self, items: Sequence[Item], codec: Codec) -> list[Span]:
        """What is asked for of each row, from ``items`` in key order, which may be cut off
        anywhere; touches only the rows it needs.

        The later fragments of a long entry are rows that hold no entry of their own; they
        follow the one that does, and are taken if it is.
        """
        left = self.count
        spans: list[Span] = []
        fragments: list[Span] = []  # met before the row they belong to, reading backwards
        taking = False
        # A position of another log may point into a long entry, whose end is then not there.
        cut_off = self.from_end and self._ends_inside(items, codec)
        for item in reversed(items) if self.from_end else items:
            first, count = codec.row_span(item.value)
            if left == 0 and (self.from_end or count):
                break
            skip, take = self._within(item.key, first, count)
            if left is not None and take > left:
                skip += take - left if self.from_end else 0
                take = left
            span = Span(item, first, skip, take)
            if count == 0 and self.from_end:
                fragments.append(span)
            elif count == 0:
                if taking:
                    spans.append(span)
            else:
                taking = take > 0 and not cut_off
                cut_off = False
                if taking:
                    spans += fragments
                    spans.append(span)
                    if left is not None:
                        left -= take
                fragments = []
        if self.from_end:
            return spans[::-1]
        if spans and self._ends_inside([spans[-1].item], codec):
            while not spans.pop().take:
                pass
        return spans

    def _ends_inside(self, items: Sequence[Item], codec: Codec) -> bool:
        """Whether the range asked for ends between the fragments of an entry."""
        return (
            self.before is not None
            and bool(items)
            and items[-1].key >= self.before[0]
            and codec.more_fragments(items[-1].value)
        )

    def _within(self, key: bytes, first: int, count: int) -> tuple[int, int]:
        """(entries to skip, entries to take) of a row, by the positions alone."""
        skip, stop = 0, count
        if self.after is not None:
            row, index = self.after
            if key < row:
                return 0, 0
            if key == row:
                skip = min(max(0, index + 1 - first), count)
        if self.before is not None:
            row, index = self.before
            if key > row:
                return 0, 0
            if key == row:
                stop = min(stop, max(0, index - first))
        return skip, max(0, stop - skip)


class WholeSpans(Sequence[Span]):
    """Spans of whole rows, made only if somebody asks for positions."""

    def __init__(self, items: Sequence[Item], rows: Sequence[list[Any]], codec: Codec) -> None:
        self._items = items
        self._rows = [len(row) for row in rows]
        self._codec = codec

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Span: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Span]: ...
    def __getitem__(self, index: int | slice) -> Span | Sequence[Span]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        item = self._items[index]
        return Span(item, self._codec.row_span(item.value)[0], 0, self._rows[index])

    def __iter__(self) -> Iterator[Span]:
        return (self[index] for index in range(len(self)))
