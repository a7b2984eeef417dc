"""Events: one for each operation, with what it has cost and nothing that a session holds."""

import asyncio
import hashlib
import inspect
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

import pytest

from perdure import (
    START,
    Cell,
    Conflict,
    InvalidKey,
    Log,
    Outcome,
    OutcomeUnknown,
    Position,
    Scope,
    Session,
    SessionKey,
    Store,
    Turn,
)
from perdure.attachments import Attachments
from perdure.backend import Backend
from perdure.cellmap import CellMap
from perdure.stream import Stream
from perdure.testing.faults import Delay, DropRequests, LoseReplies

from tests.core.seen import Seen, first
from tests.core.wrappers import Narrow, Recorder

SECRET = "plums in the icebox"
CONTENT = b"a picture of plums"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


async def consumed(generator: AsyncGenerator[object, None]) -> None:
    async for _ in generator:
        pass


async def one_turn(session: Session) -> None:
    async with session.turn() as turn:
        await turn.entries()
        await turn.read(Cell("step"), Log(last=1))
        await turn.cells.get("step")
        turn.cells["step"] = SECRET
        turn.append(SECRET)


Act = Callable[[Store, Session], Awaitable[object]]

OPERATIONS: dict[str, Act] = {
    "append": lambda store, session: session.append(SECRET),
    "entries": lambda store, session: session.entries(),
    "read": lambda store, session: session.read(Log(last=1), Cell("step")),
    "pop": lambda store, session: session.pop(),
    "truncate": lambda store, session: session.truncate(after=START),
    "clear": lambda store, session: session.clear(),
    "watch": lambda store, session: first(session.watch(after=START)),
    "stream.delete": lambda store, session: session.stream("sub").delete(),
    "streams": lambda store, session: session.streams(),
    "resume": lambda store, session: session.resume("summary"),
    "head": lambda store, session: session.head(),
    "set": lambda store, session: session.set(meta=SECRET.encode()),
    "turn": lambda store, session: one_turn(session),
    "fork": lambda store, session: session.fork("other"),
    "lineage": lambda store, session: session.lineage(),
    "delete": lambda store, session: session.delete(),
    "cells.get": lambda store, session: session.cells.get("step"),
    "cells.get_versioned": lambda store, session: session.cells.get_versioned("step"),
    "cells.scan": lambda store, session: session.cells.scan(),
    "cells.put": lambda store, session: session.cells.put("step", SECRET, expires_in=60),
    "cells.update": lambda store, session: session.cells.update({"a": SECRET}),
    "cells.delete": lambda store, session: session.cells.delete("step"),
    "attachments.put": lambda store, session: session.attachments.put(SECRET.encode()),
    "attachments.read": lambda store, session: session.attachments.read(DIGEST),
    "attachments.open": lambda store, session: consumed(session.attachments.open(DIGEST)),
    "attachments.stat": lambda store, session: session.attachments.stat(DIGEST),
    "attachments.list": lambda store, session: session.attachments.list(),
    "attachments.delete": lambda store, session: session.attachments.delete(DIGEST),
    "save": lambda store, session: session.save({"secret": SECRET}),
    "load": lambda store, session: session.load(),
    "export": lambda store, session: consumed(session.export()),
    "list": lambda store, session: consumed(store.list()),
    "page": lambda store, session: store.page(limit=1),
    "kinds": lambda store, session: consumed(store.kinds()),
    "tenants": lambda store, session: consumed(store.tenants()),
    "read_many": lambda store, session: store.read_many(["plum", "pear"], Log(last=1)),
    "erase": lambda store, session: store.erase(),
    "describe": lambda store, session: store.describe(),
    "sweep": lambda store, session: store.sweep(),
    "close": lambda store, session: store.aclose(),
}


