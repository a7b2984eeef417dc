"""Decoding to Structs, dataclasses and typed dicts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pytest

from perdure.codec import ROW_BYTES, Codec, decode, encode
from perdure.errors import Corrupt, InvalidValue

from tests.core.codec.values import COMMIT, KEY, item, items_of

CODEC = Codec()


class Colour(Enum):
    RED = "red"


class Usage(msgspec.Struct):
    tokens: int
    price: Decimal = Decimal(0)


@dataclass
class Message:
    role: Literal["user", "assistant"]
    id: UUID
    at: datetime
    usage: Usage | None = None
    data: bytes = b""
    colour: Colour = Colour.RED
    tags: frozenset[str] = frozenset()


class Event(TypedDict):
    id: UUID
    at: datetime
    price: Decimal
    big: NotRequired[int]


class Plain(msgspec.Struct):
    text: str
    score: float = 0.0


MESSAGE = Message(
    "user",
    UUID(int=7),
    datetime(2026, 11, 22, 9, tzinfo=UTC),
    Usage(2**90, Decimal("1.10")),
    b"\x00\xff",
    tags=frozenset({"a"}),
)
EVENT: Event = {
    "id": UUID(int=1),
    "at": datetime(2026, 11, 22, tzinfo=UTC),
    "price": Decimal("0.00"),
    "big": 2**99,
}


def test_dataclasses_structs_and_typed_dicts_come_back() -> None:
    assert CODEC.open(KEY, item(CODEC.seal(KEY, MESSAGE)), Message) == MESSAGE
    event = CODEC.open(KEY, item(CODEC.seal(KEY, EVENT)), Event)
    assert event == EVENT
    assert type(event["price"]) is Decimal
    assert CODEC.open(KEY, item(CODEC.seal(KEY, Plain("x"))), type=Plain) == Plain("x")
    body = CODEC.encode(KEY, [MESSAGE])
    assert CODEC.decode(KEY, body, list[Message]) == [MESSAGE]


@pytest.mark.parametrize("count", [1, 3, 200])
@pytest.mark.parametrize("compress_min", [None, 0])
def test_rows_come_back_typed(count: int, compress_min: int | None) -> None:
    codec = Codec(compress_min=compress_min)
    plain = [Plain("a", 1.5), Plain("b")]
    (row,) = codec.pack(KEY, COMMIT, plain)
    assert codec.unpack(KEY, [item(row)] * count, Plain) == [plain] * count
    (row,) = codec.pack(KEY, COMMIT, [MESSAGE, MESSAGE])
    rows = codec.unpack(KEY, [item(row)] * count, type=Message)
    assert rows == [[MESSAGE, MESSAGE]] * count


def test_plain_and_extended_rows_and_fragments_mix() -> None:
    usages = [Usage(1), Usage(2**80)]
    long = Plain("x" * (3 * ROW_BYTES))
    rows = [CODEC.pack(KEY, COMMIT, [usage]) for usage in usages]
    items = [item(row) for packed in rows for row in packed]
    assert CODEC.unpack(KEY, items, Usage) == [[usage] for usage in usages]
    packed = Codec(compress_min=None).pack(KEY, COMMIT, [long])
    assert CODEC.unpack(KEY, items_of(packed), Plain) == [[long], [], [], []]
    event: Event = {"id": UUID(int=2), "at": EVENT["at"], "price": Decimal("1" * ROW_BYTES)}
    assert CODEC.unpack(KEY, items_of(CODEC.pack(KEY, COMMIT, [event])), Event)[0] == [event]


def test_text_written_by_others_is_understood_where_the_type_says() -> None:
    stored = {"id": str(UUID(int=1)), "at": "2026-11-22T00:00:00Z", "price": "0.00"}
    event = CODEC.open(KEY, item(CODEC.seal(KEY, stored)), Event)
    assert event == {key: EVENT[key] for key in ("id", "at", "price")}


def test_unions_and_builtins_are_types_too() -> None:
    assert decode(encode([1, "a", None])[0], list[int | str | None]) == [1, "a", None]
    assert decode(encode({"a": 1})[0], dict[str, int]) == {"a": 1}
    assert decode(encode(2**70)[0], int) == 2**70


def test_a_type_with_unhashable_annotations_is_taken() -> None:
    positive = Annotated[int, msgspec.Meta(gt=0, extra={"a": [1]}), {"unhashable": []}]
    assert decode(encode(3)[0], positive, extended=False) == 3
    with pytest.raises(InvalidValue):
        decode(encode(-3)[0], positive, extended=False)


@pytest.mark.parametrize(
    ("entry", "detail", "path"),
    [
        ({"tokens": "many"}, "Expected `int`, got `str`", "[1].tokens"),
        ({"tokens": 2**70, "price": "x"}, "Invalid decimal", "[1].price"),
        ({}, "missing required field `tokens`", "[1]"),
        ([], "Expected `object`, got `array`", "[1]"),
    ],
)
def test_a_row_that_does_not_fit_says_where(entry: Any, detail: str, path: str) -> None:
    sound = CODEC.pack(KEY, COMMIT, [Usage(1)])[0]
    row = CODEC.pack(KEY, COMMIT, [Usage(1), entry])[0]
    items = [item(sound, 1), item(row, 2), item(sound, 3)]
    with pytest.raises(InvalidValue, match=detail) as caught:
        CODEC.unpack(KEY, items, Usage)
    assert caught.value.path == path
    assert repr(items[1].key) in str(caught.value)
    # It is there all the same.
    assert CODEC.unpack(KEY, items)[1][1] == entry


def test_a_cell_that_does_not_fit_says_where() -> None:
    row = CODEC.seal(KEY, {"a": [1, 2, "x"]})
    with pytest.raises(InvalidValue, match="does not fit") as caught:
        CODEC.open(KEY, item(row), dict[str, list[int]])
    assert caught.value.path == "[...][2]"


def test_a_malformed_body_is_corrupt_and_not_a_misfit() -> None:
    # The type fails first, at byte 0; the body is malformed behind it.
    with pytest.raises(Corrupt):
        decode(b"\x92\xa1x\xc1", list[int], extended=False)
    with pytest.raises(Corrupt):
        decode(b"\x92\xa1x\xc1", list[int])
    with pytest.raises(Corrupt):
        decode(b"\xa1\xff", str, extended=False)
    with pytest.raises(InvalidValue):
        decode(b"\xa1x", int, extended=False)


def test_a_type_that_says_any_decodes_as_none_does() -> None:
    (row,) = CODEC.pack(KEY, COMMIT, [EVENT])
    assert CODEC.unpack(KEY, [item(row)], Any) == CODEC.unpack(KEY, [item(row)])
