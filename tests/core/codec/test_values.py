"""What is stored comes back: the same values, of the same types, in the same order."""

import decimal
import math
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings

from perdure.codec import MAX_DEPTH, decode, encode

from tests.core.codec.values import exact, json_values, values


@settings(deadline=None)
@given(json_values)
def test_json_values_come_back_exactly(value: Any) -> None:
    body, _ = encode(value)
    assert exact(decode(body)) == exact(value)


@settings(deadline=None)
@given(values)
def test_extended_values_come_back_exactly(value: Any) -> None:
    body, _ = encode(value)
    assert exact(decode(body)) == exact(value)


@settings(deadline=None)
@given(json_values)
def test_plain_json_is_plain_messagepack(value: Any) -> None:
    body, extended = encode(value)
    if not extended:
        assert exact(msgspec.msgpack.decode(body)) == exact(value)


@pytest.mark.parametrize(
    ("value", "extended"),
    [
        (2**64 - 1, False),
        (2**64, True),
        (-(2**63), False),
        (-(2**63) - 1, True),
        (2**71 - 1, True),
        (2**71, True),
        (-(2**71), True),
        (-(2**71) - 1, True),
        (True, False),
        (1.0, False),
        (b"", False),
        ("", False),
        ({}, False),
        ([], False),
        ({"": None}, False),
        (UUID(int=0), True),
        (Decimal("0E-10"), True),
        (datetime.min.replace(tzinfo=UTC), True),
        (datetime.max.replace(tzinfo=UTC), True),
        ([[1, {"a": [2**70]}]], True),
    ],
    ids=repr,
)
def test_edges(value: Any, extended: bool) -> None:
    body, uses_extensions = encode(value)
    assert uses_extensions is extended
    assert exact(decode(body)) == exact(value)


def test_a_dict_keeps_its_order_and_not_that_of_its_keys() -> None:
    value = {"b": 1, "a": 2, "c": {"z": 0, "y": 0}}
    assert list(decode(encode(value)[0])) == ["b", "a", "c"]


def test_floats_that_look_like_integers_stay_floats() -> None:
    decoded = decode(encode([1.0, -0.0, 1e300, math.inf, -math.inf, math.nan])[0])
    assert [type(number) for number in decoded] == [float] * 6
    assert math.copysign(1, decoded[1]) == -1
    assert math.isnan(decoded[5])


@pytest.mark.parametrize(
    "offset",
    [
        timedelta(0),
        timedelta(hours=5, minutes=30),
        timedelta(hours=-23, minutes=-59, seconds=-59, microseconds=-999_999),
        timedelta(microseconds=1),
    ],
)
def test_a_datetime_keeps_its_offset(offset: timedelta) -> None:
    value = datetime(2026, 3, 29, 2, 30, 0, 7, tzinfo=timezone(offset))
    decoded = decode(encode(value)[0])
    assert decoded == value
    assert decoded.utcoffset() == offset


def test_a_naive_datetime_stays_naive() -> None:
    value = datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001
    assert decode(encode(value)[0]).tzinfo is None


class Berlin(tzinfo):
    """In the hour that the clock shows twice: summer time first."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(hours=1 if dt and dt.fold else 2)

    def dst(self, dt: datetime | None) -> timedelta:
        return self.utcoffset(dt) - timedelta(hours=1)

    def tzname(self, dt: datetime | None) -> str:
        return "CET" if dt and dt.fold else "CEST"


@pytest.mark.parametrize("fold", [0, 1])
def test_of_a_time_zone_the_offset_is_kept_and_the_name_is_not(fold: int) -> None:
    decoded = decode(encode(datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=Berlin()))[0])
    assert decoded == datetime(2026, 10, 25, fold, 30, tzinfo=UTC)
    assert decoded.tzinfo == timezone(timedelta(hours=2 - fold))


def test_the_callers_decimal_context_changes_nothing() -> None:
    value = Decimal("1.23456789012345678901234567890E+50")
    with decimal.localcontext(capitals=0, prec=3):
        body, _ = encode(value)
        assert exact(decode(body)) == exact(value)
    assert body == encode(value)[0]


class Point(NamedTuple):
    x: int
    y: int


class Bag(list[Any]):
    pass


def test_subclasses_of_containers_are_stored_as_their_base() -> None:
    ordered: OrderedDict[str, int] = OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    value = {
        "tuple": (1, (2,)),
        "named": Point(1, 2),
        "default": defaultdict(int, a=1),
        "counter": Counter("aab"),
        "ordered": ordered,
        "bag": Bag([1]),
    }
    decoded = decode(encode(value)[0])
    assert exact(decoded) == exact(
        {
            "tuple": [1, [2]],
            "named": [1, 2],
            "default": {"a": 1},
            "counter": {"a": 2, "b": 1},
            "ordered": {"b": 2, "a": 1},
            "bag": [1],
        }
    )


class Colour(Enum):
    RED = "red"


class Usage(msgspec.Struct, tag="usage", rename="camel"):
    input_tokens: int
    huge: int = 0


@dataclass
class Message:
    role: str
    usage: Usage
    at: datetime
    colour: Colour = Colour.RED
    tags: frozenset[str] = frozenset()


def test_structs_and_dataclasses_are_stored_as_maps_of_their_fields() -> None:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    message = Message("user", Usage(3, 2**80), at, tags=frozenset({"x"}))
    body, extended = encode([message, {"plain": Usage(1)}])
    assert extended
    assert exact(decode(body)) == exact(
        [
            {
                "role": "user",
                "usage": {"type": "usage", "inputTokens": 3, "huge": 2**80},
                "at": at,
                "colour": "red",
                "tags": ["x"],
            },
            {"plain": {"type": "usage", "inputTokens": 1, "huge": 0}},
        ]
    )
    assert decode(body, tuple[Message, dict[str, Usage]]) == (message, {"plain": Usage(1)})


def test_the_same_object_may_stand_in_several_places() -> None:
    shared = {"a": [2**70]}
    assert decode(encode([shared, shared, {"again": shared}])[0]) == [
        shared,
        shared,
        {"again": shared},
    ]


@pytest.mark.parametrize("leaf", [0, 2**70], ids=["plain", "extended"])
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_the_deepest_value_is_stored(kind: str, leaf: int) -> None:
    value: Any = leaf
    for _ in range(MAX_DEPTH):
        value = [value] if kind == "list" else {"k": value}
    assert decode(encode(value)[0]) == value


def test_encoding_leaves_the_value_as_it_was() -> None:
    value: dict[str, Any] = {"a": (1, 2**70), "b": OrderedDict(x=UUID(int=1))}
    before = repr(value)
    encode(value)
    assert repr(value) == before
