"""Faults of every kind, one after the other, while many write: every entry is there once."""

import asyncio
import random
from itertools import count

import pytest

from perdure import Store
from perdure.testing.shorthand import read_head

from tests.faults.commit_ids import commit_ids
from tests.faults.databases import Database
from tests.faults.proxy import Fault, Part, Proxy, Then

WRITERS = 4
FAULTS = 20
TIMEOUT = 0.25
"""Seconds that a backend waits for an answer."""


def any_fault(rng: random.Random) -> Fault:
    return Fault(
        part=rng.choice(list(Part)),
        passing=rng.choice((0, 1, rng.randrange(100), rng.randrange(2000))),
        then=rng.choice(
            (Then.CLOSE, Then.RESET, Then.CLOSE, Then.RESET, Then.PAUSE, Then.STALL)
        ),
        nth=rng.randrange(1, 20),
        pause=0.01,
    )


async def break_again_and_again(proxy: Proxy, rng: random.Random) -> None:
    while True:
        proxy.arm(any_fault(rng))
        await asyncio.sleep(rng.uniform(0, 0.02))


@pytest.mark.parametrize("seed", range(2))
async def test_every_entry_is_there_once(networked: Database, seed: int) -> None:
    """In a session that all write to, and in one of each writer's own."""
    rng = random.Random(seed)
    async with (
        await Proxy.start(networked.url) as proxy,
        Store(f"{proxy.url}&{networked.patience}={TIMEOUT}") as store,
    ):
        shared = store.session("shared")
        await shared.append("first")

        async def write(number: int) -> int:
            own = store.session(f"own-{number}")
            for n in count(1):
                await shared.append([number, n])
                await own.append(n)
                await asyncio.sleep(0.02)  # so that the faults meet all kinds of moments
                if proxy.fired >= FAULTS:
                    return n
            raise AssertionError

        breaking = asyncio.create_task(break_again_and_again(proxy, rng))
        try:
            async with asyncio.timeout(120):
                written = await asyncio.gather(*map(write, range(WRITERS)))
        finally:
            breaking.cancel()
            await asyncio.wait([breaking])

    async with Store(networked.url) as other:
        first, *entries = await other.session("shared").entries()
        assert first == "first"
        assert len(entries) == sum(written)
        head = await read_head(other.backend, other.key("shared"))
        # Appends of several writers may share a commit, and none is made twice.
        assert head.version <= sum(written) + 1
        assert head.version == len(await commit_ids(other, "shared"))
        for number in range(WRITERS):
            own = list(range(1, written[number] + 1))
            assert [n for writer, n in entries if writer == number] == own
            assert await other.session(f"own-{number}").entries() == own
            head = await read_head(other.backend, other.key(f"own-{number}"))
            assert head.version == len(own)
