"""Events: one for each operation, with what it has cost and nothing that a session holds."""

import asyncio
import contextvars
import gc
import hashlib
import inspect
import itertools
import logging
import random
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest

from perdure import (
    START,
    BackendNotFound,
    Cell,
    Conflict,
    Event,
    InvalidKey,
    Log,
    Outcome,
    OutcomeUnknown,
    Position,
    Scope,
    Session,
    SessionKey,
    Store,
    StoreClosed,
    Turn,
    sync,
)
from perdure.attachments import Attachments
from perdure.backend import Backend
from perdure.cellmap import CellMap
from perdure.forwarding import Forwarding
from perdure.stream import Stream
from perdure.testing.faults import Delay, DropRequests, LoseReplies

from perdure_memory.backend import MemoryBackend
from tests.core.wrappers import Narrow, Recorder

SECRET = "plums in the icebox"
CONTENT = b"a picture of plums"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Seen(list[Event]):
    """The events of a store, in order."""

    def only(self) -> Event:
        """The one since it was asked last."""
        (event,) = self
        self.clear()
        return event

    @property
    def names(self) -> list[str]:
        return [event.operation for event in self]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def watched(backend: Backend, seen: Seen) -> Store:
    return Store(backend, deadline=5, on_event=seen.append)


async def consumed(generator: AsyncGenerator[object, None]) -> None:
    async for _ in generator:
        pass


async def first(generator: AsyncGenerator[object, None]) -> None:
    async with aclosing(generator):
        await anext(generator)


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


async def test_what_on_event_raises_is_logged_once(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("no such span")

    store = Store(backend, on_event=broken)
    session = store.session("plum")
    with caplog.at_level(logging.ERROR, logger="perdure"):
        for _ in range(3):
            await session.append("a")
        await first(session.watch(after=START))
        async with session.turn() as turn:
            turn.append("b")
    assert len(calls) == 5
    (record,) = caplog.records
    assert record.name == "perdure"
    assert record.exc_info is not None
    assert "no such span" in str(record.exc_info[1])


async def test_on_event_runs_in_the_context_that_the_operation_began_in(
    backend: Backend,
) -> None:
    place = contextvars.ContextVar("place", default="nowhere")
    found: list[str] = []
    store = Store(backend, on_event=lambda event: found.append(place.get()))
    session = store.session("plum")
    place.set("outside")
    async with session.turn() as turn:
        place.set("inside")
        turn.append("a")
    place.set("before")
    entries = session.watch(after=START)
    await anext(entries)
    place.set("later")
    await entries.aclose()
    assert found == ["outside", "before"]


async def test_an_operation_begun_by_on_event_is_one_of_its_own(
    backend: Backend, seen: Seen
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    def audit(event: Event) -> None:
        seen.append(event)
        if event.operation == "append":
            tasks.append(asyncio.create_task(store.session("audit").cells.put("last", 1)))

    store = Store(backend, on_event=audit)
    await store.session("plum").append("a")
    await asyncio.gather(*tasks)
    assert seen.names == ["append", "cells.put"]
    assert [event.round_trips for event in seen] == [1, 1]


async def test_what_outlives_the_operation_that_began_it_is_told_by_itself(
    watched: Store, seen: Seen
) -> None:
    tasks: list[asyncio.Task[Any]] = []
    begun = asyncio.Event()

    async def later() -> None:
        await begun.wait()
        await watched.session("pear").append("later")

    async def source() -> AsyncGenerator[bytes, None]:
        await watched.session("plum").append("meanwhile")  # a part of the upload
        tasks.append(asyncio.create_task(later()))
        yield CONTENT

    await watched.session("plum").attachments.put(source())
    assert seen.only().operation == "attachments.put"
    begun.set()
    await asyncio.gather(*tasks)
    assert seen.only().operation == "append"


@pytest.mark.parametrize("wrong", [3, "print", asyncio.sleep])
def test_what_cannot_be_called_like_that_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="on_event"):
        Store("memory://", on_event=wrong)


async def test_before_there_is_a_backend_it_is_called_by_its_scheme(seen: Seen) -> None:
    store = Store("nosuch://here", on_event=seen.append)
    with pytest.raises(BackendNotFound):
        await store.session("plum").append("a")
    event = seen.only()
    assert (event.backend, event.round_trips, event.error) == ("nosuch", 0, "BackendNotFound")


async def test_a_backend_in_front_of_another_goes_by_the_others_name(seen: Seen) -> None:
    store = Store(Forwarding(MemoryBackend()), on_event=seen.append)
    await store.session("plum").append("a")
    assert seen.only().backend == "memory"


def test_from_other_event_loops_it_is_counted_too(
    monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    from tests.core.test_loops import Bound

    data = MemoryBackend()

    def open_backend(url: str) -> Backend:
        return Bound(data)

    monkeypatch.setattr("perdure.plugins.open_backend", open_backend)
    store = Store("bound://here", on_event=seen.append)

    async def append() -> None:
        await store.session("plum").append("a")
        first = asyncio.get_running_loop()
        await asyncio.to_thread(asyncio.run, elsewhere())
        assert asyncio.get_running_loop() is first

    async def elsewhere() -> None:
        await store.session("plum").append("b")

    async def main() -> None:
        await append()
        await store.aclose()

    asyncio.run(main())
    assert seen.names == ["append", "append", "close"]
    assert [event.round_trips for event in seen[:2]] == [1, 1]
    assert all(event.bytes_sent for event in seen[:2])


def test_what_is_called_without_a_loop_is_told_too(seen: Seen) -> None:
    place = contextvars.ContextVar("place", default="nowhere")
    places: list[str] = []

    def told(event: Event) -> None:
        seen.append(event)
        places.append(place.get())

    place.set("here")
    with sync.Store("memory://", on_event=told) as store:
        session = store.session("plum")
        session.append("a")
        with session.turn() as turn:
            turn.append("b")
        assert [entry.value for entry in itertools.islice(session.watch(after=START), 2)] == [
            "a",
            "b",
        ]
        list(store.list())
    gc.collect()  # the generator that was left
    assert seen.names == ["open", "append", "turn", "watch", "list", "close"]
    assert [event.round_trips for event in seen[1:3]] == [1, 2]
    assert set(places) == {"here"}


async def test_two_stores_tell_of_their_own(seen: Seen) -> None:
    other_seen = Seen()
    one = Store("memory://", on_event=seen.append)
    other = Store(MemoryBackend(), on_event=other_seen.append)
    await asyncio.gather(one.session("plum").append(1), other.session("plum").append(2))
    assert seen.names == other_seen.names == ["append"]


async def test_unwatched_a_method_is_called_as_it_is(backend: Backend) -> None:
    store = Store(backend)
    assert store.backend is backend
    coroutine = store.session("plum").head()
    assert inspect.iscoroutine(coroutine)
    assert coroutine.cr_code is inspect.unwrap(Session.head).__code__
    await coroutine


async def test_an_operation_that_never_begins_leaves_nothing_unawaited() -> None:
    """A task is cancelled before its first step: neither an event nor a warning."""
    seen = Seen()
    store = Store("memory://", on_event=seen.append)
    session = store.session("chat-7")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for operation in (session.head, session.pop, store.sweep):
            task = asyncio.create_task(operation())
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
    assert seen == []


def test_a_closed_blocking_store_that_is_watched_leaves_nothing_unawaited() -> None:
    store = sync.Store("memory://", on_event=Seen().append)
    store.close()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(StoreClosed):
            store.session("chat-7").head()
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
