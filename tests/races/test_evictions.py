"""Durable Objects come and go: what is written stays, and who waits is told."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from perdure import Store

from tests.races.test_kills import disturb_again_and_again
from tests.services.worker import Worker

IDLE = 13.0
"""Seconds after which an object is surely out of memory: ten after its last alarm."""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """With the two paths more of ``evicting.js``."""
    with Worker.serve(tmp_path, Path(__file__).with_name("evicting.js")) as server:
        yield server


def ask(worker: Worker, path: str) -> int:
    """How many sessions have been taken into memory so far."""
    with urlopen(f"http://127.0.0.1:{worker.port}/{path}", timeout=10) as response:
        return int(response.read())


async def test_objects_evicted_under_load_lose_nothing_acknowledged(worker: Worker) -> None:
    async def evict() -> None:
        for _ in range(10):
            await asyncio.to_thread(ask, worker, "evict")
            await asyncio.sleep(random.uniform(0, 0.05))

    await disturb_again_and_again(evict, worker.url, 5)
    assert ask(worker, "born") > 50


async def test_a_restart_in_good_order_loses_nothing_acknowledged(worker: Worker) -> None:
    await disturb_again_and_again(lambda: asyncio.to_thread(worker.restart), worker.url, 5)


async def test_an_idle_object_sleeps_and_goes_on_as_if_it_had_not(worker: Worker) -> None:
    """Also for a session whose changes somebody waits for."""
    async with Store(worker.url) as store, Store(worker.url) as other:
        session = store.session("plum")
        await session.append("first")
        backend, key = other.backend, session.key
        head = (await backend.read(key)).head
        waiting = asyncio.create_task(backend.wait(key, after=head, timeout=60))
        await asyncio.sleep(IDLE)
        assert not waiting.done()
        born = ask(worker, "born")
        await session.append("second")
        assert ask(worker, "born") == born + 1, "it was in memory all the time"
        changed = await waiting
        assert changed is not None
        assert changed.version == 2
        assert list(await other.session("plum").entries()) == ["first", "second"]
        assert [entry.key async for entry in other.list()] == [key]
