"""DynamoDB removes by time to live, in any order, what perdure left to it, and nothing living.

The clients' clock stands in the past, so that for the server everything with an ``x`` has
lapsed as soon as it is written.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure.errors import SessionDeleted
from perdure.testing import TestClock
from perdure.testing.shorthand import list_ids, new_id, read_values, write
from perdure.types import Append, Expect, SessionKey, append_key

from perdure_dynamodb import creation
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.settings import Settings
from tests.backends.dynamodb.raw import Raw
from tests.services.dynamodb import REGION

KEY = SessionKey.of("acme", "session", "chat-7")
LIVING = SessionKey.of("acme", "session", "chat-8")
LOG = b"log/"


@pytest.fixture
async def lapsing(ministack_endpoint: str) -> AsyncIterator[tuple[DynamoDBBackend, Raw]]:
    """A backend on a table that removes what has lapsed within a second."""
    settings = Settings(
        table=f"perdure-{new_id().hex()}", region=REGION, endpoint=ministack_endpoint
    )
    await creation.create(settings)
    backend = DynamoDBBackend(settings, clock=TestClock())
    raw = Raw(ministack_endpoint, settings.table)
    yield backend, raw
    raw.close()
    await backend.aclose()


async def until_lapsed(raw: Raw) -> None:
    for _ in range(100):
        if not any("x" in row for row in raw.rows()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the server does not remove what has lapsed")


async def test_what_lives_stays_and_what_is_over_goes(
    lapsing: tuple[DynamoDBBackend, Raw],
) -> None:
    backend, raw = lapsing
    made = await write(backend, LIVING, puts=((b"a", b"1"),), meta=b"m" * 1000)
    stage = new_id()
    await backend.stage(LIVING, made.incarnation, stage, ((b"part/1", b"1"), (b"part/2", b"2")))
    await write(backend, LIVING, stages=(stage,), appends=(Append(LOG, (b"x", b"y")),))
    await write(backend, LIVING, deletes=(b"part/1", append_key(LOG, 2, 1)))
    dead = await write(backend, KEY, puts=((b"a", b"old"),), appends=(Append(LOG, (b"z",)),))
    await write(backend, KEY, labels=("l",))
    await backend.delete(KEY, id=new_id())
    while await backend.sweep():
        pass
    await until_lapsed(raw)

    expected = {b"a": b"1", append_key(LOG, 2, 0): b"x", b"part/2": b"2"}
    assert await read_values(backend, LIVING) == expected
    assert raw.items(LIVING) == expected
    assert len(raw.slots(LIVING)) == 3
    assert raw.session(KEY) == []
    assert (await backend.read(KEY)).head is None
    with pytest.raises(SessionDeleted):
        await write(backend, KEY, incarnation=dead.incarnation)
    again = await write(backend, KEY, expect=Expect.ABSENT, puts=((b"a", b"new"),))
    assert again.version == 1
    while await backend.sweep():
        pass
    assert await read_values(backend, KEY) == {b"a": b"new"}
    assert await list_ids(backend, KEY) == [KEY.id, LIVING.id]
