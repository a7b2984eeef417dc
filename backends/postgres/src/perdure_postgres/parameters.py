"""Parameters of statements, as the wire wants them.

Only what our statements use, so that it costs next to nothing: integers go as text, which
suits every integer type; bytes, strings and arrays of them in binary, which is their own bytes.
https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BIND
"""

from collections.abc import Sequence
from struct import Struct

Parameter = bytes | str | int | Sequence[bytes | str | int | None] | None
"""What may stand for ``$1``: ``bytea``, ``text``, an integer or a boolean, or a
one-dimensional array, given as a list or tuple, of one of them."""

TEXT = 0
BINARY = 1

_BYTEA_OID = 17
_TEXT_OID = 25
_ARRAY = Struct("!iiIii").pack  # dimensions, whether nulls, type, length, lower bound
_LENGTH = Struct("!i").pack
_NULL = _LENGTH(-1)


def encode(parameters: Sequence[Parameter]) -> tuple[list[bytes | None], list[int]]:
    """The values and their formats. Raises ``TypeError`` for what is no parameter."""
    values: list[bytes | None] = []
    formats: list[int] = []
    for parameter in parameters:
        if isinstance(parameter, bytes):
            values.append(parameter)
            formats.append(BINARY)
        elif isinstance(parameter, str):
            values.append(parameter.encode())
            formats.append(BINARY)  # not TEXT, which would end at a NUL
        elif isinstance(parameter, int):
            values.append(b"%d" % parameter)
            formats.append(TEXT)
        elif parameter is None:
            values.append(None)
            formats.append(TEXT)
        else:
            value, format = _encode_array(parameter)
            values.append(value)
            formats.append(format)
    return values, formats


def _encode_array(elements: Sequence[bytes | str | int | None]) -> tuple[bytes, int]:
    typical = next((element for element in elements if element is not None), None)
    if typical is None or isinstance(typical, int):  # no type that the binary form would name
        texts = ["NULL" if element is None else f"{element:d}" for element in elements]
        return f"{{{','.join(texts)}}}".encode(), TEXT
    kind, oid = (bytes, _BYTEA_OID) if isinstance(typical, bytes) else (str, _TEXT_OID)
    parts = [_ARRAY(1, None in elements, oid, len(elements), 1)]
    for element in elements:
        if element is None:
            parts.append(_NULL)
            continue
        if not isinstance(element, kind):
            raise TypeError(f"{type(element).__name__} in an array of {kind.__name__}")
        encoded = element if isinstance(element, bytes) else element.encode()
        parts.append(_LENGTH(len(encoded)))
        parts.append(encoded)
    return b"".join(parts), BINARY
