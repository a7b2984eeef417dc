"""Documents on every backend: large and small ones, races, and what a save costs."""

import asyncio
import random
from typing import Any

import pytest

from perdure import Conflict, Store
from perdure.testing import Harness

from tests.core.documents import Meter, chat, message

TENANT = "documents"


def changed(document: dict[str, Any], n: int) -> dict[str, Any]:
    """A version of a document: some messages more, one less, one elsewhere."""
    rng = random.Random(n)
    messages = list(document["messages"])
    messages.insert(rng.randrange(len(messages)), message(rng))
    del messages[rng.randrange(len(messages))]
    return {**document, "n": n, "messages": [*messages, message(rng)]}


async def test_a_document_of_megabytes_is_saved_again_by_what_is_new(harness: Harness) -> None:
    backend = await harness.open()
    meter = Meter(backend)
    store = Store(meter, tenant=TENANT, deadline=30)
    document = chat(2_500_000)
    await store.save("s", document)
    for n in range(3):
        document = changed(document, n)
        meter.reset()
        await store.save("s", document)
        assert meter.trips == 1
        assert meter.bytes < 80_000
    other = Store(meter, tenant=TENANT)
    document = changed(document, 4)
    meter.reset()
    await other.save("s", document)
    assert meter.commits + meter.stagings == 1
    assert meter.reads == 1
    assert meter.bytes < 80_000
    assert await Store(backend, tenant=TENANT).load("s") == document
    document["messages"] = document["messages"][-20:]
    document["files"] = {}
    await other.save("s", document)
    assert await Store(backend, tenant=TENANT).load("s") == document
    await other.save("s", "short")
    assert await Store(backend, tenant=TENANT).load("s") == "short"
    await backend.aclose()


async def test_savers_that_race_leave_one_of_them_whole(harness: Harness) -> None:
    backends = [await harness.open() for _ in range(2)]
    first = chat(150_000)
    made = [changed(first, n) for n in range(12)]
    stores = [Store(backend, tenant=TENANT, deadline=30) for backend in backends * 2]
    await stores[0].save("s", first)
    await stores[1].load("s")

    async def save(store: Store, mine: list[Any]) -> None:
        for document in mine:
            await store.save("s", document)
            assert await store.load("s") in made

    await asyncio.gather(*(save(store, made[n::4]) for n, store in enumerate(stores)))
    assert await Store(backends[0], tenant=TENANT).load("s") in made
    for backend in backends:
        await backend.aclose()


async def test_a_session_keeps_its_document_beside_its_log(any_store: Store) -> None:
    session = any_store.session("s")
    document = chat(100_000)
    version = await session.save(document, expect=0)
    await session.append("a turn")
    with pytest.raises(Conflict):
        await any_store.session("s").save("other", expect=0)
    assert await session.save({**document, "n": 1}, expect=version) > version
    fresh = any_store.session("s")
    assert await fresh.load() == {**document, "n": 1}
    assert await fresh.load(type=dict[str, Any]) == {**document, "n": 1}
    assert await fresh.entries() == ["a turn"]
    await fresh.save("short")
    assert (await session.load(), await session.entries()) == ("short", ["a turn"])
