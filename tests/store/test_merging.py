"""Appends to one session that are made at once, on every backend."""

import asyncio

from perdure import Store
from perdure.backend import Durability

AT_ONCE = 50


async def test_fifty_at_once_are_few_commits_in_the_order_of_the_calls(
    any_store: Store,
) -> None:
    sessions = [any_store.session("s") for _ in range(7)]
    positions = await asyncio.gather(
        *(sessions[n % 7].append([n, 0], [n, 1]) for n in range(AT_ONCE))
    )
    entries = await any_store.session("s").entries()
    assert entries == [[n, half] for n in range(AT_ONCE) for half in range(2)]
    assert positions == entries.positions[1::2]
    head = await sessions[0].head()
    assert head is not None
    if any_store.backend.capabilities.durability is Durability.NONE:
        assert head.version == AT_ONCE  # a backend of dicts never makes anybody wait
    else:
        assert head.version <= 5  # 2, unless connecting takes seconds


async def test_several_streams_and_sessions_at_once(any_store: Store) -> None:
    async def append(n: int) -> None:
        session = any_store.session(f"{n % 2}")
        await session.stream(f"stream {n % 3}").append([n, "." * (n % 7 * 2000)])

    for _ in range(2):
        await asyncio.gather(*map(append, range(60)))
    for id in range(2):
        for name in range(3):
            entries = await any_store.session(f"{id}").stream(f"stream {name}").entries()
            expected = [n for n in range(60) if (n % 2, n % 3) == (id, name)]
            assert [n for n, _ in entries] == expected * 2


async def test_more_than_a_commit_takes_goes_in_several(any_store: Store) -> None:
    session = any_store.session("s")
    values = [[n, bytes((n,)) * 40_000 + bytes(range(256)) * 200] for n in range(60)]
    positions = await asyncio.gather(*(session.append(value) for value in values))
    entries = await any_store.session("s").entries()
    assert entries == values
    assert entries.positions == positions
