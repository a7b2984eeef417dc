"""Timing that stands comparison on a noisy machine: interleaved, and judged by medians."""

import gc
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Generic, TypeVar

K = TypeVar("K")


class Samples(Generic[K]):
    """Measured values by what they are of."""

    def __init__(self) -> None:
        self._values: defaultdict[K, list[float]] = defaultdict(list)

    def add(self, key: K, value: float) -> None:
        """One more value."""
        self._values[key].append(value)

    async def time(self, key: K, operation: Callable[[], Awaitable[object]]) -> None:
        """One more value: the seconds that awaiting ``operation()`` takes.

        What it returns is freed when the clock has stopped.
        """
        started = perf_counter()
        result = await operation()
        self.add(key, perf_counter() - started)
        del result

    def median(self, key: K) -> float:
        """The value in the middle."""
        return median(self._values[key])

    def quantile(self, key: K, part: float) -> float:
        """The value that ``part`` of all are below, as the nearest that was measured."""
        values = sorted(self._values[key])
        return values[min(len(values) - 1, int(part * len(values)))]


def rotated(things: Sequence[K], by: int) -> list[K]:
    """``things`` from another one on, so that none is always the first."""
    start = by % len(things)
    return [*things[start:], *things[:start]]


def settle() -> None:
    """Keep what is alive now out of garbage collections: it is not what is measured."""
    gc.collect()
    gc.freeze()
