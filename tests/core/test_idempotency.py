"""Appends under a key: applied once within a day, whoever repeats them."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure import (
    START,
    CommitIdReused,
    InvalidKey,
    InvalidValue,
    KeyRing,
    Outcome,
    OutcomeUnknown,
    PerdureError,
    Position,
    Session,
    SessionDeleted,
    Store,
    TooLarge,
    Unavailable,
)
from perdure.backend import Backend
from perdure.idempotency import KEPT_MS, MARGIN_MS
from perdure.layout import IDEMPOTENCY
from perdure.testing import TestClock
from perdure.testing.faults import DropRequests, Forwarding, LoseReplies
from perdure.testing.shorthand import read_items
from perdure.types import Commit, Committed, SessionKey

from perdure_memory.backend import MemoryBackend
from perdure_sqlite.backend import SqliteBackend
from tests.core.copies import copy
from tests.core.virtual_time import VirtualTimeLoop
from tests.core.wrappers import Narrow, Recorder

HOUR_MS = 3_600_000


class Telling(Recorder):
    """Keeps the rows that commits return for itself."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.capabilities = msgspec.structs.replace(backend.capabilities, returning=False)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await super().commit(key, msgspec.structs.replace(commit, returning=()))


def trips(recorder: Recorder) -> int:
    made = recorder.reads + len(recorder.commits)
    recorder.reset()
    return made


async def test_a_repeat_is_told_the_first_position_and_appends_nothing(
    backend: Backend,
) -> None:
    store = Store(backend)
    session = store.session("s")
    await session.append("before")
    first = await session.append("a", {"b": 1}, key="webhook-123")
    await session.append("after")
    for other in (session, store.session("s"), Store(backend).session("s")):
        assert await other.append("a", {"b": 1}, key="webhook-123") == first
    entries = await store.session("s").entries()
    assert entries == ["before", "a", {"b": 1}, "after"]
    assert entries.positions[2] == first
    head = await session.head()
    assert head is not None
    assert head.version == 3


@pytest.mark.parametrize("wrap", [Recorder, Telling])
async def test_round_trips(backend: Backend, wrap: Callable[[Backend], Recorder]) -> None:
    recorder = wrap(backend)
    store = Store(recorder)
    first = await store.session("s").append("a", key="k")
    assert trips(recorder) == 2  # it did not know the time
    await store.session("s").append("b", key="l")
    assert trips(recorder) == 1
    assert await store.session("s").append("a", key="k") == first
    assert trips(recorder) == (1 if wrap is Recorder else 2)
    assert await Store(recorder).session("s").append("a", key="k") == first
    assert trips(recorder) == 1


async def test_other_content_under_a_key_is_refused(backend: Backend) -> None:
    store = Store(backend)
    session = store.session("s")
    await session.append("a", "b", key="k")
    stream = session.stream("t")
    others: list[Awaitable[Position]] = [
        session.append("a", key="k"),
        session.append("a", "c", key="k"),
        session.append(["a", "b"], key="k"),
        stream.append("a", "b", key="k"),
        Store(backend).session("s").append("b", "a", key="k"),
    ]
    for other in others:
        with pytest.raises(CommitIdReused) as caught:
            await other
        assert caught.value.outcome is Outcome.NOT_APPLIED
    assert await session.entries() == ["a", "b"]
    assert await stream.entries() == []
    assert await stream.append("a", "b", key="another") < await stream.append("c")


async def test_keys_are_any_names_and_do_not_touch_one_another(backend: Backend) -> None:
    store = Store(backend)
    names = ["a", "ab", "a\x01", "a\x01\x02", "a/b", "A", "é", "e\u0301", "\U0001f600" * 100]
    names += ["x" * 400, "x" * 399, " ", "k", "\x7f", "\uffff"]
    session = store.session("s")
    made = [await session.append(name, key=name) for name in names]
    assert len(set(made)) == len(names)
    fresh = Store(backend).session("s")
    assert [await fresh.append(name, key=name) for name in names] == made
    assert await fresh.entries() == names


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 401, "é" * 201, 7, b"k"])
async def test_what_cannot_be_a_key_is_refused(store: Store, name: Any) -> None:
    with pytest.raises(InvalidKey):
        await store.session("s").append("a", key=name)
    assert await store.session("s").head() is None


