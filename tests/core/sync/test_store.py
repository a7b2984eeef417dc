"""The store without ``await``, from threads of all kinds."""

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

import perdure
from perdure import Conflict, Event, InvalidValue, Log, Outcome, StoreClosed, Unsupported
from perdure.sync import Session, Store

from perdure_memory.backend import MemoryBackend


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "perdure"]


def test_the_surface_in_use(store: Store, session: Session) -> None:
    first = session.append("a", "b")
    assert session.entries() == ["a", "b"]
    assert session.entries(after=perdure.START, limit=1) == ["a"]
    session.cells.put("step", 1)
    assert session.read(Log(last=1), perdure.Cell("step")) == (["b"], 1)
    session.stream("side").append("aside")
    assert session.streams() == ["side"]
    session.derive("summary", "a and b", at=first)
    assert session.resume("summary").value == "a and b"
    copy = session.fork("copy")
    session.truncate(before=first)
    assert copy.entries() == ["a", "b"]
    assert session.entries() == ["b"]
    assert session.pop() == "b"
    kept = session.attachments.put([b"some ", b"bytes"])
    assert b"".join(session.attachments.open(kept.digest)) == b"some bytes"
    assert store.save("document", {"a": [1]}) == 1
    assert store.load("document") == {"a": [1]}
    scope = store.tenant("other").kind("job")
    scope.session("x").append(1)
    assert [entry.key.id for entry in scope.list()] == ["x"]
    assert sorted(store.tenants()) == ["default", "other"]
    assert session.delete()
    assert session.head() is None
    assert store.describe().backend in ("memory", "sqlite")


def test_a_turn_commits_once_when_its_block_ends(session: Session) -> None:
    session.append("question")
    with session.turn() as turn:
        assert turn.entries() == ["question"]
        turn.append("answer")
        turn.cells["step"] = 1
        del turn.cells["other"]
        assert turn.cells.get("step") == 1
        assert session.entries() == ["question"]
    assert turn.committed is not None
    assert session.entries() == ["question", "answer"]

    class Failed(Exception):
        pass

    with pytest.raises(Failed), session.turn() as turn:
        turn.append("never")
        raise Failed
    with pytest.raises(Conflict), session.turn() as turn:
        turn.entries()
        session.append("meanwhile")
        turn.append("never")
    assert session.entries() == ["question", "answer", "meanwhile"]


def test_exclusive_turns_of_threads_take_their_turn(store: Store, session: Session) -> None:
    def count(_: int) -> None:
        own = store.session(session.key.id)
        with own.turn(exclusive=True, wait=10) as turn:
            turn.cells["n"] = turn.cells.get("n", 0) + 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(12)))
    assert session.cells.get("n") == 12


def test_many_threads_on_one_handle_lose_nothing(session: Session) -> None:
    def write(name: int) -> None:
        for n in range(25):
            session.append([name, n])
            assert [name, n] in session.entries(last=200)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    found = session.entries()
    assert len(found) == 200
    for name in range(8):
        assert [n for thread, n in found if thread == name] == list(range(25))


async def test_inside_a_running_event_loop(session: Session) -> None:
    session.append("a")
    assert session.entries() == ["a"]
    assert await asyncio.to_thread(session.entries) == ["a"]


def test_watching(store: Store, session: Session) -> None:
    session.append(0)
    seen: list[object] = []
    begun = threading.Event()

    def watch() -> None:
        watching = session.watch(after=perdure.START)
        for entry in watching:
            seen.append(entry.value)
            begun.set()
            if entry.value == 5:
                break
        watching.close()

    thread = threading.Thread(target=watch)
    thread.start()
    assert begun.wait(10)
    for n in range(1, 6):
        session.append(n)
    thread.join(10)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_an_iterator_that_is_dropped_is_closed_over_there(store: Store) -> None:
    for n in range(3):
        store.session(f"s{n}").append(n)
    for _ in store.list():
        break
    watching = store.session("s1").watch(after=perdure.START)
    assert next(watching).value == 1
    del watching
    gc.collect()
    assert len(list(store.list())) == 3


def test_errors_are_those_of_the_asynchronous_store(session: Session) -> None:
    with pytest.raises(InvalidValue) as raised:
        session.append({"bad": object()})
    assert raised.value.path == "entries[0].bad"
    with pytest.raises(Conflict):
        session.cells.put("c", 1, expect=7)


