"""Arguments that make no sense: refused with a word of ours, and nothing is changed."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    START,
    Cells,
    Conflict,
    InvalidKey,
    InvalidURL,
    InvalidValue,
    Log,
    Order,
    Outcome,
    OutcomeUnknown,
    Position,
    SessionDeleted,
    Store,
    TooLarge,
    Unsupported,
)
from perdure.backend import Backend
from perdure.testing.faults import Forwarding
from perdure.types import Commit, Committed, SessionKey

NAMES = ["\ud800", "a\0b", "x" * 600, 7]

COUNTS = [-1, 1 << 53, 1 << 63, 10**30, 1.5, "3", True]

LARGE_COUNTS = [1 << 31, (1 << 53) - 1]

DURATIONS = [0, -1, -1e30, 1e15, 1e30, math.inf, -math.inf, math.nan, "5", [5]]

NO_POSITIONS = ["", "z" * 32, "0" * 31, "0" * 33, "F" * 32, b"0" * 32, 7]

LAST = Position("f" * 32)
"""Behind every entry that there can be."""


@pytest.mark.parametrize("prefix", NAMES, ids=ascii)
async def test_a_prefix_that_no_id_can_have_is_refused(store: Store, prefix: str) -> None:
    await store.save("abc", 1)
    with pytest.raises(InvalidKey):
        await anext(store.list(prefix=prefix))


@pytest.mark.parametrize("label", [*NAMES, "", "x" * 129], ids=ascii)
async def test_a_label_that_no_session_can_have_is_refused(store: Store, label: str) -> None:
    await store.session("abc").set(labels=("x",))
    with pytest.raises(InvalidKey):
        await anext(store.list(label=label))


async def test_a_prefix_of_ids_does_not_go_with_recency(store: Store) -> None:
    await store.save("abc", 1)
    with pytest.raises(Unsupported):
        await anext(store.list(prefix="a", order=Order.RECENCY))


@pytest.mark.parametrize("count", COUNTS)
async def test_a_count_that_is_none_is_refused(store: Store, count: int) -> None:
    session = store.session("s")
    await session.append("a", "b")
    for warm in (False, True):
        handle = session if warm else store.session("s")
        with pytest.raises(InvalidKey):
            await handle.entries(last=count)
        with pytest.raises(InvalidKey):
            await handle.entries(limit=count)
        with pytest.raises(InvalidKey):
            await handle.cells.scan(limit=count)
    with pytest.raises(InvalidKey):
        Log(last=count)
    with pytest.raises(InvalidKey):
        Cells(limit=count)


@pytest.mark.parametrize("count", LARGE_COUNTS)
async def test_a_count_beyond_all_there_is_takes_all(store: Store, count: int) -> None:
    session = store.session("s")
    await session.append("a", "b")
    await session.cells.update({"x": 1, "y": 2})
    for handle in (session, store.session("s")):
        assert await handle.entries(last=count) == ["a", "b"]
        assert await handle.entries(limit=count) == ["a", "b"]
        assert await handle.cells.scan(limit=count) == {"x": 1, "y": 2}


@pytest.mark.parametrize("seconds", DURATIONS)
async def test_a_duration_that_is_none_is_refused(store: Store, seconds: float) -> None:
    session = store.session("s")
    with pytest.raises(InvalidKey):
        await session.cells.put("x", 1, expires_in=seconds)
    with pytest.raises(InvalidKey):
        await session.set(expires_in=seconds)
    async with session.turn() as turn:
        with pytest.raises(InvalidKey):
            turn.set(expires_in=seconds)
    assert await session.head() is None


async def test_the_shortest_duration_is_a_millisecond(store: Store) -> None:
    head = await store.session("s").set(expires_in=1e-9)
    assert head.expires_at == head.updated_at + 1


@pytest.mark.parametrize("meta", ["text", [1, 2], bytearray(b"x"), memoryview(b"x"), 5])
async def test_meta_that_is_not_bytes_is_refused(store: Store, meta: bytes) -> None:
    with pytest.raises(InvalidValue) as caught:
        await store.session("s").set(meta=meta)
    assert caught.value.path == "meta"
    assert await store.session("s").head() is None


async def test_meta_over_its_limit_is_refused(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(TooLarge):
        await session.set(meta=b"x" * 4097)
    assert (await session.set(meta=b"x" * 4096)).meta == b"x" * 4096


@pytest.mark.parametrize(
    "labels",
    [
        "ab",
        5,
        {"a": 1},
        (1,),
        [["x"]],
        ("",),
        ("a\0b",),
        ("x" * 129,),
        tuple("abcde"),
        ("a", "a"),
    ],
    ids=repr,
)
async def test_labels_that_are_none_are_refused(store: Store, labels: Any) -> None:
    with pytest.raises((InvalidKey, InvalidValue)):
        await store.session("s").set(labels=labels)
    assert await store.session("s").head() is None


@pytest.mark.parametrize("moment", [5, 5.0, "2030-01-01", datetime(2030, 1, 1)])  # noqa: DTZ001
async def test_a_moment_without_a_place_in_time_is_refused(store: Store, moment: Any) -> None:
    with pytest.raises((InvalidKey, InvalidValue)):
        await store.session("s").set(expires_at=moment)
    assert await store.session("s").head() is None


async def test_there_is_one_way_to_expire_at_a_time(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(InvalidKey):
        await session.set(expires_in=5, never_expires=True)
    with pytest.raises(InvalidKey):
        await session.set(expires_in=5, expires_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert await session.head() is None


@pytest.mark.parametrize("version", [-1, 2, 1 << 70, "1"])
async def test_a_version_that_never_was_is_not_the_one_expected(
    store: Store, version: int
) -> None:
    await store.save("s", "saved")
    session = store.session("t")
    await session.cells.put("x", "put")
    with pytest.raises(Conflict):
        await store.save("s", 2, expect=version)
    with pytest.raises(Conflict):
        await session.cells.put("x", 2, expect=version)
    assert await store.load("s") == "saved"
    assert await session.cells.get("x") == "put"


@pytest.mark.parametrize("position", NO_POSITIONS, ids=repr)
async def test_what_is_not_a_position_is_refused_everywhere(
    store: Store, position: Position
) -> None:
    session = store.session("s")
    await session.append("a")
    for use in (
        session.entries(before=position),
        session.truncate(before=position),
        session.truncate(after=position),
        session.fork("copy", at=position),
        anext(session.watch(after=position)),
    ):
        with pytest.raises(InvalidKey):
            await use
    async with session.turn() as turn:
        with pytest.raises(InvalidKey):
            await turn.truncate(after=position)
    assert await session.entries() == ["a"]
    assert await store.session("copy").head() is None


async def test_the_ends_of_all_positions_are_positions(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b")
    for handle in (session, store.session("s")):
        assert await handle.entries(before=LAST) == ["a", "b"]
        assert await handle.entries(before=LAST, last=1) == ["b"]
        assert await handle.entries(after=LAST) == []
        assert await handle.entries(before=START) == []
        assert await handle.entries(after=START, before=LAST, limit=1) == ["a"]
    await session.truncate(after=LAST)
    await session.truncate(before=START)
    assert await store.session("s").entries() == ["a", "b"]
    await session.truncate(before=LAST)
    assert await store.session("s").entries() == []
    assert await session.append("c") < LAST


async def test_ranges_that_end_before_they_start_are_empty(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c")
    await session.cells.update({"m": 1, "n": 2})
    positions = (await session.entries()).positions
    for handle in (session, store.session("s")):
        assert await handle.entries(after=positions[2], before=positions[0]) == []
        assert await handle.entries(after=positions[2], before=positions[0], last=5) == []
        assert await handle.entries(after=positions[1], before=positions[1], limit=5) == []
        assert await handle.cells.scan(start="z", stop="a") == {}
        assert await handle.cells.scan(start="z", stop="a", reverse=True) == {}
        assert await handle.cells.scan("m", start="n") == {}
        assert await handle.cells.scan(start="m", stop="m") == {}
        assert await handle.cells.scan(stop="") == {}


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_an_index_behind_the_end_of_a_long_entry_cuts_next_to_it(
    store: Store, cut: str
) -> None:
    """A position that no entry has, in the row of one that goes on in further rows."""
    session = store.session("s")
    long = "x" * 200_000
    position = await session.append(long)
    await session.append("b")
    beyond = Position(position[:-8] + "00000005")
    if cut == "before":
        await session.truncate(before=beyond)
        expected = ["b"]
    else:
        await session.truncate(after=beyond)
        expected = [long]
    assert await session.entries() == await store.session("s").entries() == expected


async def test_writing_nothing_is_a_mistake_and_removing_nothing_is_not(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(TypeError):
        await session.append()
    with pytest.raises(TypeError):
        await session.cells.update({})
    with pytest.raises(TypeError):
        await session.truncate()
    with pytest.raises(TypeError):
        await session.truncate(after=START, before=START)
    await session.cells.delete()
    assert await session.head() is None


async def test_one_bad_cell_of_several_writes_none(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(InvalidKey):
        await session.cells.update({"a": 1, "": 2})
    with pytest.raises(InvalidValue) as caught:
        await session.cells.update({"a": 1, "b": [{1}]})
    assert caught.value.path == "cells['b'][0]"
    with pytest.raises(InvalidKey):
        await session.cells.delete("a", "\0")
    assert await session.head() is None


async def test_what_names_no_store_is_refused_at_once(tmp_path: Path) -> None:
    source: Any
    for source in (tmp_path, 5, b"sqlite:///a.db"):
        with pytest.raises(InvalidURL):
            Store(source)
    deadline: Any
    for deadline in (0, -1, float("nan"), "3", None):
        with pytest.raises(ValueError, match="deadline"):
            Store("memory://", deadline=deadline)


def test_a_wrong_url_in_the_environment_is_said_to_be_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERDURE_URL", "sessions.db")
    with pytest.raises(InvalidURL, match=r"^PERDURE_URL: "):
        Store()


async def test_what_is_no_request_is_refused(store: Store) -> None:
    request: Any = "log"
    with pytest.raises(TypeError, match="Log"):
        await store.session("s").read(request)


async def test_a_setting_that_was_applied_before_the_session_went_is_said_to_be(
    backend: Backend,
) -> None:
    class GoneAfter(Forwarding):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            made = await super().commit(key, commit)
            if not made.replayed:
                await Store(self.backend).delete(key.id)
                raise OutcomeUnknown("the reply was lost, on purpose", commit=commit)
            return made

    with pytest.raises(SessionDeleted) as caught:
        await Store(GoneAfter(backend)).session("s").set(meta=b"m")
    assert caught.value.outcome is Outcome.APPLIED
