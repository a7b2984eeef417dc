"""Cells: an ordered map beside the log."""

from datetime import UTC, datetime

import pytest

from perdure import Cell, Cells, Conflict, InvalidKey, Log, Store
from perdure.exporting import CellRecord
from perdure.testing import TestClock


async def test_a_cell_is_what_was_put_last(store: Store) -> None:
    cells = store.session("s").cells
    assert await cells.get("step") is None
    assert await cells.get("step", 0) == 0
    await cells.put("step", 1)
    version = await cells.put("step", {"n": 2})
    assert await store.session("s").cells.get("step") == {"n": 2}
    found = await cells.get_versioned("step")
    assert found is not None
    assert (found.value, found.version) == ({"n": 2}, version)
    await cells.delete("step", "never was")
    assert await cells.get("step", "gone") == "gone"


async def test_a_stored_none_is_not_an_absent_cell(store: Store) -> None:
    cells = store.session("s").cells
    await cells.put("x", None)
    assert await cells.get("x", "default") is None
    assert await cells.get_versioned("x") is not None


async def test_deleting_cells_of_an_absent_session_makes_none(store: Store) -> None:
    await store.session("s").cells.delete("x")
    assert await store.session("s").head() is None


async def test_scans_are_ordered_by_code_point_and_bounded(store: Store) -> None:
    cells = store.session("s").cells
    names = ["", "a", "a\uffff", "a😀", "ab", "b/1", "b/10", "b/2", "b0", "é"]
    await cells.update({name: n for n, name in enumerate(names) if name})
    names.remove("")
    assert list(await cells.scan()) == sorted(names)
    assert list(await cells.scan(reverse=True)) == sorted(names, reverse=True)
    assert list(await cells.scan("b/")) == ["b/1", "b/10", "b/2"]
    assert list(await cells.scan("a")) == ["a", "ab", "a\uffff", "a😀"]
    assert list(await cells.scan(start="ab", stop="b/2")) == [
        n for n in sorted(names) if "ab" <= n < "b/2"
    ]
    assert list(await cells.scan(limit=3)) == sorted(names)[:3]
    assert list(await cells.scan("b/", limit=1, reverse=True)) == ["b/2"]
    assert await cells.scan(limit=0) == {}


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 501, 7])
async def test_a_name_that_cannot_be_kept_is_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidKey):
        await store.session("s").cells.put(name, 1)


async def test_a_put_can_require_a_version(store: Store) -> None:
    cells = store.session("s").cells
    first = await cells.put("x", 1, expect=0)
    with pytest.raises(Conflict):
        await cells.put("x", 2, expect=0)
    second = await cells.put("x", 2, expect=first)
    with pytest.raises(Conflict):
        await cells.put("x", 3, expect=first)
    await cells.put("y", 1)  # other cells do not matter
    await cells.put("x", 3, expect=second)
    assert await cells.get("x") == 3


async def test_a_cell_expires_by_the_backends_clock(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    await session.cells.put("lease", "me", expires_in=10)
    await session.cells.put("other", 1)
    clock.advance(9_999)
    assert await session.cells.get("lease") == "me"
    clock.advance(1)
    assert await session.cells.get("lease") is None
    assert await session.cells.get_versioned("lease") is None
    assert await session.cells.scan() == {"other": 1}
    await session.cells.put("lease", "you", expect=0, expires_in=10)
    with pytest.raises(Conflict):
        await session.cells.put("lease", "third", expect=0)
    assert await session.cells.get("lease") == "you"


async def test_a_limited_scan_looks_past_expired_cells(store: Store, clock: TestClock) -> None:
    cells = store.session("s").cells
    for n in range(10):
        await cells.put(f"a{n}", n, expires_in=1)
    await cells.update({"b1": 1, "b2": 2})
    clock.advance(1000)
    assert await cells.scan(limit=2) == {"b1": 1, "b2": 2}


async def test_one_read_mixes_log_and_cells_in_one_snapshot(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c")
    await session.cells.update({"step": 3, "x/1": 1, "x/2": 2})
    entries, step, found = await store.session("s").read(Log(last=2), Cell("step"), Cells("x/"))
    assert (entries, step, found) == (["b", "c"], 3, {"x/1": 1, "x/2": 2})
    entries, step = await session.read(Log(), Cell("step"))
    assert (entries, step) == (["a", "b", "c"], 3)


async def test_a_cell_may_expire_at_a_given_time(store: Store, clock: TestClock) -> None:
    cells = store.session("s").cells
    until = datetime.fromtimestamp((clock() + 1500) / 1000, UTC)
    await cells.put("a", 1, expires_at=until)
    (record,) = [
        record async for record in store.session("s").export() if isinstance(record, CellRecord)
    ]
    assert record.expires_at == clock() + 1500
    clock.advance(1499)
    assert await cells.get("a") == 1
    clock.advance(1)
    assert await cells.get("a") is None
    with pytest.raises(InvalidKey):
        await cells.put("a", 1, expires_at=until, expires_in=1)
    with pytest.raises(InvalidKey, match="zone"):
        await cells.put("a", 1, expires_at=until.replace(tzinfo=None))
