"""The reference backend keeps the contract as it is used: one instance, nothing kept."""

import pytest

from perdure.backend import Backend
from perdure.testing import BackendContract, Harness, TestClock

from perdure_memory.backend import MemoryBackend


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
