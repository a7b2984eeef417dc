"""Rows as they are stored: packed log entries, cells, and opaque bytes."""

import gc
import struct
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import msgspec

from perdure.codec.conversion import MAX_VALUE_BYTES, too_large
from perdure.codec.envelope import (
    BYTES,
    EXPIRES,
    EXTENDED,
    FRAGMENT,
    KIND,
    LOG,
    MORE_FRAGMENTS,
    PREFIX_BYTES,
    VALUE,
    flags_of,
    unwrap,
    wrap,
)
from perdure.codec.log_rows import (
    COMMIT_ID_BYTES,
    HEADER_BYTES,
    ROW_BYTES,
    commit_id_of,
    encoded_entries,
    fragmented_entry,
    log_flags,
    make_row,
    make_rows,
    numbers_of,
    row_entries,
    usual_rows,
)
from perdure.codec.values import concatenate, decode, encode, encode_entries, join, split
from perdure.errors import Corrupt, FormatTooNew, InvalidValue, PerdureError, Undecryptable
from perdure.types import Item, SessionKey

T = TypeVar("T")

COMPRESS_MIN = 8 * 1024
"""Shorter bodies are not compressed: reading them back would cost more than it saves."""

COMPRESS_SEALED_MIN = 1024
"""The same where rows are encrypted: no database or file system can compress them after us."""

_EXPIRY = struct.Struct(">Q")

_PAUSE_GC = 50
"""From so many rows on the cyclic collector is paused while they are decoded. The thousands of
containers made in one go are all alive; looking for garbage among them is a waste that grows
with the log (an eighth of the time at 1 000 turns, two thirds at 5 000)."""

_READING = (Corrupt, FormatTooNew, InvalidValue)
"""What reading a row raises, and gets its place added to."""


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """Entries, checked and encoded, as one array."""

    body: bytes
    count: int
    extended: bool


