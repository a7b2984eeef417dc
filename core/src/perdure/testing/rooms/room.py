"""What all rooms of the suite share: an open backend, and a session key of the test's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest
import pytest_asyncio

from perdure.backend import Backend
from perdure.testing.harness import Harness
from perdure.types import SessionKey

Connect = Callable[[], Awaitable[Backend]]
"""Opens a further backend on the harness's data, to be closed with the test."""


class Room:
    """Base of the suite's rooms. Give a subclass a ``harness`` fixture."""

    pytestmark = pytest.mark.asyncio

    @pytest_asyncio.fixture
    async def connect(self, harness: Harness) -> AsyncIterator[Connect]:
        opened: list[Backend] = []

        async def connect() -> Backend:
            backend = await harness.open()
            if all(backend is not other for other in opened):
                opened.append(backend)
            return backend

        yield connect
        for backend in opened:
            await backend.aclose()

    @pytest_asyncio.fixture
    async def backend(self, connect: Connect) -> Backend:
        return await connect()

    @pytest.fixture
    def key(self) -> SessionKey:
        return SessionKey.of(f"kit-{uuid4()}", "session", "s")


async def let_pass(harness: Harness, ms: int) -> None:
    """Advance the clock, or skip the test where that would take too long."""
    if ms > harness.patience:
        pytest.skip(f"needs a clock that can be moved by {ms} ms")
    await harness.advance(ms)


def sibling(key: SessionKey, id: str) -> SessionKey:
    """Another session of the same tenant and kind."""
    return SessionKey(key.tenant, key.kind, id)
