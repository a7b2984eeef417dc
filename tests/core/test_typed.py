"""Typed sessions: what goes in is what comes out, and old rows go on being read."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict, assert_type

import msgspec
import pytest

from perdure import START, Derived, Entries, InvalidValue, Log, Resumed, Session, Store


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str
    at: datetime | None = None


class Call(msgspec.Struct, tag="call"):
    tool: str


class Result(msgspec.Struct, tag="result"):
    value: Decimal


@dataclass
class Point:
    x: int
    y: int = 0


class Event(TypedDict):
    name: str
    count: int


async def test_entries_of_a_typed_session_are_of_its_type(store: Store) -> None:
    session = store.session("s", type=Message)
    assert_type(session, Session[Message])
    sent = Message("user", "hi", datetime(2026, 11, 23, 8, 30, tzinfo=UTC))
    await session.append(sent, Message("assistant", "hello"))
    read = await store.session("s", type=Message).entries()
    assert_type(read, Entries[Message])
    assert read == [sent, Message("assistant", "hello")]
    assert await session.pop() == Message("assistant", "hello")
    async for entry in session.watch(after=START):
        assert_type(entry.value, Message)
        assert entry.value == sent
        break


async def test_dataclasses_typed_dicts_and_unions_are_types_too(store: Store) -> None:
    points = store.session("points", type=Point)
    await points.append(Point(1, 2))
    assert await points.entries() == [Point(1, 2)]
    events = store.session("events", type=Event)
    await events.append({"name": "start", "count": 1})
    assert (await events.entries())[0]["count"] == 1
    either: Session[Call | Result] = store.session("union", type=Call | Result)
    await either.append(Call("search"), Result(Decimal("1.10")))
    assert await either.entries() == [Call("search"), Result(Decimal("1.10"))]


async def test_turns_and_streams_have_the_type_of_their_session(store: Store) -> None:
    session = store.session("s", type=Message)
    async with session.turn() as turn:
        turn.append(Message("user", "a"))
        turn.append(Message("agent", "b"), stream="sub")
    async with session.turn() as turn:
        assert_type(await turn.entries(), Entries[Message])
        assert await turn.entries() == [Message("user", "a")]
        assert await turn.entries(stream="sub") == [Message("agent", "b")]
    assert await session.stream("sub").entries() == [Message("agent", "b")]


async def test_single_reads_can_be_typed(store: Store) -> None:
    session = store.session("s")
    at = await session.append({"role": "user", "content": "a"})
    await session.append({"role": "user", "content": "b"})
    await session.derive("seen", 1, at=at)
    log, resumed = await session.read(Log(type=Message), Derived("seen", type=Message))
    assert_type(log, Entries[Message])
    assert_type(resumed, Resumed[Message])
    assert log == [Message("user", "a"), Message("user", "b")]
    assert resumed.entries == [Message("user", "b")]


async def test_what_does_not_fit_is_refused_before_it_is_written(store: Store) -> None:
    session = store.session("s", type=Message)
    wrong: Any = {"role": "user", "content": 7}
    with pytest.raises(InvalidValue, match=r"entries\[1\].*content") as caught:
        await session.append(Message("user", "fine"), wrong)
    assert caught.value.path == "entries[1]"
    with pytest.raises(InvalidValue, match=r"entries\[1\]"):
        async with session.turn() as turn:
            turn.append(Message("user", "fine"))
            turn.append(wrong)
    assert await session.head() is None


async def test_what_others_wrote_and_does_not_fit_says_so_and_stays(store: Store) -> None:
    await store.session("s").append({"role": "user"})
    with pytest.raises(InvalidValue, match="content"):
        await store.session("s", type=Message).entries()
    assert await store.session("s").entries() == [{"role": "user"}]


class MessageV2(msgspec.Struct):
    """A field was added, and ``content`` renamed."""

    role: str
    text: str
    model: str = "unknown"


def renamed(entry: Any) -> Any:
    if "content" in entry:
        entry["text"] = entry.pop("content")
    return entry


async def test_an_added_field_gets_its_default_from_old_rows(store: Store) -> None:
    class Before(msgspec.Struct):
        role: str

    class After(msgspec.Struct):
        role: str
        model: str = "unknown"

    await store.session("s", type=Before).append(Before("user"))
    after = store.session("s", type=After)
    await after.append(After("assistant", "m1"))
    assert await after.entries() == [After("user"), After("assistant", "m1")]
    # Old code reads new rows as well: it ignores what it does not know.
    assert await store.session("s", type=Before).entries() == [
        Before("user"),
        Before("assistant"),
    ]


async def test_a_migration_brings_old_rows_into_the_new_form(store: Store) -> None:
    await store.session("s", type=Message).append(Message("user", "old"))
    session = store.session("s", type=MessageV2, migrate=renamed)
    await session.append(MessageV2("assistant", "new", "m1"))
    expected = [MessageV2("user", "old"), MessageV2("assistant", "new", "m1")]
    assert await session.entries() == expected
    assert await session.entries(last=1) == expected[1:]
    assert await session.stream("none").entries() == []
    fresh = store.session("s", type=MessageV2, migrate=renamed)
    assert await fresh.entries(last=2) == expected
    # Without the migration, old rows are refused rather than guessed.
    with pytest.raises(InvalidValue, match="text"):
        await store.session("s", type=MessageV2).entries()


async def test_a_long_typed_entry_in_pieces_is_read_whole(store: Store) -> None:
    session = store.session("s", type=Message)
    long = Message("tool", "x" * 300_000)
    await session.append(Message("user", "a"), long)
    assert await store.session("s", type=Message).entries(last=1) == [long]
