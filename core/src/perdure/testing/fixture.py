"""pytest fixtures for those who use perdure: a store in memory, and the clock it runs by.

Installing perdure brings them along (it is a pytest plugin)::

    async def test_an_agent_remembers(perdure_store, perdure_clock):
        await run_my_agent(perdure_store, "chat-7")
        perdure_clock.advance(3_600_000)
        assert len(await perdure_store.session("chat-7").entries()) == 2

They work with any plugin for asynchronous tests, since nothing here is asynchronous.
"""

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from perdure.testing.clock import TestClock

if TYPE_CHECKING:
    from perdure.store import Store


@pytest.fixture
def perdure_clock() -> TestClock:
    """The clock of ``perdure_store``: it stands still until ``advance(ms)``."""
    return TestClock()


@pytest.fixture
def perdure_store(perdure_clock: TestClock) -> "Store":
    """A store of this test's own, in memory; nothing to set up, nothing to clean."""
    from perdure.store import Store

    try:
        memory = import_module("perdure_memory.backend")
    except ModuleNotFoundError:
        pytest.fail(
            "perdure_store keeps its data in perdure-memory: pip install perdure-memory"
        )
    return Store(memory.MemoryBackend(clock=perdure_clock))
