"""What may be stored, and the forms that MessagePack cannot carry by itself.

Two ways lead to the encoder. Ordinary values are recognised by :func:`is_plain`, which looks
at types only. Everything else goes through :class:`Converter`, which walks the
value, replaces what has a form of our own, and refuses the rest with its path.
"""

import decimal
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, cast
from uuid import UUID

import msgspec

from perdure.errors import InvalidValue, TooLarge

MAX_DEPTH = 128
"""Most containers around one another in a value."""

MAX_NODES = 4 * 1024 * 1024
"""Most values, containers included, in one encoded value."""

MAX_VALUE_BYTES = 64 * 1024 * 1024
"""Longest encoded form of one value."""

# Codes of our extension types. A code once used keeps its meaning for ever.
EXT_DATETIME = 0
EXT_UUID = 1
EXT_DECIMAL = 2
EXT_INTEGER = 3

DECIMAL_CONTEXT = decimal.Context(capitals=1, traps=[decimal.InvalidOperation])
"""A context of our own: the caller's changes how decimals are written and read."""

_SCALARS: frozenset[type] = frozenset((str, int, float, bool, NoneType, bytes))

_KEPT = (bytes, bytearray, memoryview, datetime, UUID, Decimal)
"""What ``msgspec.to_builtins`` leaves as it is, so that we store or refuse it."""

_encode_plain = msgspec.msgpack.Encoder().encode


def is_plain(values: Sequence[object], depth: int = MAX_DEPTH) -> bool:
    """Whether the encoder stores all ``values`` as they are, integers and surrogates aside.

    The encoder alone would quietly make text of dates and decimals, and lists of sets.
    """
    return _budget_left(values, depth + 1, MAX_NODES) >= 0


def _budget_left(container: Any, depth: int, budget: int) -> int:
    """What is left of ``budget`` after the values below ``container``, or less than 0: too
    many, too deep (which ends cycles too), or of other types.

    Written for speed: one call per container, and for scalars nothing but a look-up.
    """
    budget -= len(container)
    if budget < 0 or depth == 0:
        return -1
    values: Iterable[object] = container
    if type(container) is dict:
        for key in cast("dict[object, object]", container):
            if type(key) is not str:
                return -1
        values = cast("dict[object, object]", container).values()
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is not dict and kind is not list and kind is not tuple:
            return -1
        budget = _budget_left(value, depth - 1, budget)
        if budget < 0:
            return -1
    return budget


class Converter:
    """Makes a copy of a value that the encoder stores as it is, or says why there is none."""

    __slots__ = ("_bytes", "_nodes", "_open", "_path", "_root", "extended")

    def __init__(self, root: str) -> None:
        self.extended = False
        """Whether an extension type was needed."""
        self._root = root
        self._path: list[str | int] = []
        self._open: set[int] = set()
        self._nodes = 0
        self._bytes = 0

    def convert(self, value: object, *path: int) -> object:
        """One value; ``path`` is where it sits below the root.

        Raises ``InvalidValue`` and ``TooLarge``.
        """
        self._path = list(path)
        self._nodes = self._bytes = 0
        return self._convert(value)

    def _convert(self, value: object) -> object:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise TooLarge(f"{self._root} holds more than {MAX_NODES} values")
        kind = type(value)
        if kind is str:
            if not _has_utf8(cast("str", value)):
                raise self._refusal("a str with a lone surrogate", "It has no UTF-8 form.")
            return value
        if kind is int:
            if -(2**63) <= cast("int", value) < 2**64:
                return value
            return self._extension(EXT_INTEGER, integer_bytes(cast("int", value)))
        if kind in _SCALARS:
            return value
        if isinstance(value, Enum):
            raise self._refusal(f"an enum member ({kind.__name__})", "Store its .value.")
        if isinstance(value, dict):
            return self._convert_dict(cast("dict[object, object]", value))
        if isinstance(value, (list, tuple)):
            return self._convert_sequence(cast("Sequence[object]", value))
        if kind is datetime:
            text = cast("datetime", value).isoformat()
            return self._extension(EXT_DATETIME, text.encode())
        if kind is UUID:
            return self._extension(EXT_UUID, cast("UUID", value).bytes)
        if kind is Decimal:
            text = DECIMAL_CONTEXT.to_sci_string(cast("Decimal", value))
            return self._extension(EXT_DECIMAL, text.encode())
        if isinstance(value, msgspec.Struct) or (
            is_dataclass(value) and not isinstance(value, type)
        ):
            return self._convert_object(value)
        raise self._refusal(*_explain(value))

    def _extension(self, code: int, payload: bytes) -> msgspec.msgpack.Ext:
        self.extended = True
        return msgspec.msgpack.Ext(code, payload)

    def _convert_dict(self, value: dict[object, object]) -> dict[str, object]:
        self._enter(value)
        converted: dict[str, object] = {}
        # items() and not dict.items(): an OrderedDict keeps an order of its own.
        for key, child in value.items():
            if type(key) is not str:
                raise self._refusal(
                    f"a dict with a key of type {_name(key)}",
                    "Keys must be str: convert them, or store a list of pairs.",
                )
            if not _has_utf8(key):
                raise self._refusal(
                    "a dict with a lone surrogate in a key", "It has no UTF-8 form."
                )
            self._path.append(key)
            converted[key] = self._convert(child)
            self._path.pop()
        self._open.discard(id(value))
        return converted

    def _convert_sequence(self, value: Sequence[object]) -> list[object]:
        self._enter(value)
        converted: list[object] = []
        for index, child in enumerate(value):
            self._path.append(index)
            converted.append(self._convert(child))
            self._path.pop()
        self._open.discard(id(value))
        return converted

    def _convert_object(self, value: object) -> object:
        """A Struct or dataclass as msgspec sees it: enum members in it are their values, sets
        are lists, and typed decoding restores them."""
        try:
            built: object = msgspec.to_builtins(value, builtin_types=_KEPT)
        except RecursionError:
            raise self._refusal("an object that is too deep or contains itself") from None
        except TypeError:
            self._path += _unsupported(value)
            raise self._refusal("an object that msgspec cannot encode") from None
        if is_plain((built,), MAX_DEPTH - len(self._open)):
            # Nearly always. Encoded at once: no copy, and no walk over its values.
            try:
                raw = _encode_plain(built)
            except (OverflowError, UnicodeEncodeError):
                return self._convert(built)
            self._bytes += len(raw)
            if self._bytes > MAX_VALUE_BYTES:
                raise too_large(self._root, self._bytes)
            return msgspec.Raw(raw)
        return self._convert(built)

    def _enter(self, container: object) -> None:
        if id(container) in self._open:
            raise self._refusal("a container that contains itself")
        if len(self._open) == MAX_DEPTH:
            raise self._refusal(f"nested in more than {MAX_DEPTH} containers", "Flatten it.")
        self._open.add(id(container))

    def _refusal(self, what: str, advice: str = "") -> InvalidValue:
        path = self._root + "".join(map(_step, self._path))
        shown = path if len(path) <= 200 else f"{path[:120]} ... {path[-60:]}"
        return InvalidValue(f"{shown}: cannot store {what}. {advice}".rstrip(), path=path)


