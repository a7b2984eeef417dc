"""Rare orders of events, limits that meet, long histories."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from perdure.backend import REMEMBERED_COMMITS
from perdure.testing import TestClock
from perdure.testing.shorthand import (
    new_commit,
    new_id,
    write,
)
from perdure.types import (
    Append,
    Condition,
    Expect,
    Item,
    KeyRange,
    Scan,
    SessionKey,
    append_key,
)

from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.chain import SETTLING_MS
from perdure_dynamodb.connection import Connection, Reply
from perdure_dynamodb.failures import Lost
from perdure_dynamodb.requests import Client
from perdure_dynamodb.settings import Settings
from tests.backends.dynamodb.conftest import Fresh

KEY = SessionKey.of("acme", "session", "chat-7")
LOG = b"l\0"
WHOLE = Scan(LOG, b"l\0\xff")


class Deaf(Connection):
    """Does not hear the reply to the next request of a kind; something happens instead."""

    def __init__(self, heard: Connection) -> None:
        self.heard = heard
        self.renewal = heard.renewal
        self.instead: dict[str, Callable[[], Awaitable[object]]] = {}

    async def exchange(self, operation: str, body: bytes) -> Reply:
        reply = await self.heard.exchange(operation, body)
        if (instead := self.instead.pop(operation, None)) is not None:
            await instead()
            raise Lost("nobody has heard it", sent=True)
        return reply

    async def aclose(self) -> None:
        await self.heard.aclose()


class DeafClient(Client):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.instead: dict[str, Callable[[], Awaitable[object]]] = {}

    async def _connect(self) -> Connection:
        connection = await super()._connect()
        if not isinstance(connection, Deaf):
            self._connection = connection = Deaf(connection)
            connection.instead = self.instead
        return connection


@pytest.fixture
async def deaf(
    settings: Settings, clock: TestClock
) -> AsyncIterator[tuple[DynamoDBBackend, dict[str, Callable[[], Awaitable[object]]]]]:
    """A backend, and what happens in place of the reply to its next request of a kind."""
    backend = DynamoDBBackend(settings, clock=clock)
    client = DeafClient(settings)
    backend._table.client = client
    yield backend, client.instead
    await backend.aclose()


def entry(value: bytes = b"entry") -> tuple[Append, ...]:
    return (Append(LOG, (value,)),)


async def items_of(backend: DynamoDBBackend, key: SessionKey, scan: Scan) -> list[Item]:
    (found,) = (await backend.read(key, scan)).rows
    return list(found.items)


async def values_of(backend: DynamoDBBackend, key: SessionKey, scan: Scan) -> list[bytes]:
    return [item.value for item in await items_of(backend, key, scan)]


def long_key(number: int) -> bytes:
    return b"%03d" % number + b"k" * 509


def asked(backend: DynamoDBBackend) -> int:
    return backend.consumption.total.requests


@pytest.mark.parametrize("others", [1, REMEMBERED_COMMITS - 1, REMEMBERED_COMMITS + 1])
@pytest.mark.parametrize("operation", ["PutItem", "TransactWriteItems"])
async def test_a_commit_whose_reply_was_lost_is_applied_once_however_many_follow_at_once(
    deaf: tuple[DynamoDBBackend, dict[str, Callable[[], Awaitable[object]]]],
    backend: DynamoDBBackend,
    operation: str,
    others: int,
) -> None:
    mine, instead = deaf
    await write(mine, KEY, appends=entry(b"first"))

    async def much_happens() -> None:
        for _ in range(others):
            await write(backend, KEY, appends=entry(b"other"))

    instead[operation] = much_happens
    commit = new_commit(
        appends=entry(b"mine"),
        puts=((b"cell", b"mine"),) if operation == "TransactWriteItems" else (),
    )
    made = await mine.commit(KEY, commit)
    assert not instead
    assert made.version == 2
    values = await values_of(backend, KEY, WHOLE)
    assert values.count(b"mine") == 1
    assert len(values) == 2 + others


@pytest.mark.parametrize("operation", ["PutItem", "TransactWriteItems"])
async def test_a_commit_whose_reply_was_lost_is_applied_once_though_the_session_is_deleted(
    deaf: tuple[DynamoDBBackend, dict[str, Callable[[], Awaitable[object]]]],
    backend: DynamoDBBackend,
    operation: str,
) -> None:
    mine, instead = deaf
    await write(mine, KEY, appends=entry(b"first"))

    async def it_is_deleted() -> None:
        assert await backend.delete(KEY, id=new_id())
        await backend._background.finish()
        await write(backend, KEY, appends=entry(b"another life"))

    instead[operation] = it_is_deleted
    made = await mine.commit(
        KEY,
        new_commit(
            appends=entry(b"mine"),
            puts=((b"cell", b"mine"),) if operation == "TransactWriteItems" else (),
        ),
    )
    assert made.version == 2
    assert await values_of(backend, KEY, WHOLE) == [b"another life"]


async def test_a_delete_whose_reply_was_lost_spares_the_successor(
    deaf: tuple[DynamoDBBackend, dict[str, Callable[[], Awaitable[object]]]],
    backend: DynamoDBBackend,
) -> None:
    mine, instead = deaf
    await write(mine, KEY, appends=entry(b"first"))

    async def it_is_made_again() -> None:
        await write(backend, KEY, appends=entry(b"another life"))

    instead["TransactWriteItems"] = it_is_made_again
    assert await mine.delete(KEY, id=new_id())
    assert await values_of(backend, KEY, WHOLE) == [b"another life"]


async def test_as_many_ids_as_must_be_are_remembered_of_a_life_that_is_over(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    first = new_commit(appends=entry())
    await backend.commit(KEY, first)
    for _ in range(REMEMBERED_COMMITS - 1):
        await write(backend, KEY, appends=entry())
    assert await backend.delete(KEY, id=new_id())
    replayed = await (await fresh()).commit(KEY, first)
    assert replayed.replayed
    assert replayed.version == 1
    assert (await backend.read(KEY)).head is None


@pytest.mark.parametrize("puts", [0, 30])
async def test_values_deletions_and_meta_at_their_limits_fit_together(
    backend: DynamoDBBackend, puts: int
) -> None:
    """All of them are in the one row of the slot, which holds 400 KB."""
    await write(backend, KEY, appends=entry())
    value = b"v" * 349_000
    await write(
        backend,
        KEY,
        meta=b"m" * 4096,
        labels=tuple(str(n) + "l" * 127 for n in range(4)),
        deletes=tuple(KeyRange(long_key(n), long_key(n)[:-1] + b"l") for n in range(70 - puts)),
        puts=tuple((long_key(n), b"") for n in range(puts)),
        appends=entry(value),
    )
    assert await values_of(backend, KEY, WHOLE) == [b"entry", value]
    assert len(await items_of(backend, KEY, Scan(b"0", b"1"))) == puts


async def test_many_stages_waiting_for_one_key_do_not_keep_a_commit_from_judging_it(
    backend: DynamoDBBackend,
) -> None:
    """So it is after many attempts to write something large that were all cut short."""
    made = await write(backend, KEY, puts=((b"part", b"old"),))
    for _ in range(30):
        await backend.stage(KEY, made.incarnation, new_id(), ((b"part", b"new"),))
    await write(
        backend,
        KEY,
        conditions=(
            Condition(b"part", 1),
            *(Condition(b"absent %d" % n, 0) for n in range(70)),
        ),
        puts=((b"part", b"newer"),),
    )
    assert await values_of(backend, KEY, Scan(b"part", b"part\0")) == [b"newer"]


async def test_what_was_taken_off_the_beginning_of_a_log_is_not_read_ever_after(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    turns, kept = 200, 5
    for _ in range(turns):
        await write(backend, KEY, appends=entry(b"v" * 200))
    await write(backend, KEY, deletes=(KeyRange(LOG, append_key(LOG, turns - kept + 1, 0)),))
    await backend._background.finish()
    await write(backend, KEY, appends=entry())
    reader = await fresh()
    for limit in (None, 1, 20):
        before = asked(reader)
        found = await items_of(reader, KEY, Scan(LOG, b"l\0\xff", limit=limit))
        assert len(found) == min(limit or 99, kept + 1)
        assert asked(reader) - before <= 3


async def test_what_a_session_costs_that_is_made_and_deleted_again_and_again_does_not_grow(
    backend: DynamoDBBackend,
) -> None:
    costs: list[int] = []
    for _ in range(20):
        before = asked(backend)
        await write(backend, KEY, expect=Expect.ABSENT, appends=entry())
        costs.append(asked(backend) - before)
        assert await backend.delete(KEY, id=new_id())
        await backend._background.finish()
    assert costs[-1] <= costs[1] + 3


async def test_who_deletes_in_turn_with_another_process_is_not_held_up(
    settings: Settings,
) -> None:
    """While others touch a session nothing in it is known to be settled, and deletions are
    carried on: nobody waits for that at the first limit."""
    loop = asyncio.get_running_loop()
    processes = DynamoDBBackend(settings), DynamoDBBackend(settings)
    await write(processes[0], KEY, puts=((b"a", b"1"),))
    for number in range(40):
        began = loop.time()
        key = b"k%03d" % number
        await write(processes[number % 2], KEY, deletes=(KeyRange(key, key + b"z"),))
        assert loop.time() - began < SETTLING_MS / 1000 - 1
    for process in processes:
        await process.aclose()
