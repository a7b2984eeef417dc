"""With its rows sealed, a backend keeps the whole contract."""

from pathlib import Path

import pytest

from perdure.backend import Backend
from perdure.encryption import KeyRing
from perdure.encryption.backend import EncryptedBackend
from perdure.testing import BackendContract, Harness, TestClock

from tests.backends.memory.durable import DurableHarness
from tests.backends.sqlite.harness import SqliteHarness
from tests.core.encryption.rows import RowsOf

RING = KeyRing({"kit": bytes(range(32))}, primary="kit")


class SealedHarness(Harness):
    """Another harness's database, with a sealing backend in front."""

    def __init__(self, harness: Harness, *, linked: bool) -> None:
        self._harness = harness
        self._linked = linked
        self.clock = harness.clock

    async def open(self) -> Backend:
        backend = EncryptedBackend(await self._harness.open(), RING)
        return RowsOf(backend, linked=self._linked)


class TestSealed(BackendContract):
    @pytest.fixture(params=["memory", "sqlite"])
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
        # The machine removes single rows from the middle of a log, which no store does.
        linked = "any_sequence" not in request.node.name
        if request.param == "sqlite" and not linked:
            pytest.skip("the machine runs in memory, which is quicker")
        if request.param == "memory":
            return SealedHarness(DurableHarness(), linked=linked)
        harness = SqliteHarness(tmp_path / "sessions.db", TestClock())
        return SealedHarness(harness, linked=linked)
