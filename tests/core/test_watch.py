"""Watching: entries as they come."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from perdure import START, Entry, SessionDeleted, Store


async def take(stream: AsyncGenerator[Entry, None], n: int) -> list[object]:
    values = [(await anext(stream)).value for _ in range(n)]
    await stream.aclose()
    return values


async def test_a_watch_from_the_start_yields_everything_once_in_order(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b")
    watching = asyncio.create_task(take(session.watch(after=START), 25))
    for n in range(23):
        await store.session("s").append(n)
        await asyncio.sleep(0)
    assert await asyncio.wait_for(watching, 20) == ["a", "b", *range(23)]


async def test_a_watch_begins_behind_what_is_there(store: Store) -> None:
    session = store.session("s")
    await session.append("old")
    stream = session.watch()
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.1)
    await session.append("new")
    assert (await asyncio.wait_for(first, 20)).value == "new"
    await stream.aclose()


async def test_a_watch_goes_on_from_a_position(store: Store) -> None:
    session = store.session("s")
    await session.append("a", "b", "c")
    entries = await session.entries()
    assert await take(session.watch(after=entries.positions[0]), 2) == ["b", "c"]


async def test_a_watch_waits_for_the_session_to_exist(store: Store) -> None:
    watching = asyncio.create_task(take(store.session("s").watch(), 1))
    await asyncio.sleep(0.1)
    await store.session("s").append("first")
    assert await asyncio.wait_for(watching, 20) == ["first"]


async def test_a_watch_ends_with_an_error_when_its_session_goes(store: Store) -> None:
    session = store.session("s")
    await session.append("a")
    stream = session.watch(after=START)
    assert (await anext(stream)).value == "a"
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    await store.delete("s")
    await store.session("s").append("another life")
    with pytest.raises(SessionDeleted):
        await asyncio.wait_for(following, 20)
