"""Who is told of events: whatever it raises, from wherever the operation comes."""

import asyncio
import contextvars
import gc
import inspect
import itertools
import logging
import warnings
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest

from perdure import (
    START,
    BackendNotFound,
    Event,
    Session,
    Store,
    StoreClosed,
    sync,
)
from perdure.backend import Backend
from perdure.forwarding import Forwarding

from perdure_memory.backend import MemoryBackend
from tests.core.seen import Seen, first

CONTENT = b"a picture of plums"


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
