"""Turns at the edges: entered twice, changed twice, with nothing there to change."""

import pytest

from perdure import Conflict, InvalidValue, Store, Unsupported
from perdure.backend import Backend

from tests.core.wrappers import Recorder


async def test_a_turn_is_entered_once(store: Store) -> None:
    session = store.session("s")
    turn = session.turn()
    async with turn:
        turn.append("a")
        with pytest.raises(Unsupported):
            await turn.__aenter__()
    with pytest.raises(Unsupported):
        async with turn:
            turn.append("b")
    assert await session.entries() == ["a"]


async def test_the_last_word_on_expiry_counts(store: Store) -> None:
    session = store.session("s")
    async with session.turn() as turn:
        turn.set(expires_in=60)
        turn.set(never_expires=True)
    head = await session.head()
    assert head is not None
    assert head.expires_at is None
    async with session.turn() as turn:
        turn.set(never_expires=True)
        turn.set(meta=b"m")
        turn.set(expires_in=60)
    head = await session.head()
    assert head is not None
    assert (head.meta, head.expires_at) == (b"m", head.updated_at + 60_000)


async def test_clearing_and_then_cutting_clears(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b")
    first = (await session.entries()).positions[0]
    async with session.turn() as turn:
        turn.clear()
        await turn.truncate(after=first)
    assert await session.entries() == []


async def test_cutting_and_then_clearing_clears(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c")
    first = (await session.entries()).positions[0]
    async with session.turn() as turn:
        await turn.truncate(after=first)
        turn.clear()
        turn.append("d")
    assert await session.entries() == await store.session("s").entries() == ["d"]


@pytest.mark.parametrize("seen", [False, True])
async def test_removing_from_an_absent_session_makes_none(store: Store, seen: bool) -> None:
    session = store.session("s")
    if seen:
        assert await session.entries() == []
    async with session.turn() as turn:
        turn.clear()
    async with session.turn() as turn:
        del turn.cells["x"]
    async with session.turn() as turn:
        assert await turn.entries() == []
        turn.clear()
        del turn.cells["x"]
    assert await store.session("s").head() is None
    async with session.turn() as turn:
        turn.clear()
        turn.append("first")
    assert await store.session("s").entries() == ["first"]


async def test_a_turn_that_only_removes_still_conflicts(store: Store) -> None:
    session = store.session("s")
    await session.append("a")
    with pytest.raises(Conflict):
        async with session.turn() as turn:
            turn.clear()
            await store.session("s").append("b")
    with pytest.raises(Conflict):
        async with store.session("s").turn() as turn:
            await turn.entries()
            del turn.cells["x"]
            await store.session("s").append("c")
    assert await store.session("s").entries() == ["a", "b", "c"]


async def test_a_cell_reads_as_it_will_be_stored(store: Store) -> None:
    session = store.session("s")
    async with session.turn() as turn:
        value: list[object] = [1, (2, 3)]
        turn.cells["x"] = value
        value.append("later")
        seen = await turn.cells.get("x")
        assert seen == [1, [2, 3]]
        seen.append("also later")
        assert await turn.cells.get("x") == [1, [2, 3]]
    assert await session.cells.get("x") == [1, [2, 3]]


async def test_a_cell_set_and_deleted_is_what_was_done_last(store: Store) -> None:
    session = store.session("s")
    await session.cells.update({"a": 0, "b": 0})
    async with session.turn() as turn:
        turn.cells["a"] = 1
        del turn.cells["a"]
        del turn.cells["b"]
        turn.cells["b"] = 2
        assert await turn.cells.get("a", "gone") == "gone"
        assert await turn.cells.get("b") == 2
    assert await store.session("s").cells.scan() == {"b": 2}


async def test_a_refused_cell_leaves_what_the_turn_had_written(store: Store) -> None:
    session = store.session("s")
    async with session.turn() as turn:
        turn.cells["x"] = 1
        with pytest.raises(InvalidValue):
            turn.cells["x"] = {1}
        assert await turn.cells.get("x") == 1
    assert await session.cells.get("x") == 1


async def test_own_cells_are_read_without_a_round_trip(backend: Backend) -> None:
    recorder = Recorder(backend)
    async with Store(recorder).session("s").turn() as turn:
        turn.cells["x"] = 1
        del turn.cells["y"]
        assert (await turn.cells.get("x"), await turn.cells.get("y", 0)) == (1, 0)
    assert recorder.reads == 0