class Codec:
    """Makes rows and reads them. Immutable; one serves any number of threads.

    Every method takes the place of what it packs or unpacks, the session's key and the items
    themselves: errors name it.

    Reading raises ``Corrupt`` for bytes that no perdure wrote, ``FormatTooNew`` for those of a
    newer one, and ``Undecryptable`` for encrypted ones.
    """

    __slots__ = ("_compress_min",)

    def __init__(self, *, compress_min: int | None = COMPRESS_MIN) -> None:
        """``compress_min``: compress bodies from so many bytes on; ``None``: none."""
        self._compress_min = compress_min

    # The log

    def pack(
        self, key: SessionKey, commit_id: bytes, entries: Sequence[object]
    ) -> tuple[bytes, ...]:
        """The rows that hold ``entries``, in order: what one commit appends to one stream.

        One row as a rule; several if the entries take more than ``ROW_BYTES``, cut between
        entries where possible. Errors speak of ``entries[3].content`` and the like. Raises
        ``InvalidValue`` and ``TooLarge``.
        """
        _check_commit_id(commit_id)
        if not entries:
            return ()
        body, extended = encode_entries(entries)
        return self._rows(commit_id, len(entries), body, extended)

    def encode_entries(self, entries: Sequence[object], *, first: int = 0) -> Encoded:
        """Entries for :meth:`rows`; later changes of the objects do not matter.

        Raises ``InvalidValue`` and ``TooLarge``, which count the entries from ``first``.
        """
        body, extended = encode_entries(entries, first=first)
        if len(body) > MAX_VALUE_BYTES:
            for index, entry in enumerate(split(body), first):
                if len(entry) > MAX_VALUE_BYTES:
                    raise too_large(f"entries[{index}]", len(entry))
        return Encoded(body, len(entries), extended)

    def rows(self, commit_id: bytes, parts: Sequence[Encoded]) -> tuple[bytes, ...]:
        """:meth:`pack` for entries that are encoded already."""
        _check_commit_id(commit_id)
        if not parts:
            return ()
        counts = [part.count for part in parts]
        body = concatenate([part.body for part in parts], counts)
        extended = any(part.extended for part in parts)
        return self._rows(commit_id, sum(counts), body, extended)

    def _rows(
        self, commit_id: bytes, count: int, body: bytes, extended: bool
    ) -> tuple[bytes, ...]:
        if len(body) <= ROW_BYTES:
            flags = EXTENDED if extended else 0
            return (make_row(flags, commit_id, 0, count, body, self._compress_min),)
        return tuple(make_rows(commit_id, extended, split(body), self._compress_min))

    @overload
    def unpack(self, key: SessionKey, items: Sequence[Item]) -> list[list[Any]]: ...
    @overload
    def unpack(
        self, key: SessionKey, items: Sequence[Item], type: type[T]
    ) -> list[list[T]]: ...
    @overload
    def unpack(self, key: SessionKey, items: Sequence[Item], type: Any) -> list[list[Any]]: ...
    def unpack(
        self, key: SessionKey, items: Sequence[Item], type: Any = Any
    ) -> list[list[Any]]:
        """The entries of each row, aligned with ``items``, which follow one another in a log.

        An entry in fragments stands in the slot of its first; the slots of the others are
        empty. With a ``type``, entries are decoded to it by msgspec, and ``InvalidValue`` says
        which one does not fit. ``Corrupt`` also if a fragment is missing.
        """
        pause = len(items) >= _PAUSE_GC and gc.isenabled()
        if pause:
            gc.disable()
        try:
            rows = usual_rows(items, type)
            return rows if rows is not None else list(self._any_rows(key, items, type))
        finally:
            if pause:
                gc.enable()

    def _any_rows(
        self, key: SessionKey, items: Sequence[Item], type: Any
    ) -> Iterator[list[Any]]:
        index = 0
        while index < len(items):
            item = items[index]
            try:
                flags = log_flags(item.value)
                if flags & FRAGMENT:
                    rows = fragmented_entry(items, index, type)
                else:
                    rows = [row_entries(item.value, flags, type)]
            except _READING as error:
                raise _located(error, key, item) from error
            yield from rows
            index += len(rows)

    def row_commit_id(self, value: bytes) -> bytes:
        """The id of the commit that wrote a row."""
        log_flags(value)
        return commit_id_of(value)

    def row_span(self, value: bytes) -> tuple[int, int]:
        """(index of a row's first entry, number of its entries), without touching its body.

        The index is 0 until entries before it are trimmed away. Of an entry in fragments the
        first row says (0, 1) and the others (0, 0).
        """
        flags = log_flags(value)
        first, count = numbers_of(value)
        return (0, count) if flags & FRAGMENT else (first, count)

    def row_count(self, value: bytes) -> int:
        """The number of a row's entries: the second part of :meth:`row_span`."""
        return self.row_span(value)[1]

    def more_fragments(self, value: bytes) -> bool:
        """Whether the row after this one goes on with the same entry."""
        return bool(log_flags(value) & MORE_FRAGMENTS)

    def trim(
        self, key: SessionKey, item: Item, *, start: int = 0, stop: int | None = None
    ) -> bytes:
        """The row without the entries outside ``[start:stop)`` of those that it holds.

        Those that stay keep their bytes and their indexes (the row's first grows by
        ``start``). An entry in fragments is whole or gone: asking for less than all of it is
        a ``ValueError``.
        """
        value = item.value
        try:
            flags = log_flags(value)
            first, count = numbers_of(value)
            begin, end, _ = slice(start, stop).indices(count)
            if flags & FRAGMENT:
                if (begin, end) != (0, count):
                    raise ValueError("an entry in fragments goes with its rows")
                return value
            kept = encoded_entries(value, flags)[begin:end]
        except _READING as error:
            raise _located(error, key, item) from error
        return make_row(
            flags & EXTENDED,
            commit_id_of(value),
            first + begin,
            len(kept),
            join(kept),
            self._compress_min,
        )

    # Bare values, cells and opaque bytes

    def encode(self, key: SessionKey, value: object, *, path: str = "value") -> bytes:
        """The body of ``value`` alone, for callers that cut it into :meth:`seal_bytes`.

        Raises ``InvalidValue`` and ``TooLarge``, in which ``path`` names it.
        """
        return encode(value, path=path)[0]

    def decode(self, key: SessionKey, body: bytes, type: Any = Any) -> Any:
        """The inverse of :meth:`encode`. Raises ``InvalidValue`` for another ``type``."""
        try:
            return decode(body, type)
        except _READING as error:
            raise _located(error, key) from error

    def seal(
        self,
        key: SessionKey,
        value: object,
        *,
        path: str = "value",
        expires_at: int | None = None,
    ) -> bytes:
        """The row that holds one value; ``expires_at`` in ms goes with it, for the reader to
        judge. ``path`` names the value in errors. Raises ``InvalidValue``, ``TooLarge``.
        """
        body, extended = encode(value, path=path)
        flags = VALUE | EXTENDED if extended else VALUE
        if expires_at is None:
            return wrap(flags, b"", body, self._compress_min)
        return wrap(flags | EXPIRES, _EXPIRY.pack(expires_at), body, self._compress_min)

    @overload
    def open(self, key: SessionKey, item: Item) -> Any: ...
    @overload
    def open(self, key: SessionKey, item: Item, type: type[T]) -> T: ...
    @overload
    def open(self, key: SessionKey, item: Item, type: Any) -> Any: ...
    def open(self, key: SessionKey, item: Item, type: Any = Any) -> Any:
        """The value of a row made by :meth:`seal`, expired or not, as a ``type`` if given.

        Raises ``InvalidValue`` if it does not fit the type.
        """
        value = item.value
        try:
            flags = flags_of(value, VALUE, 0)
            start = PREFIX_BYTES
            if flags & EXPIRES:
                start += _EXPIRY.size
            body = unwrap(value, start, flags, MAX_VALUE_BYTES)
            return decode(body, type, extended=bool(flags & EXTENDED))
        except _READING as error:
            raise _located(error, key, item) from error

    @overload
    def open_own(self, key: SessionKey, item: Item, type: type[T]) -> T: ...
    @overload
    def open_own(self, key: SessionKey, item: Item, type: Any) -> Any: ...
    def open_own(self, key: SessionKey, item: Item, type: Any) -> Any:
        """:meth:`open` for what only the store itself writes: what does not fit the type is
        ``Corrupt``."""
        try:
            return self.open(key, item, type)
        except InvalidValue as error:
            raise Corrupt(str(error)) from error

    def expires_at(self, value: bytes) -> int | None:
        """When a row made by :meth:`seal` expires, in ms; ``None``: never."""
        if not flags_of(value, VALUE, 0) & EXPIRES:
            return None
        flags_of(value, VALUE, _EXPIRY.size)
        (expires_at,) = _EXPIRY.unpack_from(value, PREFIX_BYTES)
        return expires_at

    def seal_bytes(self, key: SessionKey, data: bytes) -> bytes:
        """The row that holds ``data`` as it is. Raises ``TooLarge``."""
        if len(data) > MAX_VALUE_BYTES:
            raise too_large("data", len(data))
        return wrap(BYTES, b"", data, self._compress_min)

    def open_bytes(self, key: SessionKey, item: Item, *, limit: int = MAX_VALUE_BYTES) -> bytes:
        """The data of a row made by :meth:`seal_bytes`; never expanded beyond ``limit``."""
        try:
            flags = flags_of(item.value, BYTES, 0)
            return unwrap(item.value, PREFIX_BYTES, flags, limit)
        except _READING as error:
            raise _located(error, key, item) from error

    def body(self, key: SessionKey, item: Item) -> bytes:
        """The body of any row, expanded: to look for something in it."""
        value = item.value
        kind = value[1] & KIND if len(value) > 1 else LOG
        try:
            if kind == LOG:
                header = HEADER_BYTES
            elif kind == BYTES:
                header = 0
            else:
                kind = VALUE  # or unknown, which this tells
                header = _EXPIRY.size if flags_of(value, VALUE, 0) & EXPIRES else 0
            flags = flags_of(value, kind, header)
            return unwrap(value, PREFIX_BYTES + header, flags, MAX_VALUE_BYTES)
        except _READING as error:
            raise _located(error, key, item) from error


def _check_commit_id(commit_id: bytes) -> None:
    if len(commit_id) != COMMIT_ID_BYTES:
        raise ValueError(f"a commit id has {COMMIT_ID_BYTES} bytes, not {len(commit_id)}")


def _located(error: PerdureError, key: SessionKey, item: Item | None = None) -> PerdureError:
    """``error``, saying where."""
    place = f"item {item.key!r} of " if item else ""
    message = f"{error} ({place}session {key.id!r}, kind {key.kind!r}, tenant {key.tenant!r})"
    if isinstance(error, InvalidValue):
        return type(error)(message, path=error.path)
    if isinstance(error, Undecryptable):
        return Undecryptable(message, missing_key=error.missing_key)
    return type(error)(message)
