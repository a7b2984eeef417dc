"""Handing results from a thread of ours to the coroutines that await them."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

Future = asyncio.Future[Any]


class Outcome:
    """What became of one call: a value, or an error if there is one."""

    __slots__ = ("error", "future", "value")

    def __init__(self, future: Future) -> None:
        self.future = future
        self.value: object = None
        self.error: BaseException | None = None


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Resolve the futures, each on its own loop, by one wake-up per loop."""
    outcomes = tuple(outcomes)
    if len(outcomes) == 1:  # most of the time
        _wake(outcomes[0].future.get_loop(), outcomes)
        return
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_loop[outcome.future.get_loop()].append(outcome)
    for loop, ready in by_loop.items():
        _wake(loop, ready)


def _wake(loop: asyncio.AbstractEventLoop, outcomes: Sequence[Outcome]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve, outcomes)
    except RuntimeError:
        return  # the loop has been closed: nobody awaits this any more


def _resolve(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.future.done():  # cancelled
            continue
        if outcome.error is None:
            outcome.future.set_result(outcome.value)
        else:
            outcome.future.set_exception(outcome.error)
