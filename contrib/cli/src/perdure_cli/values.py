"""Stored values as JSON, without loss.

JSON has no bytes, dates or infinities. Such a value is written as an object with one member
whose name starts with ``$``::

    {"$bytes": "aGk="}  {"$uuid": "…"}  {"$decimal": "1.10"}  {"$float": "nan"}
    {"$datetime": "2026-11-22T15:31:00+01:00"}
    {"$int": "0x1f…"}           an integer that does not fit 64 bits

A user's own one-member object whose name starts with ``$`` is written with one more ``$``, so
that it comes back as it was: ``{"$bytes": 1}`` is ``{"$$bytes": 1}``. Any other object is
itself.
"""

import base64
import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import cast
from uuid import UUID

from perdure.codec.values import datetime_of

# Control characters beyond ASCII's first 32, line separators, and those that set a direction.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_INT64 = range(-(2**63), 2**64)


def to_json(value: object) -> object:
    """``value`` with everything that JSON lacks put into ``$`` objects.

    Raises ``TypeError`` for a type that no store returns.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if value in _INT64 else {"$int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, dict):
        return _object_to_json(cast("dict[str, object]", value))
    if isinstance(value, list):
        return [to_json(item) for item in cast("list[object]", value)]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, UUID):
        return {"$uuid": str(value)}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _object_to_json(value: dict[str, object]) -> object:
    pairs = {name: to_json(item) for name, item in value.items()}
    if len(pairs) == 1:
        ((name, item),) = pairs.items()
        if name.startswith("$"):
            return {"$" + name: item}
    return pairs


def from_json(value: object) -> object:
    """The inverse of :func:`to_json`. Raises ``ValueError`` for an unknown or wrong ``$``."""
    if isinstance(value, list):
        return [from_json(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    pairs = cast("dict[str, object]", value)
    if len(pairs) == 1:
        ((name, item),) = pairs.items()
        if name.startswith("$$"):
            return {name[1:]: from_json(item)}
        if name.startswith("$"):
            return _untag(name, item)
    return {name: from_json(item) for name, item in pairs.items()}


def _untag(name: str, item: object) -> object:
    read = _FROM_TEXT.get(name)
    if read is None or not isinstance(item, str):
        raise ValueError(f"{name} is unknown or malformed (a user's own is written ${name})")
    try:
        return read(item)
    except (ValueError, InvalidOperation):  # binascii.Error is a ValueError
        raise ValueError(f"{name} is malformed: {item[:40]!r}") from None


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _from_hex(text: str) -> int:
    return int(text, 16)


def _from_isoformat(text: str) -> datetime:
    try:
        return datetime_of(text.encode())
    except ValueError:  # not as isoformat() writes it: with a Z, by hand
        return datetime.fromisoformat(text)


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "$bytes": _from_base64,
    "$int": _from_hex,
    "$float": float,
    "$datetime": _from_isoformat,
    "$uuid": UUID,
    "$decimal": Decimal,
}


def dumps(value: object) -> str:
    """One line of JSON for a stored value."""
    return json_line(to_json(value))


def json_line(value: object) -> str:
    """One line of JSON for a value that is JSON already.

    Text stays readable, except for what could command a terminal, turn text around or look
    like the end of the line: that is escaped as JSON allows.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text if text.isprintable() else _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
