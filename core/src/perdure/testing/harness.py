"""What the kit must know of a backend to test it: how to open it, and how time passes."""

import asyncio
import sys
from abc import ABC, abstractmethod

import msgspec

from perdure.backend import Backend
from perdure.testing.clock import TestClock
from perdure.types import SessionKey


class Process(msgspec.Struct, frozen=True):
    """How a child process opens its own backend on the same data: ``factory(argument)``."""

    factory: str
    """``"module:function"``, or a class; importable there, returns a ``Backend``."""
    argument: str
    """A path, a URL, ..."""


class Harness(ABC):
    """One database for the length of a test, and the ways to get at it."""

    clock: TestClock | None = None
    """The clock that every backend opened here runs by. ``None``: the engine has its own."""

    shared: bool = True
    """Two backends that are open at once see the same data. False where ``open`` can only
    return the same instance again."""

    persistent: bool = True
    """The data outlives the backends: one opened after all were closed sees it."""

    process: Process | None = None
    """Set it, and races are also run between processes, and one of them is killed."""

    @abstractmethod
    async def open(self) -> Backend:
        """A backend on this harness's data: another client, or the same after a restart.

        The kit closes what it opens.
        """

    async def advance(self, ms: int) -> None:
        """Let at least ``ms`` milliseconds pass on the backend's clock."""
        if self.clock is not None:
            self.clock.advance(ms)
        else:
            await asyncio.sleep(ms / 1000)

    @property
    def patience(self) -> int:
        """The longest time, in ms, that :meth:`advance` can bear; tests that need a longer
        one are skipped. Override both if your engine's clock can be moved otherwise."""
        return sys.maxsize if self.clock is not None else 5_000

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes] | None:
        """What the database itself holds for a session, read past the backend: its items, and
        its staged parts under any distinct keys. ``None`` where there is no way to look."""
        return None
