"""The log: what is appended is there once, in order, whichever way it is read."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import START, Conflict, InvalidKey, Position, Session, Store

from perdure_memory.backend import MemoryBackend

LONG = "x" * 150_000  # more than two fragments


async def fill(session: Session, groups: list[list[Any]]) -> list[Position]:
    for group in groups:
        await session.append(*group)
    return (await session.entries()).positions


async def test_append_creates_the_session_and_returns_the_position_of_its_last_entry(
    store: Store,
) -> None:
    session = store.session("s")
    position = await session.append("a", "b")
    entries = await session.entries()
    assert entries == ["a", "b"]
    assert entries.positions[-1] == position
    assert entries.head is not None
    assert entries.head.version == 1


async def test_an_absent_session_has_no_entries(store: Store) -> None:
    session = store.session("s")
    assert await session.entries() == []
    assert await session.entries(last=5) == []
    assert await session.pop() is None
    await session.clear()
    await session.truncate(after=START)
    assert await session.head() is None


@pytest.mark.parametrize("warm", [False, True])
async def test_ranges_of_entries_are_counted_in_entries(store: Store, warm: bool) -> None:
    writer = store.session("s")
    groups = [[1, 2, 3], [4], [LONG, 5], [6], list(range(7, 40))]
    positions = await fill(writer, groups)
    values = [entry for group in groups for entry in group]
    session = writer if warm else store.session("s")

    for n in (0, 1, 2, 33, 34, 35, 36, len(values), 1000):
        assert await session.entries(last=n) == (values[-n:] if n else [])
        assert await session.entries(limit=n) == values[:n]
    for at, position in enumerate(positions):
        assert await session.entries(after=position) == values[at + 1 :]
        assert await session.entries(before=position) == values[:at]
        assert await session.entries(after=position, limit=2) == values[at + 1 : at + 3]
        assert await session.entries(before=position, last=2) == values[max(0, at - 2) : at]
    between = await session.entries(after=positions[2], before=positions[6])
    assert between == values[3:6]
    assert between.positions == positions[3:6]
    assert await session.entries(after=START) == values


async def test_positions_sort_as_the_log_does(store: Store) -> None:
    session = store.session("s")
    positions = await fill(session, [[n, n] for n in range(300)])
    assert positions == sorted(positions)
    assert len(set(positions)) == 600


async def test_pop_takes_entries_one_by_one_from_the_end(store: Store) -> None:
    session = store.session("s")
    await fill(session, [["a", "b"], [LONG], ["c"]])
    other = store.session("s")
    assert [await session.pop(), await other.pop(), await session.pop()] == ["c", LONG, "b"]
    assert await session.entries() == await other.entries() == ["a"]
    assert await other.pop() == "a"
    assert await session.pop() is None


async def test_a_position_is_not_used_again_after_a_pop(store: Store) -> None:
    session = store.session("s")
    first = await session.append("a", "b")
    await session.pop()
    assert await session.append("c") > first


async def test_truncate_cuts_behind_or_before_a_position(store: Store) -> None:
    session = store.session("s")
    groups = [["a", "b", "c"], [LONG], ["d", "e"]]
    positions = await fill(session, groups)
    values = ["a", "b", "c", LONG, "d", "e"]
    for at, position in enumerate(positions):
        for handle in (store.session(f"after-{at}"), store.session(f"before-{at}")):
            await fill(handle, groups)
            reader = store.session(handle.key.id)
            assert await reader.entries() == values
            if handle.key.id.startswith("after"):
                await handle.truncate(after=position)
                expected = values[: at + 1]
            else:
                await handle.truncate(before=position)
                expected = values[at:]
            assert await handle.entries() == expected
            assert await reader.entries() == expected
            assert await store.session(handle.key.id).entries() == expected


async def test_positions_of_what_stays_survive_a_cut(store: Store) -> None:
    session = store.session("s")
    positions = await fill(session, [["a", "b", "c", "d"]])
    await session.truncate(before=positions[1])
    await session.truncate(after=positions[2])
    entries = await store.session("s").entries()
    assert entries == ["b", "c"]
    assert entries.positions == positions[1:3]
    assert await store.session("s").entries(after=positions[1]) == ["c"]


async def test_clear_leaves_cells_and_document(store: Store) -> None:
    session = store.session("s")
    await session.append("a")
    await session.cells.put("step", 1)
    await store.save("s", "whole")
    await session.clear()
    assert await session.entries() == []
    assert await session.cells.get("step") == 1
    assert await store.load("s") == "whole"


async def test_entries_given_out_are_the_callers_own(store: Store) -> None:
    session = store.session("s")
    message = {"content": ["x"]}
    await session.append(message)
    message["content"].append("changed after append")
    first = await session.entries()
    first[0]["content"].append("changed after read")
    assert await session.entries() == [{"content": ["x"]}]


@pytest.mark.parametrize("position", ["", "zz", "0" * 31, "0" * 33, "A" * 32, " " + "0" * 31])
async def test_what_is_not_a_position_is_refused(store: Store, position: Position) -> None:
    with pytest.raises(InvalidKey):
        await store.session("s").entries(after=position)


async def test_last_and_limit_exclude_each_other(store: Store) -> None:
    with pytest.raises(InvalidKey):
        await store.session("s").entries(last=1, limit=1)
    with pytest.raises(InvalidKey):
        await store.session("s").entries(last=-1)


STEP = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 5)),
    st.tuples(st.just("long"), st.just(0)),
    st.tuples(st.just("pop"), st.just(0)),
    st.tuples(st.just("after"), st.integers(0, 30)),
    st.tuples(st.just("before"), st.integers(0, 30)),
    st.tuples(st.just("clear"), st.just(0)),
    st.tuples(st.just("read"), st.integers(0, 8)),
)


@given(steps=st.lists(st.tuples(st.integers(0, 2), STEP), max_size=25))
async def test_handles_old_and_new_agree_with_a_list(
    steps: list[tuple[int, tuple[str, int]]],
) -> None:
    """Three handles with caches of different age, one list that says what is right."""
    store = Store(MemoryBackend())
    handles = [store.session("s") for _ in range(3)]
    model: list[tuple[Position, Any]] = []
    counter = 0
    for who, (what, n) in steps:
        session = handles[who]
        if what in ("append", "long"):
            values = [LONG] if what == "long" else [counter + i for i in range(n)]
            counter += n
            await session.append(*values)
            found = (await store.session("s").entries(last=len(values))).positions
            model += zip(found, values, strict=True)
        elif what == "pop":
            expected = model.pop()[1] if model else None
            assert await session.pop() == expected
        elif what in ("after", "before") and model:
            position = model[n % len(model)][0]
            if what == "after":
                await session.truncate(after=position)
                model = [entry for entry in model if entry[0] <= position]
            else:
                await session.truncate(before=position)
                model = [entry for entry in model if entry[0] >= position]
        elif what == "clear":
            await session.clear()
            model = []
        elif what == "read":
            last = await session.entries(last=n)
            assert last == [value for _, value in model[-n:]] if n else last == []
    for session in (*handles, store.session("s")):
        entries = await session.entries()
        assert list(zip(entries.positions, entries, strict=True)) == model


async def test_pops_that_race_get_different_entries(store: Store) -> None:
    await store.session("s").append(*range(20))
    popped = await asyncio.gather(*(store.session("s").pop() for _ in range(10)))
    assert set(popped) == set(range(10, 20))
    assert await store.session("s").entries() == list(range(10))


async def test_truncate_that_keeps_losing_the_row_ends_in_a_conflict(store: Store) -> None:
    session = store.session("s")
    positions = await fill(session, [["a", "b", "c"]])
    await store.session("s").pop()
    await session.truncate(after=positions[0])  # the row was rewritten since it was read
    assert await session.entries() == ["a"]
    with pytest.raises(Conflict):
        await session.fork("s")
