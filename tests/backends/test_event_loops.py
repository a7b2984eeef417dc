"""A store on a server, made at import, serves the event loops of a whole program."""

import asyncio
import secrets
import threading

import pytest

from perdure import Store


@pytest.fixture(params=["valkey_url", "postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


async def append(store: Store, id: str, *entries: object) -> None:
    for entry in entries:
        await store.session(id).append(entry)


async def entries(store: Store, id: str) -> list[object]:
    return list(await store.session(id).entries())


def test_one_loop_after_the_other(url: str) -> None:
    store, id = Store(url), secrets.token_hex(8)
    for n in range(4):
        asyncio.run(append(store, id, n))
    assert asyncio.run(entries(store, id)) == [0, 1, 2, 3]
    asyncio.run(store.aclose())


def test_loops_of_several_threads_at_once(url: str) -> None:
    store, id = Store(url), secrets.token_hex(8)
    threads = [
        threading.Thread(target=asyncio.run, args=(append(store, id, *range(25)),))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(asyncio.run(entries(store, id)), key=str) == sorted([*range(25)] * 4, key=str)
    asyncio.run(store.aclose())
