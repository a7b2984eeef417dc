"""Forks: a copy up to a position, independent from then on."""

import pytest

from perdure import Conflict, InvalidKey, Position, Store

LONG = "x" * 150_000


async def test_a_fork_holds_what_its_parent_held(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b")
    await session.append(LONG, "c")
    await session.cells.put("step", 2)
    await session.set(meta=b"meta", labels=("x",), expires_in=60)
    await store.save("s", {"files": {}})
    copy = await session.fork("copy")
    assert await copy.entries() == ["a", "b", LONG, "c"]
    assert await copy.cells.get("step") == 2
    assert await store.load("copy") == {"files": {}}
    parent, head = await session.head(), await copy.head()
    assert parent is not None
    assert head is not None
    assert (head.meta, head.labels, head.expires_at) == (b"meta", ("x",), parent.expires_at)
    assert head.incarnation != parent.incarnation


async def test_a_fork_ends_with_the_entry_at_its_position(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c")
    await session.append(LONG)
    await session.append("d")
    entries = await session.entries()
    for at, position in enumerate(entries.positions):
        copy = await session.fork(f"copy-{at}", at=position)
        assert await copy.entries() == entries[: at + 1]
        await copy.append("new")
        assert await copy.entries() == [*entries[: at + 1], "new"]
    assert await session.entries() == entries


async def test_lineage_names_the_parent_and_outlives_it(store: Store) -> None:
    session = store.tenant("acme").session("s")
    position = await session.append("a")
    copy = await session.fork("copy", at=position)
    await session.delete()
    lineage = await copy.lineage()
    assert lineage is not None
    assert (lineage.parent, lineage.position, lineage.version) == (session.key, position, 1)
    assert await copy.entries() == ["a"]
    assert await session.lineage() is None


async def test_a_fork_takes_no_name_that_is_taken_and_copies_no_nothing(store: Store) -> None:
    session = store.session("s")
    with pytest.raises(Conflict):
        await session.fork("copy")
    await session.append("a")
    await store.session("copy").append("mine")
    with pytest.raises(Conflict):
        await session.fork("copy")
    assert await store.session("copy").entries() == ["mine"]
    with pytest.raises(InvalidKey):
        await session.fork("other", at=Position("f" * 32))
    with pytest.raises(InvalidKey):
        await session.fork("")


async def test_a_fork_of_a_trimmed_log_holds_what_is_left(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c", "d")
    positions = (await session.entries()).positions
    await session.truncate(before=positions[1])
    copy = await session.fork("copy", at=positions[2])
    assert await copy.entries() == ["b", "c"]