def too_large(what: str, size: int) -> TooLarge:
    """The error for an encoded value of ``size`` bytes."""
    return TooLarge(f"{what} takes {size} bytes when encoded; the limit is {MAX_VALUE_BYTES}")


def integer_bytes(value: int) -> bytes:
    """Two's complement, big-endian, in as few bytes as hold the sign too."""
    # The complement of a negative number needs as many bits as the number.
    bits = (value if value >= 0 else ~value).bit_length()
    return value.to_bytes(bits // 8 + 1, "big", signed=True)


def _has_utf8(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]"


def _name(value: object) -> str:
    return type(value).__qualname__


def _explain(value: object) -> tuple[str, str]:
    """(what it is, what to store instead) of a value of a type that is not stored."""
    name = _name(value)
    match value:
        case set() | frozenset():
            return f"a {name}", "Store a list; sorted, it is the same each time."
        case bytearray() | memoryview():
            return f"a {name}", "Store bytes(value)."
        case datetime() | UUID() | Decimal() | str() | bytes() | int() | float():
            base = next(c for c in type(value).__mro__ if c in _SCALARS or c in _KEPT)
            return f"a {name}", f"Only {base.__name__} itself is kept: convert it to that."
        case date() | time():
            return f"a {name}", "Store value.isoformat(), or a datetime."
        case timedelta():
            return f"a {name}", "Store value.total_seconds()."
        case Mapping():
            return f"a {name}", "Store dict(value)."
        case type():
            return f"the class {value.__qualname__}", "Store data, not code."
        case _:
            pass
    if hasattr(value, "model_dump"):
        return f"a {name}", "Store value.model_dump()."
    return (
        f"an object of type {name}",
        "Store a dict of its content, or make it a dataclass or a msgspec.Struct.",
    )


def _unsupported(value: object) -> list[str | int]:
    """Where in a Struct or dataclass that msgspec refuses the culprit sits."""
    path: list[str | int] = []
    while True:
        for step, child in _children(value):
            try:
                msgspec.to_builtins(child, builtin_types=_KEPT)
            except TypeError:
                path.append(step)
                value = child
                break
        else:
            return path


def _children(value: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(value, msgspec.Struct):
        return [(name, getattr(value, name)) for name in value.__struct_fields__]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f, getattr(value, f)) for f in value.__dataclass_fields__ if hasattr(value, f)]
    if isinstance(value, dict):
        items = cast("dict[Any, object]", value).items()
        return [(key if isinstance(key, str) else repr(key), item) for key, item in items]
    if isinstance(value, (list, tuple)):
        return list(enumerate(cast("Sequence[object]", value)))
    return ()
