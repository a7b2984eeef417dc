"""What cannot be stored without loss is refused, with the place where it sits."""

import array
import datetime as dt
from collections import UserString
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pytest

from perdure.codec import MAX_DEPTH, Codec, encode
from perdure.errors import InvalidValue, Outcome, PerdureError

from tests.core.codec.values import COMMIT, KEY


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Mode(StrEnum):
    FAST = "fast"


class Str(str):
    __slots__ = ()


class Int(int):
    pass


class Float(float):
    pass


class Bytes(bytes):
    pass


class Moment(dt.datetime):
    pass


class Money(Decimal):
    pass


class Uid(UUID):
    pass


class Model:
    def model_dump(self) -> dict[str, Any]:
        return {}


REFUSED: list[tuple[Any, str]] = [
    ({1}, "sorted"),
    (frozenset({1}), "list"),
    (bytearray(b"x"), "bytes(value)"),
    (memoryview(b"x"), "bytes(value)"),
    (Colour.RED, ".value"),
    (Level.HIGH, ".value"),
    (Mode.FAST, ".value"),
    (Str("x"), "str itself"),
    (Int(1), "int itself"),
    (Float(1), "float itself"),
    (Bytes(b"x"), "bytes itself"),
    (Moment(2026, 1, 1), "datetime itself"),
    (Money(1), "Decimal itself"),
    (Uid(int=1), "UUID itself"),
    (dt.date(2026, 1, 1), "isoformat"),
    (dt.time(1), "isoformat"),
    (dt.timedelta(1), "total_seconds"),
    (MappingProxyType({}), "dict(value)"),
    (array.array("i"), "dict of its content"),
    (UserString("x"), "dict of its content"),
    (1j, "dict of its content"),
    (object(), "dict of its content"),
    (..., "dict of its content"),
    (len, "dict of its content"),
    (msgspec.UNSET, "dict of its content"),
    (msgspec.Raw(b"\x01"), "dict of its content"),
    (msgspec.msgpack.Ext(1, b""), "dict of its content"),
    (Colour, "not code"),
    (int, "not code"),
    (Model(), "model_dump"),
    ("\ud800", "UTF-8"),
    ("ok \udfff", "UTF-8"),
    ({1: "a"}, "str"),
    ({None: "a"}, "str"),
    ({"a": 1, b"b": 2}, "str"),
    ({Str("a"): 1}, "str"),
    ({Mode.FAST: 1}, "str"),
    ({"\udc00": 1}, "UTF-8"),
    (iter([1]), "dict of its content"),
    (range(3), "dict of its content"),
    ({}.keys(), "dict of its content"),
]


@pytest.mark.parametrize(("value", "advice"), REFUSED, ids=lambda value: repr(value)[:40])
def test_is_refused_wherever_it_sits(value: Any, advice: str) -> None:
    for wrapped, path in [
        (value, "value"),
        ([0, value], "value[1]"),
        ((value,), "value[0]"),
        ({"a": {"b c": [1, {"d": value}]}}, 'value.a["b c"][1].d'),
        # Beside something else that is out of the ordinary.
        ([2**70, Decimal(1), {"x": value}], "value[2].x"),
    ]:
        with pytest.raises(InvalidValue) as caught:
            encode(wrapped)
        assert caught.value.path == path
        assert str(caught.value).startswith(f"{path}: cannot store ")
        assert advice in str(caught.value)


def test_the_path_begins_with_the_entry() -> None:
    entries = [{"a": 1}, 2, "x", {"role": "user", "content": [{"data": {1, 2}}]}]
    with pytest.raises(InvalidValue) as caught:
        Codec().pack(KEY, COMMIT, entries)
    assert caught.value.path == "entries[3].content[0].data"
    assert isinstance(caught.value, PerdureError)
    assert isinstance(caught.value, TypeError)
    assert caught.value.outcome is Outcome.NOT_APPLIED


def test_the_path_begins_as_the_caller_says() -> None:
    with pytest.raises(InvalidValue) as caught:
        Codec().seal(KEY, [{1}], path="cells['step']")
    assert caught.value.path == "cells['step'][0]"


@pytest.mark.parametrize(
    ("key", "step"),
    [
        ("name", ".name"),
        ("é", ".é"),
        ("odd key", '["odd key"]'),
        ("", '[""]'),
        ("1", '["1"]'),
        ('"', '["\\""]'),
        ("a.b", '["a.b"]'),
    ],
)
def test_keys_that_are_not_identifiers_are_quoted(key: str, step: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        encode({key: {1}})
    assert caught.value.path == "value" + step


def test_cycles_are_refused_where_they_close() -> None:
    ring: dict[str, Any] = {"a": [1]}
    ring["a"].append({"up": ring})
    with pytest.raises(InvalidValue, match="contains itself") as caught:
        encode(ring)
    assert caught.value.path == "value.a[1].up"
    bush: list[Any] = []
    bush += [bush, bush]
    with pytest.raises(InvalidValue, match="contains itself"):
        encode(bush)


class Node(msgspec.Struct):
    child: Any = None


def test_cycles_through_structs_are_refused() -> None:
    node = Node()
    node.child = [node]
    with pytest.raises(InvalidValue, match="contains itself") as caught:
        encode({"node": node})
    assert caught.value.path == "value.node"


@pytest.mark.parametrize("leaf", [0, 2**70], ids=["plain", "extended"])
def test_a_value_that_is_too_deep_is_refused(leaf: int) -> None:
    value: Any = leaf
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(InvalidValue, match=f"more than {MAX_DEPTH} containers") as caught:
        encode(value)
    assert caught.value.path == "value" + "[0]" * MAX_DEPTH
    assert len(str(caught.value)) < 400


def test_structs_do_not_extend_the_depth() -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH // 2):
        value = [Node(value)]
    encode(value)
    with pytest.raises(InvalidValue):
        encode([value])


@dataclass
class Part:
    data: Any


@dataclass
class Message:
    parts: list[Part]
    extra: dict[str, Any]


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Message([Part(1), Part(object())], {}), "value.m.parts[1].data"),
        (Message([], {"a b": Str("x")}), 'value.m.extra["a b"]'),
        (Message([], {"x": bytearray(b"")}), "value.m.extra.x"),
        (Message([], {"x": "\ud800"}), "value.m.extra.x"),
        (Message([], {"x": {1: 2}}), "value.m.extra.x"),
    ],
    ids=["object", "subclass", "bytearray", "surrogate", "key"],
)
def test_refusals_inside_dataclasses_have_a_path_too(message: Message, path: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        encode({"m": message})
    assert caught.value.path == path
