"""Reading and writing MessagePack, strictly: what both directions share."""

from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from perdure.errors import PerdureError
from perdure.protocol.limits import MAX_INTEGER
from perdure.types import (
    MAX_ITEM_KEY_BYTES,
    MAX_LABEL_BYTES,
    MAX_LABELS,
    MAX_META_BYTES,
    Head,
    Item,
    Rows,
)

T = TypeVar("T")


class Malformed(PerdureError, ValueError):
    """Bytes that are not the message they should be. The message never quotes them."""


Int = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
"""Versions, counts, and times in ms since the epoch."""
Positive = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
ItemKey = Annotated[bytes, Meta(max_length=MAX_ITEM_KEY_BYTES)]
MetaBytes = Annotated[bytes, Meta(max_length=MAX_META_BYTES)]
Label = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL_BYTES)]
Labels = Annotated[list[Label], Meta(max_length=MAX_LABELS)]

WireHead = tuple[Positive, Id, Id, Int, Int, Int, Int | None, MetaBytes, Int, Labels]
WireItem = tuple[ItemKey, bytes, Positive]
WireRows = tuple[list[WireItem], bool]

encode = msgspec.msgpack.Encoder().encode


class Decoder(Generic[T]):
    """Reads messages of one shape: the arrays have exactly its lengths, nothing follows."""

    def __init__(self, shape: object) -> None:
        self._decode = msgspec.msgpack.Decoder(shape).decode

    def __call__(self, body: bytes | bytearray | memoryview) -> T:
        """Raises :class:`Malformed`."""
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            # Says which type was expected where; texts of the input are not in it.
            raise Malformed(f"not a message of this kind: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Malformed("not MessagePack, or cut short, or with bytes behind it") from None


def head_fields(head: Head | None) -> tuple[object, ...] | None:
    """A head as it travels."""
    if head is None:
        return None
    return (
        head.version,
        head.incarnation,
        head.tip,
        head.last_delete,
        head.created_at,
        head.updated_at,
        head.expires_at,
        head.meta,
        head.meta_version,
        head.labels,
    )


def head_of(fields: WireHead | None) -> Head | None:
    """The inverse of :func:`head_fields`."""
    if fields is None:
        return None
    return Head(
        version=fields[0],
        incarnation=fields[1],
        tip=fields[2],
        last_delete=fields[3],
        created_at=fields[4],
        updated_at=fields[5],
        expires_at=fields[6],
        meta=fields[7],
        meta_version=fields[8],
        labels=tuple(fields[9]),
    )


def rows_fields(rows: tuple[Rows, ...]) -> list[tuple[object, ...]]:
    """What reads have found, as it travels."""
    return [([(i.key, i.value, i.version) for i in found.items], found.more) for found in rows]


def rows_of(fields: list[WireRows]) -> tuple[Rows, ...]:
    """The inverse of :func:`rows_fields`."""
    return tuple(
        Rows([Item(key, value, version) for key, value, version in items], more)
        for items, more in fields
    )