def test_an_error_keeps_nothing_alive(session: Session) -> None:
    class Big(dict[str, object]):
        pass

    big = Big(bad=object())
    count = sys.getrefcount(big)
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(InvalidValue):
                session.append(big)
    finally:
        gc.enable()
    session.head()  # the last task lets go of what it held
    assert sys.getrefcount(big) <= count + 3
    gc.collect()
    assert sys.getrefcount(big) == count


def test_callbacks_see_the_context_of_the_caller_and_cannot_use_the_store(url: str) -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[tuple[str, str]] = []
    refused: list[Exception] = []

    def note(event: Event) -> None:
        seen.append((event.operation, request.get()))
        try:
            store.session("s").append("from a callback")
        except Unsupported as error:
            refused.append(error)

    store = Store(url, on_event=note)
    request.set("mine")
    store.session("s").append(1)
    assert ("append", "mine") in seen
    assert refused
    assert store.session("s").entries() == [1]
    store.close()


def test_closing_ends_the_thread_and_later_use_says_so(url: str) -> None:
    store = Store(url)
    session = store.session("s")
    session.append(1)
    (thread,) = background_threads()
    store.close()
    store.close()
    assert not thread.is_alive()
    calls: list[Callable[[], object]] = [session.entries, session.head, store.describe]
    for call in calls:
        with pytest.raises(StoreClosed) as raised:
            call()
        assert raised.value.outcome is Outcome.NOT_APPLIED
    with pytest.raises(StoreClosed):
        next(session.watch())


def test_what_is_under_way_when_a_store_closes_ends(url: str) -> None:
    store = Store(url)
    session = store.session("s")
    session.append(1)
    ended: list[BaseException] = []

    def watch() -> None:
        try:
            for _ in session.watch():
                pass
        except StoreClosed as error:
            ended.append(error)

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    store.close()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 3


def test_calls_racing_with_closing_end_one_way_or_the_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(40):
        store = Store("memory://")
        session = store.session("s")
        session.append(0)
        outcomes: list[str] = []

        def write(session: Session = session, outcomes: list[str] = outcomes) -> None:
            try:
                while True:
                    session.append(1)
            except StoreClosed:
                outcomes.append("closed")

        def iterate(session: Session = session, outcomes: list[str] = outcomes) -> None:
            try:
                while True:
                    next(session.watch(after=perdure.START))
            except StoreClosed:
                outcomes.append("closed")

        threads = [threading.Thread(target=work) for work in (write, write, iterate)]
        for thread in threads:
            thread.start()
        time.sleep(0.002)
        store.close()
        for thread in threads:
            thread.join(10)
        assert outcomes == ["closed"] * 3
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_store_that_nobody_closes_ends_its_thread(url: str) -> None:
    store = Store(url)
    store.session("s").append(1)
    (thread,) = background_threads()
    del store
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_no_thread_before_the_first_call(url: str) -> None:
    store = Store(url)
    store.session("s").turn()
    assert background_threads() == []
    store.close()


def test_a_backend_given_as_such_is_shared_with_asynchronous_stores() -> None:
    backend = MemoryBackend()
    with Store(backend) as store:
        store.session("s").append(1)

        async def entries() -> list[object]:
            return list(await perdure.Store(backend).session("s").entries())

        assert asyncio.run(entries()) == [1]


def test_under_trio_calls_go_through_a_thread(store: Store, session: Session) -> None:
    import anyio
    import anyio.to_thread

    async def main() -> list[object]:
        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(anyio.to_thread.run_sync, session.append, n)
        return list(await anyio.to_thread.run_sync(session.entries))

    assert sorted(anyio.run(main, backend="trio"), key=str) == [0, 1, 2, 3, 4]


def test_the_asynchronous_store_under_trio_says_what_to_use() -> None:
    import anyio

    store = perdure.Store("memory://")

    async def main() -> None:
        session = store.session("s")
        for use in (session.append(1), session.entries(), session.pop(), store.load("s")):
            with pytest.raises(Unsupported, match=r"perdure\.sync"):
                await use

    anyio.run(main, backend="trio")


def test_several_threads_close_a_store_at_once(any_url: str) -> None:
    for _ in range(5):
        store = Store(any_url)
        store.session("closed").append(1)
        together = threading.Barrier(3)

        def close(store: Store = store, together: threading.Barrier = together) -> None:
            together.wait()
            store.close()

        with ThreadPoolExecutor(3) as threads:
            for closing in [threads.submit(close) for _ in range(3)]:
                closing.result()
        with pytest.raises(StoreClosed, match="was closed"):
            store.session("closed").head()
