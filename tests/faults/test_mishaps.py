"""Everything that may go wrong in front of DynamoDB does, and 2 000 commits are there once."""

from asyncio import gather
from collections.abc import AsyncIterator

import pytest

from perdure import Store

from perdure_dynamodb import requests
from tests.faults.commit_ids import commit_ids
from tests.faults.mishaps import Mishap, MishapProxy

COMMITS = 2000
WRITERS = 10
EACH = COMMITS // WRITERS
SHARE = 0.15
"""Of all requests that go wrong, each way as often as another."""

PATIENCE = 0.12
"""Seconds for which the client waits for a reply."""


@pytest.fixture
async def proxy(dynamodb_url: str) -> AsyncIterator[MishapProxy]:
    async with await MishapProxy.start(dynamodb_url, share=SHARE, patience=PATIENCE) as proxy:
        yield proxy


async def test_two_thousand_commits_are_there_once(
    dynamodb_url: str, proxy: MishapProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half in a session that all write to, half in one of each writer's own. Every other commit
    of these is of several items, and so a transaction."""
    monkeypatch.setattr(requests, "FIRST_PAUSE", 0.005)
    async with Store(f"{proxy.url}&request_timeout={PATIENCE}") as store:

        async def write(number: int) -> None:
            own = store.session(f"own-{number}")
            shared = store.session("shared")
            for n in range(0, EACH, 4):
                await shared.append([number, n])
                await own.append(n + 1)
                async with own.turn() as turn:
                    turn.append(n + 2)
                    turn.cells["last"] = n + 2
                await shared.append([number, n + 3])

        await gather(*map(write, range(WRITERS)))
        await proxy.until_idle()

    assert min(proxy.met[mishap] for mishap in Mishap if mishap is not Mishap.CONFLICT) > 3
    async with Store(dynamodb_url) as other:
        shared = await commit_ids(other, "shared")
        entries = list(await other.session("shared").entries())
        assert len(shared) <= len(entries) == COMMITS // 2
        made = [n for n in range(EACH) if n % 4 in (0, 3)]
        for number in range(WRITERS):
            assert [n for writer, n in entries if writer == number] == made
            own = await commit_ids(other, f"own-{number}")
            assert len(own) == EACH // 2
            session = other.session(f"own-{number}")
            assert list(await session.entries()) == [n for n in range(EACH) if n % 4 in (1, 2)]
            assert await session.cells.get("last") == EACH - 2
