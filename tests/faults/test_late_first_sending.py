"""A request that arrives long after its resend was applied."""

import asyncio

from perdure import Store

from tests.faults.databases import Database
from tests.faults.proxy import Fault, Part, Proxy, Then

SHORT = 0.25


async def test_a_first_sending_that_arrives_after_many_others(networked: Database) -> None:
    async with (
        await Proxy.start(networked.url) as proxy,
        Store(f"{proxy.url}&{networked.patience}={SHORT}") as store,
    ):
        session = store.session("plum")
        await session.append("first")
        proxy.arm(Fault(Part.REQUEST, 0, Then.PAUSE, b"marker", pause=8 * SHORT))
        await session.append("marker")
        assert proxy.fired == 1
        async with Store(networked.url) as other:
            for number in range(200):
                await other.session("plum").append(number)
            await asyncio.sleep(8 * SHORT)
            entries = list(await other.session("plum").entries())
        assert entries.count("marker") == 1
        assert len(entries) == 202
