"""How much is measured."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter

import msgspec

from benchmarks.lengths import Plan


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How often each thing is measured, and on how long sessions."""

    lengths: tuple[int, ...] = (10, 1000, 5000)
    """In turns, ascending."""
    sessions: tuple[int, int]
    """Few and many, for lists."""
    visits: int
    loads: int
    appends: int
    blocks: int
    block: int
    """Appends whose CPU time is taken together: one is too short for the clock."""
    rounds: int
    turns: int
    slow_turns: int
    runs: int
    attachment: int
    """Bytes of an attachment."""

    @property
    def plan(self) -> Plan:
        """The part on lengths."""
        return Plan(self.lengths, visits=self.visits, loads=self.loads)


FULL = Effort(
    sessions=(1000, 100_000),
    visits=100,
    loads=15,
    appends=500,
    blocks=25,
    block=200,
    rounds=7,
    turns=50,
    slow_turns=10,
    runs=25,
    attachment=64 << 20,
)
QUICK = Effort(
    sessions=(20, 400),
    visits=3,
    loads=1,
    appends=20,
    blocks=2,
    block=32,
    rounds=1,
    turns=3,
    slow_turns=2,
    runs=2,
    attachment=2 << 20,
)


@contextmanager
def step(what: str) -> Generator[None]:
    """Say on standard error what is being done, and how long it took."""
    print(f"bench: {what} ...", end="", file=sys.stderr, flush=True)
    started = perf_counter()
    yield
    print(f" {perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
