"""Work in the background that is cut short."""

import asyncio
import gc

from perdure_dynamodb.background import AT_ONCE, Background


async def test_who_is_stopped_before_he_begins_leaves_no_warning() -> None:
    """Warnings are errors here, that of a coroutine which was never awaited too."""
    begun: list[None] = []

    async def work() -> None:
        begun.append(None)

    Background().start(work)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0.01)
    gc.collect()
    assert begun == []


async def test_closing_stops_what_takes_too_long_and_what_waits_for_room() -> None:
    begun: list[int] = []
    background = Background()
    for number in range(AT_ONCE + 2):

        async def work(number: int = number) -> None:
            begun.append(number)
            await asyncio.sleep(60)

        background.start(work)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await background.finish()
    gc.collect()
    assert begun == list(range(AT_ONCE))
