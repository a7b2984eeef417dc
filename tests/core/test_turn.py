"""Turns: read, work, commit once, or not at all."""

import pytest

from perdure import Cell, Conflict, InvalidValue, Log, SessionDeleted, Store, Unsupported
from perdure.backend import Backend

from tests.core.wrappers import Recorder


async def test_a_turn_is_one_commit(backend: Backend) -> None:
    recorder = Recorder(backend)
    store = Store(recorder)
    session = store.session("s")
    async with session.turn() as turn:
        turn.append("a")
        turn.append("b", "c")
        turn.cells["step"] = 1
        turn.set(meta=b"m", labels=("x",), expires_in=60)
    assert len(recorder.commits) == 1
    assert recorder.reads == 0  # nothing known, nothing read
    assert turn.committed is not None
    assert turn.committed.version == 1
    fresh = store.session("s")
    assert await fresh.entries() == ["a", "b", "c"]
    assert await fresh.cells.get("step") == 1
    head = await fresh.head()
    assert head is not None
    assert (head.meta, head.labels, head.expires_at is None) == (b"m", ("x",), False)


async def test_a_warm_turn_is_one_read_of_what_is_new_and_one_commit(backend: Backend) -> None:
    recorder = Recorder(backend)
    store = Store(recorder)
    session = store.session("s")
    for n in range(50):
        await session.append(n)
    recorder.reset()
    async with session.turn() as turn:
        assert (await turn.entries(last=1)) == [49]
        turn.append("next")
    assert (recorder.reads, len(recorder.commits)) == (1, 1)
    assert recorder.items_read == 0


async def test_a_turn_that_writes_nothing_commits_nothing(backend: Backend) -> None:
    recorder = Recorder(backend)
    async with Store(recorder).session("s").turn() as turn:
        await turn.entries()
    assert recorder.commits == []
    assert turn.committed is None


async def test_a_block_that_raises_writes_nothing(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(ZeroDivisionError):
        async with session.turn() as turn:
            turn.append("a")
            raise ZeroDivisionError
    assert await session.head() is None


async def test_a_turn_conflicts_with_what_came_since_it_began(store: Store) -> None:
    session, other = store.session("s"), store.session("s")
    await session.append("a")
    with pytest.raises(Conflict) as caught:
        async with session.turn() as turn:
            await other.append("intruder")
            turn.append("b")
            turn.cells["x"] = 1
    assert caught.value.head is not None
    assert caught.value.head.version == 2
    assert await session.entries() == ["a", "intruder"]
    assert await session.cells.get("x") is None
    async with session.turn() as turn:
        turn.append("b")
    assert await other.entries() == ["a", "intruder", "b"]


async def test_two_reads_of_a_turn_are_of_one_version_or_conflict(store: Store) -> None:
    await store.session("s").append("a")
    with pytest.raises(Conflict):
        async with store.session("s").turn() as turn:
            assert await turn.entries() == ["a"]
            await store.session("s").append("b")
            await turn.cells.get("x")


async def test_a_turn_on_a_session_seen_absent_conflicts_with_its_creator(
    store: Store,
) -> None:
    session = store.session("s")
    assert await session.entries() == []
    with pytest.raises(Conflict):
        async with session.turn() as turn:
            await store.session("s").append("first")
            turn.append("mine")
    assert await session.entries() == ["first"]


async def test_a_turn_never_brings_a_deleted_session_back(store: Store) -> None:
    session = store.session("s")
    await session.append("a")
    with pytest.raises(SessionDeleted):
        async with session.turn() as turn:
            await store.delete("s")
            turn.append("b")
    assert await store.session("s").head() is None


async def test_a_turn_sees_its_own_cells_and_the_logs_past(store: Store) -> None:
    session = store.session("s")
    await session.cells.update({"a": 1, "b": 2})
    await session.append("old")
    async with session.turn() as turn:
        turn.cells["a"] = 10
        del turn.cells["b"]
        turn.append("new")
        assert await turn.cells.get("a") == 10
        assert await turn.cells.get("b", "gone") == "gone"
        assert await turn.cells.get("c") is None
        assert await turn.entries() == ["old"]
        assert await turn.read(Log(), Cell("a")) == (["old"], 1)
    assert await session.cells.scan() == {"a": 10}


async def test_a_turn_can_replace_the_end_of_the_log(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c")
    keep = (await session.entries()).positions[0]
    async with session.turn() as turn:
        await turn.truncate(after=keep)
        turn.append("d")
    assert await session.entries() == ["a", "d"]
    async with session.turn() as turn:
        turn.clear()
        turn.append("summary")
    assert await session.entries() == await store.session("s").entries() == ["summary"]


async def test_bad_values_are_refused_where_they_are_given(store: Store) -> None:
    session = store.session("s")
    async with session.turn() as turn:
        turn.append("a")
        with pytest.raises(InvalidValue) as caught:
            turn.append("b", {"x": {1, 2}})
        assert caught.value.path == "entries[2].x"
        with pytest.raises(InvalidValue):
            turn.cells["x"] = object()
    assert await session.entries() == ["a"]


async def test_what_is_appended_is_what_it_was_then(store: Store) -> None:
    session = store.session("s")
    message = ["x"]
    async with session.turn() as turn:
        turn.append(message)
        message.append("later")
    assert await session.entries() == [["x"]]


async def test_a_turn_is_used_within_its_block(store: Store) -> None:
    turn = store.session("s").turn()
    with pytest.raises(Unsupported):
        turn.append("a")
    async with turn:
        turn.append("a")
    with pytest.raises(Unsupported):
        turn.cells["x"] = 1
