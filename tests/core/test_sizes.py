"""What is larger than one read or one commit is whole all the same."""

import asyncio
import random

import pytest

from perdure import Cells, Conflict, Log, Store, TooLarge
from perdure.backend import Backend

from tests.core.wrappers import Narrow

RANDOM = random.Random(0)


def noise(size: int) -> str:
    """Text that does not compress below a limit."""
    return RANDOM.randbytes(size // 2).hex()


ENTRIES = [f"{n:05}" + "x" * 300 for n in range(40)]


async def test_reads_of_many_pages_are_whole(backend: Backend) -> None:
    store = Store(backend)
    for entry in ENTRIES:
        await store.session("s").append(entry)
    await store.session("s").cells.update({f"c{n:03}": "y" * 200 for n in range(30)})
    narrow = Narrow(backend)
    session = Store(narrow).session("s")
    assert await session.entries() == ENTRIES
    assert narrow.reads > 5
    assert await Store(narrow).session("s").entries(last=25) == ENTRIES[-25:]
    assert await Store(narrow).session("s").entries(limit=25) == ENTRIES[:25]
    log, cells = await Store(narrow).session("s").read(Log(), Cells(reverse=True, limit=20))
    assert log == ENTRIES
    assert list(cells) == [f"c{n:03}" for n in range(29, 9, -1)]


@pytest.mark.parametrize("change", ["append", "pop", "cells", "clear", "recreate", "rewrite"])
async def test_a_read_of_many_pages_is_of_one_version(backend: Backend, change: str) -> None:
    """Whatever is committed between two pages, the result is some state that was."""
    store = Store(backend)
    writer = store.session("s")
    for n in range(0, 40, 2):
        await writer.append(ENTRIES[n], ENTRIES[n + 1])
    await writer.cells.put("count", 40)
    states: list[tuple[list[str], object]] = []

    async def note() -> None:
        fresh = store.session("s")
        states.append((await fresh.entries(), await fresh.cells.get("count")))

    async def disturb() -> None:
        session = store.session("s")
        async with session.turn() as turn:
            turn.cells["count"] = len(states)
            if change == "append":
                turn.append("new" * 100, "newer")
            elif change == "clear":
                turn.clear()
            elif change == "rewrite":
                await turn.truncate(after=(await turn.entries()).positions[2])
        if change == "pop":
            await session.pop()
        if change == "recreate":
            await session.delete()
            await store.session("s").append("successor")
        await note()

    await note()
    narrow = Narrow(backend)
    narrow.between = [disturb, disturb, disturb]
    log, cells = await Store(narrow).session("s").read(Log(), Cells())
    assert narrow.between != [disturb] * 3
    await note()
    assert (log, cells.get("count")) in states


async def test_a_commit_over_the_limit_becomes_visible_at_once(backend: Backend) -> None:
    narrow = Narrow(backend, read_bytes=1 << 20, commit_bytes=70_000)
    store = Store(narrow)
    entries = [noise(60_000) for _ in range(10)]
    await store.session("s").append("small")
    await store.session("s").append(*entries)
    assert narrow.stagings > 1
    head = await store.session("s").head()
    assert head is not None
    assert head.version == 2
    session = store.session("s")
    assert await session.entries() == ["small", *entries]
    await session.append("next")
    assert await store.session("s").entries() == ["small", *entries, "next"]


async def test_a_large_first_commit_creates_the_session(backend: Backend) -> None:
    store = Store(Narrow(backend, read_bytes=1 << 20, commit_bytes=70_000))
    entries = [noise(60_000) for _ in range(10)]
    await store.session("s").append(*entries)
    assert await store.session("s").entries() == entries
    with pytest.raises(Conflict):
        await store.session("s").fork("s")
    await store.session("s").fork("copy")
    assert await store.session("copy").entries() == entries


async def test_large_commits_that_race_are_all_applied_whole(backend: Backend) -> None:
    store = Store(Narrow(backend, read_bytes=1 << 20, commit_bytes=70_000))
    batches = [[[n, i, noise(60_000)] for i in range(5)] for n in range(5)]
    await asyncio.gather(*(store.session("s").append(*batch) for batch in batches))
    entries = await store.session("s").entries()
    assert sorted(entries) == [entry for batch in batches for entry in batch]
    assert [[n, i] for n, i, _ in entries] == [
        [entries[at][0], i] for at in range(0, 25, 5) for i in range(5)
    ]


async def test_one_item_over_the_limit_is_refused_and_nothing_written(
    backend: Backend,
) -> None:
    store = Store(Narrow(backend, commit_bytes=70_000))
    await store.session("s").append("a")
    with pytest.raises(TooLarge):
        await store.session("s").cells.put("big", RANDOM.randbytes(100_000))
    assert await store.session("s").entries() == ["a"]
    assert await store.session("s").cells.scan() == {}
