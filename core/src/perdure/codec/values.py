"""Values to MessagePack and back, without loss.

MessagePack has what JSON has, and bytes. ``datetime``, ``UUID``, ``Decimal`` and integers
beyond 64 bits travel as extension types of our own, because MessagePack libraries turn them
into text or numbers. Nothing in a body names code, and decoding runs none.

==============================  =========================================================
stored                          read back as
==============================  =========================================================
None, bool, int, float, str     the same, of the same type: ints of any size, NaN, -0.0
list, dict with str keys        the same, in the same order
bytes, UUID, Decimal            the same
datetime                        the same moment and UTC offset; a zone's name is not kept,
                                nor ``fold``, which means nothing without its rules
tuple, subclasses of list/dict  list, list and dict
Struct, dataclass               dict, or the same where a type is given
==============================  =========================================================
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timezone
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from types import GenericAlias
from typing import Any, TypeVar, overload
from uuid import UUID

import msgspec

from perdure.codec.conversion import (
    DECIMAL_CONTEXT,
    EXT_DATETIME,
    EXT_DECIMAL,
    EXT_INTEGER,
    EXT_UUID,
    MAX_VALUE_BYTES,
    Converter,
    integer_bytes,
    is_plain,
    too_large,
)
from perdure.errors import Corrupt, InvalidValue

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode


def encode(value: object, *, path: str = "value") -> tuple[bytes, bool]:
    """The MessagePack body of ``value``, and whether it uses our extension types.

    ``path`` names the value in errors. Raises ``InvalidValue`` for what cannot be stored
    without loss, and ``TooLarge``.
    """
    if is_plain((value,)):
        try:
            return _limited(_encode(value), path), False
        except (OverflowError, UnicodeEncodeError):
            pass  # an integer beyond 64 bits; a lone surrogate, whose path we want
    converter = Converter(path)
    converted = converter.convert(value)
    return _limited(_encode(converted), path), converter.extended


def encode_entries(
    entries: Sequence[object], *, path: str = "entries", first: int = 0
) -> tuple[bytes, bool]:
    """One MessagePack array of ``entries``: :func:`encode` for many values at once.

    The limits hold for each entry; the length of the whole is the caller's to judge. Errors
    count the entries from ``first``.
    """
    values = entries if type(entries) in (list, tuple) else list(entries)
    if is_plain(values):
        try:
            return _encode(values), False
        except (OverflowError, UnicodeEncodeError):
            pass
    converter = Converter(path)
    converted = [converter.convert(entry, index) for index, entry in enumerate(values, first)]
    return _encode(converted), converter.extended


def split(array: bytes) -> list[memoryview]:
    """The encoded elements of an encoded array, one by one. Raises ``Corrupt``."""
    try:
        return list(map(memoryview, _decode_raw(array)))
    except _MALFORMED as error:
        raise malformed(error) from error


def join(elements: Sequence[memoryview]) -> bytes:
    """The inverse of :func:`split`."""
    return array_header(len(elements)) + b"".join(elements)


def array_header(count: int) -> bytes:
    """What an array of so many elements begins with."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 0x10000:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def concatenate(arrays: Sequence[bytes], counts: Sequence[int]) -> bytes:
    """One array of the elements of several, of which ``counts`` says how many they hold."""
    if len(arrays) == 1:
        return arrays[0]
    elements = [
        array[1 if count < 16 else 3 if count < 0x10000 else 5 :]
        for array, count in zip(arrays, counts, strict=True)
    ]
    return array_header(sum(counts)) + b"".join(elements)


def _limited(body: bytes, path: str) -> bytes:
    if len(body) > MAX_VALUE_BYTES:
        raise too_large(path, len(body))
    return body


# A value has one form, so that equal rows are equal bytes: any other is malformed.


def integer_of(payload: bytes) -> int:
    """The integer beyond 64 bits written as ``payload``; ``ValueError`` if it is none."""
    value = int.from_bytes(payload, "big", signed=True)
    if -(2**63) <= value < 2**64 or integer_bytes(value) != payload:
        raise ValueError("not an integer in the form that integers beyond 64 bits have")
    return value


def decimal_of(payload: bytes) -> Decimal:
    """The decimal written as ``payload``; ``ValueError`` if it is none."""
    text = payload.decode("ascii")
    try:
        value = Decimal(text, DECIMAL_CONTEXT)
    except InvalidOperation:
        raise ValueError("not a decimal") from None
    if DECIMAL_CONTEXT.to_sci_string(value) != text:
        raise ValueError("not a decimal in the form that str() gives")
    return value


_MIDNIGHT = datetime(2000, 1, 1, tzinfo=UTC)


