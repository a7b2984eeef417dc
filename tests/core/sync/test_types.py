"""What type checkers see of ``perdure.sync``. The repository's type check judges this file."""

from collections.abc import Generator
from typing import Any, assert_type

import msgspec

import perdure
from perdure import (
    Cell,
    Description,
    Entries,
    Entry,
    Head,
    HeadEntry,
    Log,
    Position,
    Versioned,
)
from perdure.sync import CellMap, Scope, Session, Store, Stream, Turn
from perdure.types import Committed


class Message(msgspec.Struct):
    text: str


def test_stores_and_scopes(store: Store) -> None:
    assert_type(store.tenant("a"), Scope)
    assert_type(store.tenant("a").kind("k"), Scope)
    assert_type(store.describe(), Description)
    assert_type(store.save("x", {"a": 1}), int)
    assert_type(store.delete("x"), bool)
    assert_type(store.list(), Generator[HeadEntry, None, None])
    assert_type(store.sweep(), int)
    assert_type(store.session("s"), Session[Any])
    assert_type(store.session("s", type=Message), Session[Message])


def test_sessions(store: Store) -> None:
    session = store.session("s", type=Message)
    assert_type(session.append(Message("hi")), Position)
    assert_type(session.entries(last=1), Entries[Message])
    assert_type(session.entries()[0].text, str)
    assert_type(session.watch(after=perdure.START), Generator[Entry[Message], None, None])
    assert_type(session.head(), Head | None)
    assert_type(session.stream("side"), Stream[Message])
    assert_type(session.fork("f"), Session[Message])
    assert_type(session.cells, CellMap)
    assert_type(session.cells.get_versioned("c"), Versioned[Any] | None)
    assert_type(session.read(Log(last=1), Cell("c"))[1], Any)
    assert_type(session.pop(), Message | None)


def test_turns(store: Store) -> None:
    session = store.session("s", type=Message)
    with session.turn() as turn:
        assert_type(turn, Turn[Message])
        turn.append(Message("hi"))
        assert_type(turn.entries(), Entries[Message])
        turn.cells["step"] = 1
    assert_type(turn.committed, Committed | None)
