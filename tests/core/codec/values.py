"""Values that can be stored, what they read back as, and a comparison that misses nothing."""

import math
import struct
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from hypothesis import strategies as st

from perdure.codec import Codec
from perdure.types import Item, SessionKey, append_key

KEY = SessionKey.of("acme", "session", "chat-7")
COMMIT = bytes(range(16))

_OFFSETS = st.integers(-86_399_999_999, 86_399_999_999).map(
    lambda microseconds: timezone(timedelta(microseconds=microseconds))
)
_EDGES = [0, 127, 128, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1]

integers = (
    st.integers()
    | st.sampled_from([*_EDGES, *[-edge for edge in _EDGES], -(2**63) - 1])
    | st.integers(-(2**2000), 2**2000)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | integers
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1.0, 5e-324])
    | texts
)
extended: st.SearchStrategy[Any] = (
    st.binary(max_size=40)
    | st.datetimes(timezones=st.none() | _OFFSETS)
    | st.uuids()
    | st.decimals()
    | st.sampled_from([Decimal("sNaN12"), Decimal("-0.00"), Decimal("1E+999999")])
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda children: (
            st.lists(children, max_size=6) | st.dictionaries(texts, children, max_size=6)
        ),
        max_leaves=25,
    )


json_values = nested(scalars)
values = nested(scalars | extended)


def exact(value: Any) -> Any:
    """A form of ``value`` that is equal only for values that nothing tells apart."""
    match value:
        case dict():
            items = cast("dict[str, Any]", value).items()
            return "dict", [(key, exact(child)) for key, child in items]
        case list():
            return "list", [exact(child) for child in cast("list[Any]", value)]
        case float():
            # NaNs differ from themselves; of several NaNs, Python shows one.
            return "float", "nan" if math.isnan(value) else struct.pack(">d", value)
        case Decimal():
            return "Decimal", value.as_tuple()
        case datetime():
            return "datetime", value.isoformat()
        case None | bool() | int() | str() | bytes() | UUID():
            return type(value).__name__, value
        case _:
            raise AssertionError(f"{type(value)} should not have been stored")


def item(value: bytes, number: int = 1, ordinal: int = 0) -> Item:
    return Item(append_key(b"l\0", number, ordinal), value, number)


def items_of(rows: tuple[bytes, ...], number: int = 1) -> list[Item]:
    return [item(row, number, ordinal) for ordinal, row in enumerate(rows)]


def commit_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def entries_of(codec: Codec, items: list[Item]) -> list[Any]:
    return [entry for row in codec.unpack(KEY, items) for entry in row]
