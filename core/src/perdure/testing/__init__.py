"""The test kit: it tells a backend's author when the backend is done.

Say how to open your backend, subclass one class, and run pytest::

    from pathlib import Path

    import pytest
    from perdure.backend import Backend
    from perdure.testing import BackendContract, Harness, TestClock

    class MyHarness(Harness):
        def __init__(self, path: Path) -> None:
            self.clock = self.time = TestClock()
            self.path = path

        async def open(self) -> Backend:
            return MyBackend(self.path, clock=self.time)

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def harness(self, tmp_path: Path) -> MyHarness:
            return MyHarness(tmp_path / "sessions.db")

That runs every sentence of ``perdure.backend`` as far as your ``capabilities`` claim it, a
Hypothesis state machine against a model made of dicts, lost replies, and races between tasks
and (where ``Harness.process`` says how to open the backend there) between processes. Test
names state the promise that a failure breaks. Each test uses a tenant of its own, so that one
database serves a whole run, and runs side by side.

A harness without a clock is fine: time then really passes, and what would take a day is
skipped. ``PERDURE_KIT_EXAMPLES=5000`` makes the state machine search for longer, at random.

The parts serve on their own too: ``perdure.testing.history`` checks an account of races,
``perdure.testing.faults`` loses replies and requests. Users of perdure get the pytest fixtures
``perdure_store`` and ``perdure_clock`` (``perdure.testing.fixture``).

Needs pytest, pytest-asyncio and hypothesis. Importing this module alone needs none of them.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from perdure.testing.clock import TestClock as TestClock

if TYPE_CHECKING:
    from perdure.testing.contract import BackendContract
    from perdure.testing.harness import Harness, Process

__all__ = ["BackendContract", "Harness", "Process", "TestClock"]

LAZY = {
    "BackendContract": "perdure.testing.contract",
    "Harness": "perdure.testing.harness",
    "Process": "perdure.testing.harness",
}
"""Imported when asked for, so that the fixtures for users cost no one a hypothesis."""

if "pytest" in sys.modules:  # let failing asserts of the suite explain themselves
    sys.modules["pytest"].register_assert_rewrite(
        "perdure.testing.rooms", "perdure.testing.machine", "perdure.testing.shorthand"
    )


def __getattr__(name: str) -> object:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)
