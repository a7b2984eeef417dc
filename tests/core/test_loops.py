"""A store whose backend belongs to one event loop serves any of them."""

import asyncio
import gc
import threading
import time

import msgspec
import pytest

from perdure import Store, StoreClosed, Unsupported
from perdure.backend import Backend
from perdure.testing.faults import Forwarding
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend


class Bound(Forwarding):
    """Fails if it is used from two event loops."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.capabilities = msgspec.structs.replace(backend.capabilities, loop_bound=True)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    def check(self) -> None:
        running = asyncio.get_running_loop()
        self.loop = self.loop or running
        assert self.loop is running

    async def open(self) -> None:
        self.check()

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self.check()
        await asyncio.sleep(0)
        return await super().read(key, *reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.check()
        await asyncio.sleep(0)
        return await super().commit(key, commit)

    async def aclose(self) -> None:
        self.check()
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Bound]:
    """The backends that a store with a URL has made, all on the same data."""
    data = MemoryBackend()
    found: list[Bound] = []

    def open_backend(url: str) -> Backend:
        found.append(Bound(data))
        return found[-1]

    monkeypatch.setattr("perdure.plugins.open_backend", open_backend)
    return found


def test_one_event_loop_uses_one_backend(made: list[Bound]) -> None:
    async def main() -> None:
        async with Store("any://") as store:
            await asyncio.gather(*(store.session("s").append(n) for n in range(5)))

    asyncio.run(main())
    assert [backend.closed for backend in made] == [True]


def test_loops_that_follow_one_another_share_a_second_backend(made: list[Bound]) -> None:
    store = Store("any://")
    for n in range(5):
        asyncio.run(append_one(store, n))
    assert [backend.closed for backend in made] == [True, False]
    assert asyncio.run(entries(store)) == [0, 1, 2, 3, 4]
    asyncio.run(store.aclose())
    assert [backend.closed for backend in made] == [True, True]
    with pytest.raises(StoreClosed):
        asyncio.run(entries(store))


async def append_one(store: Store, n: int) -> None:
    await store.session("s").append(n)


async def entries(store: Store) -> list[object]:
    return list(await store.session("s").entries())


def test_loops_of_several_threads_at_once_lose_nothing(made: list[Bound]) -> None:
    store = Store("any://")

    async def append(name: int) -> None:
        for n in range(20):
            await store.session("s").append([name, n])

    threads = [threading.Thread(target=asyncio.run, args=(append(name),)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = asyncio.run(entries(store))
    assert sorted(found, key=str) == sorted(
        ([a, n] for a in range(4) for n in range(20)), key=str
    )
    assert len(made) == 2
    asyncio.run(store.aclose())


def test_closing_from_another_loop_closes_both(made: list[Bound]) -> None:
    store = Store("any://")
    used, done = threading.Event(), threading.Event()

    async def use() -> None:
        await store.session("s").append(1)
        used.set()
        await asyncio.to_thread(done.wait)

    async def close() -> None:
        await store.session("s").append(2)
        await store.aclose()

    thread = threading.Thread(target=asyncio.run, args=(use(),))
    thread.start()
    assert used.wait(10)
    asyncio.run(close())
    done.set()
    thread.join()
    assert [backend.closed for backend in made] == [True, True]


def test_cancelling_a_call_from_another_loop_cancels_it_there(made: list[Bound]) -> None:
    store = Store("any://")
    asyncio.run(entries(store))

    async def give_up() -> None:
        session = store.session("s")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                async for _ in session.watch():
                    raise AssertionError("nobody writes")
        await session.append("after")

    asyncio.run(give_up())
    assert asyncio.run(entries(store)) == ["after"]
    asyncio.run(store.aclose())


def test_a_backend_given_as_such_outlives_the_stores_that_share_it() -> None:
    async def main() -> None:
        backend = Bound(MemoryBackend())
        for n in range(3):
            await Store(backend).session("s").append(n)
            gc.collect()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not backend.closed
        assert await entries(Store(backend)) == [0, 1, 2]

    asyncio.run(main())


def test_a_backend_given_as_such_keeps_to_its_loop() -> None:
    store = Store(Bound(MemoryBackend()))
    assert asyncio.run(entries(store)) == []
    with pytest.raises(Unsupported, match="event loop"):
        asyncio.run(entries(store))


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "perdure"]


def test_a_store_that_nobody_closes_closes_what_it_has_made(made: list[Bound]) -> None:
    store = Store("any://")
    for n in range(3):
        asyncio.run(append_one(store, n))
    (thread,) = background_threads()
    del store
    gc.collect()
    thread.join(10)
    assert [backend.closed for backend in made] == [True, True]


def test_what_another_loop_waits_for_when_the_store_closes_ends(made: list[Bound]) -> None:
    store = Store("any://")
    asyncio.run(append_one(store, 0))
    ended = list[BaseException]()

    async def watch() -> None:
        try:
            async for _ in store.session("s").watch():
                pass
        except StoreClosed as error:
            ended.append(error)

    threads = [threading.Thread(target=asyncio.run, args=(watch(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    asyncio.run(store.aclose())
    for thread in threads:
        thread.join(10)
    assert len(ended) == 3
    assert background_threads() == []


def test_a_loop_that_stops_while_it_waits_disturbs_nobody(made: list[Bound]) -> None:
    store = Store("any://")
    asyncio.run(append_one(store, 0))

    async def leave() -> None:
        task = asyncio.ensure_future(append_one(store, 1))
        await asyncio.sleep(0)
        assert not task.done()

    for _ in range(20):
        asyncio.run(leave())
    found = asyncio.run(entries(store))
    assert found[0] == 0
    assert set(found[1:]) <= {1}
    asyncio.run(append_one(store, 2))
    assert asyncio.run(entries(store))[-1] == 2
    asyncio.run(store.aclose())


def test_without_an_event_loop_the_error_says_what_to_use() -> None:
    session = Store("memory://").session("s")
    for use in (session.append(1), session.entries(), session.pop(), session.delete()):
        with pytest.raises(Unsupported, match=r"perdure\.sync"):
            use.send(None)