def datetime_of(payload: bytes) -> datetime:
    """The datetime written as ``payload``; ``ValueError`` if it is none."""
    text = payload.decode("ascii")
    value = datetime.fromisoformat(text)
    if value.isoformat() == text:
        return value
    # fromisoformat takes an offset of less than a second for UTC.
    sign = max(text.rfind("+"), text.rfind("-"))
    east = datetime.fromisoformat(f"{_MIDNIGHT:%Y-%m-%dT}{text[sign + 1 :]}+00:00") - _MIDNIGHT
    offset = timezone(east if text[sign] == "+" else -east)
    value = datetime.fromisoformat(text[:sign]).replace(tzinfo=offset)
    if value.isoformat() != text:
        raise ValueError("not a datetime in the form that isoformat() gives")
    return value


_EXTENSIONS: dict[int, Callable[[bytes], object]] = {
    EXT_DATETIME: datetime_of,
    EXT_UUID: lambda payload: UUID(bytes=payload),
    EXT_DECIMAL: decimal_of,
    EXT_INTEGER: integer_of,
}


def _ext_hook(code: int, payload: memoryview) -> object:
    make = _EXTENSIONS.get(code)
    if make is None:
        raise ValueError(f"unknown extension type {code}")
    return make(bytes(payload))


_MALFORMED = (ValueError, RecursionError)
"""What decoding raises: msgspec.DecodeError, UnicodeDecodeError and the ext hook's errors are
ValueErrors; RecursionError is the answer to a body of nothing but opening brackets. Lengths
that the body cannot hold are refused by msgspec before it allocates for them."""

_decode = msgspec.msgpack.Decoder(ext_hook=_ext_hook).decode
_decode_raw = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_row = msgspec.msgpack.Decoder(list[Any], ext_hook=_ext_hook).decode


@overload
def decode(body: bytes) -> Any: ...
@overload
def decode(body: bytes, type: type[T], *, extended: bool = True) -> T: ...
@overload
def decode(body: bytes, type: Any, *, extended: bool = True) -> Any: ...
def decode(body: bytes, type: Any = Any, *, extended: bool = True) -> Any:
    """The value that was encoded as ``body``, as a ``type`` that msgspec can decode to.

    ``extended=False`` says that the body holds none of our extension types, and is faster
    where a type is given. Raises ``Corrupt`` for a malformed body, and ``InvalidValue`` for a
    sound one that does not fit the type.
    """
    if type is Any:
        try:
            return _decode(body)
        except _MALFORMED as error:
            raise malformed(error) from error
    return _typed(body, type, extended, _decode)


@overload
def decode_row(body: bytes) -> list[Any]: ...
@overload
def decode_row(body: bytes, type: type[T], *, extended: bool = True) -> list[T]: ...
@overload
def decode_row(body: bytes, type: Any, *, extended: bool = True) -> list[Any]: ...
def decode_row(body: bytes, type: Any = Any, *, extended: bool = True) -> list[Any]:
    """:func:`decode` for an array of entries, each a ``type``. Raises likewise."""
    if type is Any:
        try:
            return _decode_row(body)
        except _MALFORMED as error:
            raise malformed(error) from error
    return _typed(body, GenericAlias(list, (type,)), extended, _decode_row)


def decode_rows(
    bodies: Iterable[bytes | memoryview], type: Any = Any
) -> list[list[Any]] | None:
    """:func:`decode_row` for many bodies at once; ``None`` if any of them is malformed or does
    not fit. Extension types are understood only where ``type`` is ``Any``.

    A loop in C over one call per row is as fast as a single decode of everything joined
    together, which would copy it all first, and a corrupt row cannot shift its neighbours.
    """
    function = _decode_row if type is Any else _decoder(GenericAlias(list, (type,))).decode
    try:
        return list(map(function, bodies))
    except _MALFORMED:
        return None


def _typed(body: bytes, type: Any, extended: bool, untyped: Callable[[bytes], Any]) -> Any:
    try:
        if not extended:
            return _decoder(type).decode(body)
        value = untyped(body)
    except msgspec.ValidationError as error:
        try:
            untyped(body)
        except _MALFORMED as cause:
            raise malformed(cause) from cause
        raise _misfit(error) from error
    except _MALFORMED as error:
        raise malformed(error) from error
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        raise _misfit(error) from error


@lru_cache(maxsize=256)
def _cached_decoder(type: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type, ext_hook=_ext_hook)


def _decoder(type: Any) -> msgspec.msgpack.Decoder[Any]:
    try:
        hash(type)
    except TypeError:  # an Annotated with an unhashable annotation
        return msgspec.msgpack.Decoder(type, ext_hook=_ext_hook)
    return _cached_decoder(type)


def malformed(error: Exception) -> Corrupt:
    """What a decoder's ``error`` means to the reader."""
    return Corrupt(f"a stored value is malformed: {error}")


def _misfit(error: msgspec.ValidationError) -> InvalidValue:
    _, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`")
    return InvalidValue(f"a stored value does not fit the type asked for: {error}", path=path)