ABOUT_SEVERAL = {
    "list", "page", "kinds", "tenants", "read_many", "erase", "describe", "sweep", "close",
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_is_one_event_without_content(
    name: str, watched: Store, seen: Seen
) -> None:
    session = watched.tenant("orchard").session("plum")
    await session.append(SECRET, SECRET)
    await session.attachments.put(CONTENT)
    seen.clear()
    await OPERATIONS[name](watched, session)
    event = seen.only()
    about_several = name in ABOUT_SEVERAL
    assert event.operation == name
    assert event.key == (None if about_several else SessionKey("orchard", "session", "plum"))
    assert event.error is None
    assert event.outcome is None
    assert event.backend in ("memory", "sqlite")
    assert 0 < event.duration <= event.elapsed < 5
    assert SECRET not in repr(event)


def methods(of: type) -> dict[str, Callable[..., object]]:
    """The public methods of a class that do I/O."""
    return {
        name: method
        for name, method in vars(of).items()
        if inspect.isfunction(method)
        and (not name.startswith("_") or name in ("__aenter__", "__aexit__"))
        and (
            inspect.iscoroutinefunction(inspect.unwrap(method))
            or inspect.isasyncgenfunction(inspect.unwrap(method))
            or "AsyncGenerator" in str(inspect.signature(method).return_annotation)
        )
    }


HAND_ON: dict[type, set[str]] = {
    Store: {"__aexit__"},
    Scope: {"save", "load", "delete"},
    Session: {"append", "entries", "pop", "truncate", "watch"},
    Turn: {"entries", "read_one"},
}
"""Methods that leave all to another one, which is an operation."""


@pytest.mark.parametrize("of", [Store, Scope, Session, Stream, CellMap, Attachments, Turn])
def test_every_public_method_is_an_operation_or_part_of_one(of: type) -> None:
    unmarked = {
        name for name, method in methods(of).items() if inspect.unwrap(method) is method
    }
    assert unmarked == HAND_ON.get(of, set())


async def test_what_passes_the_backend_is_counted(backend: Backend, seen: Seen) -> None:
    recorder = Recorder(backend)
    store = Store(recorder, on_event=seen.append)
    session = store.session("plum")
    await session.append("a", "b")
    (row,) = recorder.commits[-1].appends[0].values
    event = seen.only()
    assert (event.round_trips, event.items_written, event.bytes_sent) == (1, 1, len(row))
    assert (event.items_read, event.bytes_received) == (0, 0)
    other = store.session("plum")
    await other.entries()
    event = seen.only()
    assert (event.round_trips, event.items_read, event.bytes_received) == (1, 1, len(row))
    assert (event.items_written, event.bytes_sent) == (0, 0)
    await consumed(store.list())
    assert seen.only().items_read == 1


async def test_a_large_commit_counts_with_all_its_stages(backend: Backend, seen: Seen) -> None:
    store = Store(Narrow(backend, commit_bytes=1 << 17), on_event=seen.append)
    noise = random.Random(7).randbytes(1 << 18)  # not to be compressed
    await store.session("plum").append(noise)
    event = seen.only()
    assert event.operation == "append"
    assert len(noise) < event.bytes_sent < len(noise) + 4096
    assert event.round_trips > 4
    assert event.items_written > 4


async def test_a_turn_is_one_event_and_what_its_block_does_besides_is_not_in_it(
    watched: Store, seen: Seen
) -> None:
    session, other = watched.session("plum"), watched.session("pear")
    await session.append("a")
    seen.clear()
    async with session.turn() as turn:
        await turn.cells.get("step")
        await other.append("b")
        inside = seen.only()
        await asyncio.sleep(0.05)
        turn.append("c")
    event = seen.only()
    assert (inside.operation, inside.key) == ("append", other.key)
    assert inside.round_trips == 1
    assert (event.operation, event.key) == ("turn", session.key)
    assert event.round_trips == 3  # what is new, the cell, the commit
    assert event.items_written == 1
    assert event.elapsed >= 0.05 > event.duration


async def test_a_turn_tells_what_ended_it(watched: Store, seen: Seen) -> None:
    session = watched.session("plum")
    with pytest.raises(ZeroDivisionError):
        async with session.turn() as turn:
            turn.append("a")
            raise ZeroDivisionError
    event = seen.only()
    assert (event.error, event.outcome) == ("ZeroDivisionError", Outcome.NOT_APPLIED)
    await session.append("a")
    seen.clear()
    with pytest.raises(Conflict):
        async with session.turn() as turn:
            await watched.session("plum").append("b")
            turn.append("c")
    assert seen.names == ["append", "turn"]
    assert (seen[1].error, seen[1].outcome) == ("Conflict", Outcome.NOT_APPLIED)
    assert seen[1].conflicts == 1


async def test_what_a_turn_got_over_is_no_failure(watched: Store, seen: Seen) -> None:
    session = watched.session("plum")
    async with session.turn() as turn:
        with suppress(InvalidKey):
            await turn.truncate(after=Position("nowhere"))
        turn.append("a")
    assert seen.only().error is None


async def test_a_turn_entered_twice_is_two_events(watched: Store, seen: Seen) -> None:
    async with watched.session("plum").turn() as turn:
        with pytest.raises(Exception, match="entered once"):
            await turn.__aenter__()
        assert seen.only().error == "Unsupported"
        turn.append("a")
    assert seen.only().error is None


async def test_a_generator_tells_when_it_is_closed(watched: Store, seen: Seen) -> None:
    session = watched.session("plum")
    await session.append("a", "b", "c")
    seen.clear()
    async with aclosing(session.watch(after=START)) as entries:
        async for entry in entries:
            assert seen == []
            await asyncio.sleep(0.05)
            if entry.value == "b":
                break
    event = seen.only()
    assert (event.operation, event.error) == ("watch", None)
    assert event.elapsed >= 0.1 > event.duration


async def test_a_generator_that_raises_tells_of_it(watched: Store, seen: Seen) -> None:
    session = watched.session("plum")
    await session.append("a")
    with pytest.raises(Exception, match="deleted"):
        async for _ in session.watch(after=START):
            await watched.session("plum").delete()
    assert (seen[-1].operation, seen[-1].error) == ("watch", "SessionDeleted")


async def test_a_cancelled_operation_tells_of_it(backend: Backend, seen: Seen) -> None:
    store = Store(Delay(backend, before=10), on_event=seen.append)
    task = asyncio.create_task(store.session("plum").append("a"))
    await asyncio.sleep(0.02)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    event = seen.only()
    assert (event.error, event.outcome) == ("CancelledError", Outcome.UNKNOWN)
    assert event.unanswered == 1
    task = asyncio.create_task(first(store.session("pear").watch()))
    await asyncio.sleep(0.02)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    event = seen.only()
    assert (event.error, event.outcome) == ("CancelledError", Outcome.NOT_APPLIED)


async def test_resends_and_what_they_find_are_counted(backend: Backend, seen: Seen) -> None:
    store = Store(LoseReplies(backend, on={0}), on_event=seen.append)
    await store.session("plum").append("a")
    event = seen.only()
    assert (event.round_trips, event.unanswered, event.resends) == (2, 1, 1)
    assert event.replayed
    assert event.error is None
    store = Store(DropRequests(backend, on={0}), on_event=seen.append)
    await store.session("plum").append("b")
    event = seen.only()
    assert (event.round_trips, event.unanswered, event.resends) == (2, 1, 0)
    assert not event.replayed


async def test_an_unknown_outcome_is_told_as_such(backend: Backend, seen: Seen) -> None:
    store = Store(DropRequests(backend, known=False), deadline=0.1, on_event=seen.append)
    with pytest.raises(OutcomeUnknown):
        await store.session("plum").append("a")
    event = seen.only()
    assert (event.error, event.outcome) == ("OutcomeUnknown", Outcome.UNKNOWN)
    assert event.unanswered == event.round_trips > 1


async def test_conflicts_got_over_are_counted(backend: Backend, seen: Seen) -> None:
    store = Store(Delay(backend, before=0.005), on_event=seen.append)
    await store.session("plum").append(*"abcdefgh")
    seen.clear()
    popped = await asyncio.gather(*(store.session("plum").pop() for _ in range(6)))
    assert set(popped) == set("cdefgh")
    assert len(seen) == 6
    assert {event.error for event in seen} == {None}
    assert sum(event.conflicts for event in seen) > 0
    assert sum(event.items_written for event in seen) >= 6


async def test_appends_that_go_together_are_an_event_each(backend: Backend, seen: Seen) -> None:
    recorder = Recorder(Delay(backend, before=0.005))
    store = Store(recorder, on_event=seen.append)
    await asyncio.gather(*(store.session("plum").append(n) for n in range(20)))
    assert seen.names == ["append"] * 20
    assert sum(event.round_trips for event in seen) == len(recorder.commits) < 20
    assert sum(event.bytes_sent for event in seen) == sum(
        len(row) for commit in recorder.commits for a in commit.appends for row in a.values
    )
