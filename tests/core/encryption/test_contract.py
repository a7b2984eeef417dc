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

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self.clock = harness.clock

    async def open(self) -> Backend:
        return RowsOf(EncryptedBackend(await self._harness.open(), RING))


class TestSealed(BackendContract):
    @pytest.fixture(params=["memory", "sqlite"])
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
        if request.param == "memory":
            return SealedHarness(DurableHarness())
        return SealedHarness(SqliteHarness(tmp_path / "sessions.db", TestClock()))
