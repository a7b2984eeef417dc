"""The reference backend keeps the contract."""

import pytest

from perdure.backend import Backend
from perdure.testing import BackendContract, Harness, TestClock

from perdure_memory.backend import MemoryBackend
from tests.backends.memory.durable import DurableHarness


class MemoryHarness(Harness):
    shared = False
    persistent = False

    def __init__(self) -> None:
        self.clock = TestClock()
        self.backend = MemoryBackend(clock=self.clock)

    async def open(self) -> Backend:
        return self.backend


class RealTimeHarness(Harness):
    shared = False
    persistent = False

    def __init__(self) -> None:
        self.backend = MemoryBackend()

    async def open(self) -> Backend:
        return self.backend


class TestMemoryBackend(BackendContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


class TestMemoryBackendInRealTime(BackendContract):
    @pytest.fixture
    def harness(self) -> RealTimeHarness:
        return RealTimeHarness()


class TestMemoryBackendThatIsShared(BackendContract):
    """With the data kept outside: restarts, other clients and the raw oracle."""

    @pytest.fixture
    def harness(self) -> DurableHarness:
        return DurableHarness()
