"""The clock, and what a harness does unless it is told otherwise."""

import time

import pytest

from perdure.backend import Backend
from perdure.testing import Harness, Process, TestClock
from perdure.testing.writer import open_backend
from perdure.types import SessionKey

from perdure_memory.backend import MemoryBackend


class Plain(Harness):
    async def open(self) -> Backend:
        return MemoryBackend()


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = TestClock(1000)
    assert (clock(), clock()) == (1000, 1000)
    clock.advance(5)
    assert clock() == 1005
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
    assert clock() == 1005


async def test_time_passes_by_itself_without_a_clock() -> None:
    harness = Plain()
    began = time.monotonic()
    await harness.advance(30)
    assert time.monotonic() - began >= 0.03
    assert harness.patience == 5_000
    assert await harness.raw_items(SessionKey.of("t", "k", "s")) is None


async def test_time_passes_at_once_with_a_clock() -> None:
    harness = Plain()
    harness.clock = TestClock(0)
    await harness.advance(86_400_000)
    assert harness.clock() == 86_400_000
    assert harness.patience > 365 * 86_400_000


def open_plainly(argument: str) -> Backend:
    assert argument == "an argument"
    return MemoryBackend()


def test_a_process_opens_what_its_factory_returns() -> None:
    backend = open_backend(Process(f"{__name__}:open_plainly", "an argument"))
    assert isinstance(backend, MemoryBackend)
    with pytest.raises(TypeError, match="returned str"):
        open_backend(Process("builtins:str", "x"))
