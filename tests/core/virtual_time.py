"""An event loop in which no time passes but when everyone waits for it.

What tasks do in it depends on nothing but the program and its random numbers: a run that goes
wrong goes wrong again. Only for what needs no other thread and no other process.
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class JumpingSelector(selectors.BaseSelector):
    """Never waits: the time to wait has passed at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self._selector = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for another one")
        self.now += max(0.0, timeout)
        return self._selector.select(0)

    def register(self, fileobj: Any, events: int, data: object = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For ``asyncio.Runner(loop_factory=VirtualTimeLoop)``."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
