"""What sweeps find to do, and who overtakes them."""

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest
from msgspec.structs import replace

from perdure.errors import Corrupt, FormatTooNew
from perdure.testing import TestClock
from perdure.testing.shorthand import (
    list_ids,
    new_commit,
    new_id,
    read_head,
    read_values,
    resent,
    write,
)
from perdure.types import NEVER, Append, SessionKey

from perdure_dynamodb import due
from perdure_dynamodb.actions import Put
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.capacity import measured
from perdure_dynamodb.due import What
from perdure_dynamodb.settings import Settings
from tests.backends.dynamodb.conftest import Visit
from tests.backends.dynamodb.raw import Raw

KEY = SessionKey.of("acme", "session", "chat-7")
HOUR = 3_600_000


def filed(raw: Raw, what: What) -> list[due.Due]:
    """What is due some time."""
    tasks = [due.of(row) for row in raw.rows(b"d")]
    return sorted((task for task in tasks if task.what == what), key=lambda task: task.at)


async def test_an_expired_session_goes_and_its_ids_stay(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    commit = new_commit(
        puts=((b"a", b"1"),), appends=(Append(b"log", (b"x",)),), expires_in=HOUR
    )
    await backend.commit(KEY, commit)
    clock.advance(HOUR - 1)
    assert await visit().sweep() == 0
    clock.advance(1)
    assert await visit().sweep() == 1
    assert raw.items(KEY) == {}
    assert {row["p"] for row in raw.rows(b"i") + raw.rows(b"r")} == set()
    assert filed(raw, What.EXPIRE) == filed(raw, What.LIFE) == []
    assert (await backend.commit(KEY, resent(commit))).replayed
    assert await visit().sweep() == 0


async def test_a_life_that_was_extended_in_time_is_spared(
    backend: DynamoDBBackend, settings: Settings, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    await write(backend, KEY, puts=((b"a", b"1"),), expires_in=HOUR)
    behind = TestClock(clock() + HOUR - 1)  # of a client by whose clock it has not expired
    clock.advance(HOUR + 1000)
    slow = DynamoDBBackend(settings, clock=behind)
    sweeper = visit()

    async def extend() -> None:
        await write(slow, KEY, expires_in=2 * HOUR)

    sweeper.client.interludes["TransactWriteItems"] = extend
    assert await sweeper.sweep() == 0
    assert await read_values(backend, KEY) == {b"a": b"1"}
    assert await list_ids(backend, KEY) == [KEY.id]
    await sweeper.sweep_all()
    head = await read_head(backend, KEY)
    assert head.expires_at == behind() + 2 * HOUR
    assert [task.at for task in filed(raw, What.EXPIRE)] == [head.expires_at]
    clock.advance(2 * HOUR)
    assert await sweeper.sweep() == 1
    assert raw.items(KEY) == {}
    await slow.aclose()


async def test_a_session_made_over_an_expired_one_is_spared(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    await write(backend, KEY, puts=((b"a", b"old"),), expires_in=HOUR)
    clock.advance(HOUR + 1000)
    sweeper = visit()

    async def create() -> None:
        await write(backend, KEY, puts=((b"a", b"new"),), expires_in=HOUR)

    sweeper.client.interludes["TransactWriteItems"] = create
    await sweeper.sweep_all()
    assert await read_values(backend, KEY) == {b"a": b"new"}
    assert raw.items(KEY) == {b"a": b"new"}
    assert await list_ids(backend, KEY) == [KEY.id]
    clock.advance(HOUR + 1000)
    await sweeper.sweep_all()
    assert raw.items(KEY) == {}


async def test_the_due_row_follows_an_expiry_that_slides(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    sweeper = visit()
    await write(backend, KEY, expires_in=HOUR)
    for n in range(16):
        clock.advance(HOUR // 4)
        await sweeper.sweep_all()
        await write(backend, KEY, appends=(Append(b"log", (b"%d" % n,)),), expires_in=HOUR)
        head = await read_head(backend, KEY)
        assert head.expires_at is not None
        tasks = filed(raw, What.EXPIRE)
        assert tasks[0].at <= head.expires_at
        assert len(tasks) <= 2
    await write(backend, KEY, expires_in=5)
    clock.advance(5000)
    await sweeper.sweep_all()
    assert raw.items(KEY) == {}
    clock.advance(HOUR)
    await sweeper.sweep_all()
    assert filed(raw, What.EXPIRE) == []


async def test_an_expiry_taken_away_leaves_nothing_due(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    await write(backend, KEY, puts=((b"a", b"1"),), expires_in=HOUR)
    clock.advance(HOUR // 2)
    await write(backend, KEY, expires_at=NEVER)
    assert filed(raw, What.EXPIRE) == []
    clock.advance(HOUR)
    assert await visit().sweep() == 0
    assert await read_values(backend, KEY) == {b"a": b"1"}


async def test_a_sweep_takes_about_as_much_as_it_is_told(
    backend: DynamoDBBackend, raw: Raw, clock: TestClock
) -> None:
    for n in range(40):
        await write(backend, SessionKey.of("acme", "session", f"{n}"), expires_in=1000)
    clock.advance(2000)
    total = 0
    while removed := await backend.sweep(limit=7):
        assert removed <= 7
        total += removed
    assert total == 40
    assert filed(raw, What.EXPIRE) == []
    assert len(filed(raw, What.LAPSE)) == 40


async def test_a_sweep_that_has_nothing_to_do_is_cheap(backend: DynamoDBBackend) -> None:
    for n in range(20):
        await write(backend, SessionKey.of("acme", "session", f"{n}"), expires_in=HOUR)
    with measured() as cost:
        assert await backend.sweep() == 0
    assert cost.total.requests == 16
    assert cost.total.write_units == 0


async def test_what_cannot_be_understood_does_not_stop_a_sweep(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    table = visit().table
    unknown = due.Due(what=99, at=0, session=b"a\0b\0c", incarnation=b"")
    for n in range(64):  # some in each shard
        await write(backend, SessionKey.of("acme", "session", f"{n}"), expires_in=1000)
        await table.put(replace(unknown, at=n, incarnation=b"%d" % n).filed())
    partition, sort = unknown.place()
    await table.put(Put({"p": partition, "s": sort, "d": b"?"}))
    clock.advance(2000)
    assert await backend.sweep() == 64
    assert len(raw.rows(b"d")) == 64 + 1 + 64
    for _ in range(5):
        with pytest.raises((FormatTooNew, Corrupt)):
            await backend.sweep()


DELETED_AND_KILLED = """
import asyncio, os, signal, sys
from perdure.testing.shorthand import new_id, write
from perdure.types import Append, SessionKey
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.settings import Settings

async def main():
    table, region, endpoint, turns = sys.argv[1:]
    backend = DynamoDBBackend(Settings(table=table, region=region, endpoint=endpoint))
    key = SessionKey.of("acme", "session", "chat-7")
    for n in range(int(turns)):
        await write(backend, key, appends=(Append(b"log", (b"x" * 100,)),))
    await write(backend, key, puts=tuple((b"%d" % n, b"x") for n in range(50)))
    assert await backend.delete(key, id=new_id())
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_killed_process_deleted_goes_with_the_sweep(
    settings: Settings, raw: Raw
) -> None:
    turns = 40
    assert settings.region is not None
    assert settings.endpoint is not None
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DELETED_AND_KILLED,
        settings.table,
        settings.region,
        settings.endpoint,
        str(turns),
        stderr=PIPE,
    )
    _, said = await child.communicate()
    assert child.returncode == -9, said.decode()
    assert len(raw.items(KEY)) > turns, "it was killed before it could remove them"
    backend = DynamoDBBackend(settings)
    assert (await backend.read(KEY)).head is None
    assert await list_ids(backend, KEY) == []
    assert await backend.sweep() == 1
    assert raw.items(KEY) == {}
    assert len(raw.slots(KEY)) == turns + 2, "slots stay taken"
    assert await backend.sweep() == 0
    assert not await backend.delete(KEY, id=new_id())
    await backend.aclose()
