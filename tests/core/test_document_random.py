"""Any sequence of saves, by any stores, with all else that happens to a session in between."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from perdure import Conflict, Document, Store
from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from tests.core.documents import chat, message, text
from tests.core.wrappers import Narrow

STEPS = 40


class Dated(Forwarding):
    """Has an epoch, as a backend has whose failovers may lose commits."""

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        return msgspec.structs.replace(await super().read(key, *reads), epoch=b"one")

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return msgspec.structs.replace(await super().commit(key, commit), epoch=b"one")


def plain(backend: Backend) -> Backend:
    return backend


def changed(document: Any, rng: random.Random) -> Any:
    """Another version of a document, or another document."""
    if document in (None, "short") or rng.random() < 0.2:
        size = rng.choice([1_000, 40_000, 150_000, 700_000])
        return chat(size, rng.randrange(3)) if rng.random() < 0.8 else "short"
    messages: list[Any] = list(document["messages"])
    files: dict[str, str] = dict(document["files"])
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(messages) + 1)
        match rng.randrange(6):
            case 0 | 1:
                messages.append(message(rng))
            case 2:
                messages.insert(at, message(rng))
            case 3:
                del messages[at : at + rng.randrange(200)]
            case 4:
                files[f"new{at % 5}"] = text(rng, rng.choice([10, 5_000, 100_000]))
            case _:
                files.pop(next(iter(files), ""), None)
    return {"messages": messages, "files": files}


@pytest.mark.parametrize("wrap", [plain, Dated])
@pytest.mark.parametrize("seed", range(3))
async def test_what_is_loaded_is_what_was_saved_last(
    wrap: Callable[[Backend], Backend], seed: int
) -> None:
    rng = random.Random(seed)
    backend = wrap(MemoryBackend())
    narrow = Narrow(backend, read_bytes=100_000, commit_bytes=70_000)
    stores = [Store(backend), Store(backend), Store(narrow)]
    document: Any = None
    version = 0
    for step in range(STEPS):
        store = rng.choice(stores)
        match rng.randrange(12):
            case 0:
                await store.delete("s")
                document, version = None, 0
            case 1 | 2:
                await store.session("s").append("x" * rng.randrange(1000))
            case 3:
                stores[rng.randrange(2)] = Store(backend)
            case 4 if document is not None:
                fork = await store.session("s").fork(f"fork {step}")
                assert await fork.load() == document
            case 5:
                with pytest.raises(Conflict):
                    await store.save("s", document, expect=version + 1)
                document = changed(document, rng)
                version = await store.save("s", document, expect=version)
            case 6:
                both = [changed(document, rng), changed(document, rng)]
                await asyncio.gather(stores[0].save("s", both[0]), stores[1].save("s", both[1]))
                (found,) = await store.session("s").read(Document())
                assert found is not None
                document, version = found.value, found.version
                assert document in both
            case _:
                document = changed(document, rng)
                version = await store.save("s", document)
        assert await rng.choice(stores).load("s") == document