async def test_what_cannot_be_stored_uses_no_key(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(InvalidValue, match=r"entries\[1\]"):
        await session.append("a", object(), key="k")
    with pytest.raises(TypeError):
        await session.append(key="k")
    await session.append("a", key="k")


async def test_a_key_is_kept_for_a_day_and_then_free(
    backend: Backend, store: Store, clock: TestClock
) -> None:
    session = store.session("s")
    first = await session.append("a", key="k")
    clock.advance(KEPT_MS - 1)
    assert await session.append("a", key="k") == first
    assert await Store(backend).session("s").append("a", key="k") == first
    with pytest.raises(CommitIdReused):
        await session.append("b", key="k")
    clock.advance(MARGIN_MS + 1000)
    second = await session.append("b", key="k")
    assert second > first
    clock.advance(HOUR_MS)
    assert await Store(backend).session("s").append("b", key="k") == second
    clock.advance(KEPT_MS)
    third = await Store(backend).session("s").append("a", key="k")
    assert await session.append("a", key="k") == third
    assert await session.entries() == ["a", "b", "a"]


async def test_a_key_is_kept_for_a_day_though_the_machine_has_slept(
    backend: Backend, store: Store, clock: TestClock
) -> None:
    session = store.session("s")
    await session.append("a")  # tells the time, which then passes unnoticed
    clock.advance(30 * HOUR_MS)
    first = await session.append("b", "c", key="k")
    clock.advance(KEPT_MS - 1)
    assert await Store(backend).session("s").append("b", "c", key="k") == first
    clock.advance(MARGIN_MS + 1000)
    assert await Store(backend).session("s").append("b", "c", key="k") > first


async def test_a_key_is_kept_for_a_day_after_a_commit_that_took_long(
    backend: Backend, clock: TestClock
) -> None:
    class Slow(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if not self.commits:
                clock.advance(20_000)
            return await super().commit(key, commit)

    first = await Store(Slow(backend)).session("s").append("a", key="k")
    clock.advance(KEPT_MS - 1)
    assert await Store(backend).session("s").append("a", key="k") == first


def test_a_key_that_cannot_be_kept_is_reported_as_applied(clock: TestClock) -> None:
    async def run() -> None:
        backend = MemoryBackend(clock=clock)
        session = Store(DropRequests(backend, range(2, 1000))).session("s")
        await session.append("a")
        clock.advance(30 * HOUR_MS)
        with pytest.raises(Unavailable, match="are appended") as caught:
            await session.append("b", key="k")
        assert caught.value.outcome is Outcome.APPLIED
        assert await Store(backend).session("s").entries() == ["a", "b"]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


@pytest.mark.parametrize("how", ["pop", "truncate", "clear"])
async def test_what_was_removed_since_is_not_appended_again(
    backend: Backend, store: Store, how: str
) -> None:
    session = store.session("s")
    await session.append("a")
    first = await session.append("b", key="k")
    if how == "pop":
        assert await session.pop() == "b"
    elif how == "truncate":
        await session.truncate(after=START)
    else:
        await session.clear()
    for other in (session, Store(backend).session("s")):
        assert await other.append("b", key="k") == first
    assert "b" not in await session.entries()
    assert await session.append("c") > first


async def test_a_key_goes_with_its_session(store: Store) -> None:
    session = store.session("s")
    await session.append("a", key="k")
    await store.delete("s")
    with pytest.raises(SessionDeleted):
        await session.append("a", key="k")
    fresh = store.session("s")
    await fresh.append("b", key="k")
    assert await fresh.entries() == ["b"]
    assert (await store.session("t").append("a", key="k")) == await store.session("t").append(
        "a", key="k"
    )


async def test_a_fork_has_no_keys(store: Store) -> None:
    session = store.session("s")
    await session.append("a", key="k")
    fork = await session.fork("t")
    await fork.append("b", key="k")
    assert await fork.entries() == ["a", "b"]


async def test_a_copy_keeps_keys_and_the_positions_they_stand_for(
    backend: Backend, tmp_path: Path, clock: TestClock
) -> None:
    session = Store(backend).session("s")
    first = await session.append("a", "b", key="k")
    for n in range(5):
        await session.append(n)
    target = SqliteBackend(tmp_path / "copy.db", clock=clock)
    try:
        await copy(backend, target)
        copied = Store(target).session("s")
        assert await copied.append("a", "b", key="k") == first
        assert await copied.entries() == ["a", "b", *range(5)]
    finally:
        await target.aclose()


async def test_long_entries_under_a_key(backend: Backend) -> None:
    entries = [
        ["a", "." * 70_000],
        ["b", "." * 40_000],
        ["c", "." * 40_000],
        "d",
        "e" * 200_000,
    ]
    for count in range(1, len(entries) + 1):
        for source in (backend, Narrow(backend, commit_bytes=100_000)):
            session = Store(source).session(f"{count}-{type(source).__name__}")
            first = await session.append(*entries[:count], key="k")
            assert (
                await Store(source).session(session.key.id).append(*entries[:count], key="k")
                == first
            )
            assert (await session.entries()).positions[-1] == first


async def test_lost_replies_do_not_append_twice(backend: Backend) -> None:
    session = Store(LoseReplies(backend, {0, 1, 2}), deadline=5).session("s")
    first = await session.append("a", key="k")
    assert await session.append("a", key="k") == first
    assert await session.entries() == ["a"]


def test_who_does_not_know_repeats_it_under_the_key() -> None:
    async def run() -> None:
        losing = LoseReplies(MemoryBackend())
        store = Store(losing)
        with pytest.raises(OutcomeUnknown):
            await store.session("s").append("b", key="l")
        losing.on = ()
        for _ in range(2):
            await store.session("s").append("b", key="l")
        assert await store.session("s").entries() == ["b"]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())


async def test_keys_of_an_encrypted_store(backend: Backend, clock: TestClock) -> None:
    ring = KeyRing.generate("k")
    store = Store(backend, keys=ring)
    positions = await asyncio.gather(
        *(store.session("s").append("a", "b", key="k") for _ in range(20)),
        *(store.session("s").append(n, key=f"{n}") for n in range(5)),
    )
    assert len(set(positions)) == 6
    cold = Store(backend, keys=ring).session("s")
    assert await cold.append("a", "b", key="k") == positions[0]
    with pytest.raises(CommitIdReused):
        await cold.append("c", key="k")
    clock.advance(KEPT_MS + 10 * MARGIN_MS)
    assert await cold.append("c", key="k") > max(positions)


@pytest.mark.parametrize("wrap", [Recorder, Telling])
async def test_fifty_at_once_are_one(
    backend: Backend, wrap: Callable[[Backend], Recorder]
) -> None:
    class Remote(Forwarding):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            await asyncio.sleep(0)
            return await super().commit(key, commit)

    store = Store(Remote(wrap(backend)))
    sessions: list[Session[Any]] = [store.session("s") for _ in range(10)]
    positions = await asyncio.gather(
        *(sessions[n % 10].append("a", "b", key="k") for n in range(50))
    )
    entries = await store.session("s").entries()
    assert entries == ["a", "b"]
    assert positions == [entries.positions[1]] * 50


async def test_of_different_contents_at_once_one_has_the_key(backend: Backend) -> None:
    store = Store(backend)
    results = await asyncio.gather(
        *(store.session("s").append(n % 3, key="k") for n in range(30)), return_exceptions=True
    )
    (value,) = await store.session("s").entries()
    for n, result in enumerate(results):
        assert isinstance(result, str if n % 3 == value else CommitIdReused)


async def test_a_lapsed_key_is_used_again_once(
    backend: Backend, store: Store, clock: TestClock
) -> None:
    session = store.session("s")
    await session.append("old", key="k")
    clock.advance(KEPT_MS + 10 * MARGIN_MS)
    positions = await asyncio.gather(
        *(store.session("s").append("new", key="k") for _ in range(20))
    )
    assert len(set(positions)) == 1
    assert await session.entries() == ["old", "new"]


async def test_all_that_is_kept_of_a_key_lapses_with_it(
    backend: Backend, store: Store, clock: TestClock
) -> None:
    session = store.session("s")
    await session.append("a", key="k")
    clock.advance(30 * HOUR_MS)
    await session.append("b", key="l")
    codec = session._handle.client.codec
    kept = [
        codec.expires_at(item.value)
        for item in await read_items(backend, session.key)
        if item.key.startswith(IDEMPOTENCY)
    ]
    day = [now + KEPT_MS for now in (clock.now - 30 * HOUR_MS, clock.now)]
    for expected in day:
        near = [at for at in kept if at is not None and expected <= at < expected + 5000]
        assert len(near) == 2
    assert len(kept) == 4


async def test_too_large_an_entry_uses_no_key() -> None:
    backend = MemoryBackend()
    backend.capabilities = msgspec.structs.replace(backend.capabilities, max_item_bytes=1000)
    session = Store(backend).session("s")
    with pytest.raises(TooLarge):
        await session.append(random.randbytes(2000), key="k")
    assert await session.head() is None
    with pytest.raises(PerdureError):
        await session.append(random.randbytes(2000), key="k")
    await session.append("b", key="k")
