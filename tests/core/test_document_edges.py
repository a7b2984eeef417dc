"""Documents: pieces left over, replaced while they are read, and what a save leaves alone."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from perdure import Conflict, Document, Store
from perdure.backend import Backend
from perdure.layout import DOCUMENT, DOCUMENT_STOP
from perdure.testing.faults import DropRequests, Faulty, Forwarding, LoseReplies
from perdure.types import Commit, Committed, Scan, SessionKey

from tests.core.wrappers import Narrow, Recorder


def noise(size: int) -> str:
    """Text that compression does not make much shorter than ``size`` / 2."""
    return random.randbytes(size // 2).hex()


async def parts(backend: Backend, id: str = "s") -> int:
    snapshot = await backend.read(Store(backend).key(id), Scan(DOCUMENT, DOCUMENT_STOP))
    return len(snapshot.rows[0].items)


async def test_a_save_does_not_make_handles_read_the_log_again(backend: Backend) -> None:
    recorder = Recorder(backend)
    store = Store(recorder)
    session = store.session("s")
    for n in range(50):
        await session.append(n)
    reader = store.session("s")
    await reader.entries()
    recorder.reset()
    await store.save("s", 1)
    await store.save("s", [2])
    await session.append("x")
    assert await session.entries() == await reader.entries() == [*range(50), "x"]
    assert recorder.items_read <= 2


async def test_a_save_is_one_round_trip_and_of_one_unknown_that_is_longer_two(
    backend: Backend,
) -> None:
    recorder = Recorder(backend)
    store = Store(recorder)
    for document in (noise(50_000), "as short", noise(1_500_000), "short", "short again"):
        recorder.reset()
        await store.save("s", document)
        assert (recorder.reads, len(recorder.commits)) == (0, 1)
        assert await Store(backend).load("s") == document
    await store.save("s", noise(1_500_000))
    store = Store(recorder)
    recorder.reset()
    await store.save("s", "short")
    assert (recorder.reads, len(recorder.commits)) == (0, 2)
    assert await parts(backend) == 1


class Silent(Forwarding):
    """A backend whose commits return no rows."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.capabilities = msgspec.structs.replace(backend.capabilities, returning=False)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, msgspec.structs.replace(commit, returning=()))
        return msgspec.structs.replace(made, rows=())


async def test_without_returning_a_first_save_looks_for_what_is_left_over(
    backend: Backend,
) -> None:
    recorder = Recorder(Silent(backend))
    await Store(recorder).save("s", noise(1_500_000))
    assert await parts(backend) > 2
    store = Store(recorder)
    recorder.reset()
    await store.save("s", "short")
    assert (recorder.reads, len(recorder.commits)) == (1, 2)
    assert await parts(backend) == 1
    recorder.reset()
    await store.save("s", "short again")
    assert (recorder.reads, len(recorder.commits)) == (0, 1)


async def test_pieces_of_a_longer_document_are_removed(backend: Backend) -> None:
    store = Store(backend)
    await store.save("s", noise(3_000_000))
    assert await parts(backend) > 4
    version = await store.save("s", "short")
    assert await parts(backend) <= 2
    assert await store.save("s", "next", expect=version) > version
    assert await store.load("s") == "next"


@pytest.mark.parametrize("fault", ["dropped", "dropped, who knows", "reply lost"])
async def test_a_save_does_not_depend_on_removing_what_is_left_over(
    backend: Backend, fault: str
) -> None:
    await Store(backend).save("s", noise(3_000_000))
    rest = range(1, 1 << 60)
    faulty: Faulty
    if fault == "reply lost":
        faulty = LoseReplies(backend, on=rest)
    else:
        faulty = DropRequests(backend, on=rest, known=fault == "dropped")
    short = noise(100_000)
    await Store(faulty, deadline=0.1).save("s", short)
    assert faulty.faults > 0
    for reader in (Store(backend), Store(Narrow(backend, read_bytes=2000))):
        assert await reader.load("s") == short
    await Store(backend).session("s").fork("copy")
    assert await Store(backend).load("copy") == short
    await Store(backend).save("s", "end")
    assert await Store(backend).load("s") == "end"
    assert await parts(backend) <= 2


async def test_another_writers_pieces_are_not_taken_for_left_over(backend: Backend) -> None:
    """Between a shorter save and the removal of the rest another long one is made."""
    long = noise(2_000_000)

    class LongSaveBetween(Forwarding):
        commits = 0

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            self.commits += 1
            if self.commits == 2:
                await Store(self.backend).save(key.id, long)
            return await super().commit(key, commit)

    await Store(backend).save("s", noise(3_000_000))
    await Store(LongSaveBetween(backend)).save("s", "short")
    assert await Store(backend).load("s") == long


async def test_saves_of_all_lengths_that_race_leave_one_of_them_whole(
    backend: Backend,
) -> None:
    documents = [
        [n, noise(size)] for n, size in enumerate([100, 2_000_000, 600_000, 10, 900_000])
    ]
    store = Store(backend)
    seen: list[Any] = []

    async def read() -> None:
        narrow = Store(Narrow(backend, read_bytes=300_000))
        seen.extend([await narrow.load("s") for _ in range(20)])

    await asyncio.gather(read(), *(store.save("s", document) for document in documents * 2))
    assert all(document is None or document in documents for document in seen)
    assert await store.load("s") in documents


async def test_a_document_with_its_version_and_the_log_are_of_one_moment(
    backend: Backend,
) -> None:
    store = Store(backend)
    await store.save("s", [0, noise(900_000)])
    narrow = Narrow(backend, read_bytes=100_000)

    async def save_again() -> None:
        await store.save("s", [1, "short"])

    async def save_longer() -> None:
        await store.save("s", [2, noise(1_500_000)])

    narrow.between = [save_longer, save_again]
    (found,) = await Store(narrow).session("s").read(Document())
    assert narrow.between == []
    assert found is not None
    assert found.value == await store.load("s")
    assert await store.save("s", "end", expect=found.version) > found.version


async def test_a_retried_save_that_expects_a_version_is_not_its_own_conflict(
    backend: Backend,
) -> None:
    store = Store(LoseReplies(backend, on=range(0, 1000, 2)))
    version = 0
    for n in range(6):
        version = await store.save("s", n, expect=version)
    with pytest.raises(Conflict):
        await store.save("s", "late", expect=version - 1)
    assert await store.load("s") == 5
