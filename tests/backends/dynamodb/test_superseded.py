"""Rows in whose place a commit has put others go, and what anybody needs stays."""

import asyncio
import sys
from collections.abc import Callable
from random import Random

import pytest

import perdure
from perdure.backend import STAGE_MS
from perdure.testing import TestClock
from perdure.testing.shorthand import new_commit, new_id, read_values, write
from perdure.types import KeyRange, Scan, SessionKey

from perdure_dynamodb import keys, rows
from perdure_dynamodb.actions import ConditionFailed
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.reading import Reader
from perdure_dynamodb.settings import Settings
from tests.backends.dynamodb.conftest import Fresh, Visit
from tests.backends.dynamodb.raw import Raw, check_lapses, sort
from tests.backends.dynamodb.visitors import until_done
from tests.services.dynamodb import table_url

KEY = SessionKey.of("acme", "session", "chat-7")
HOUR = 3_600_000

DOCUMENT_BYTES = 4_000_000

SAVE_AND_DIE = """
import asyncio, os, sys, perdure
from tests.backends.dynamodb.test_superseded import document

async def main(url, number):
    store = perdure.Store(url)
    await store.save("doc", document(number))
    await asyncio.sleep(0.03)
    os._exit(0)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def document(number: int) -> bytes:
    """One that does not get shorter by compression."""
    return bytes((number,)) + Random(number).randbytes(DOCUMENT_BYTES - 1)


def kept(raw: Raw, key: SessionKey = KEY) -> list[tuple[bytes, bytes]]:
    """The keys and values of all rows of items, but for those that were overwritten."""
    return [
        (keys.item_of(sort(row))[0], value)
        for row in raw.session(key)
        if sort(row).startswith(keys.ITEM) and isinstance(value := row.get("v"), bytes)
    ]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what is done in the background."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.02)


async def stage_and_commit(backend: DynamoDBBackend, **parts: bytes) -> bytes:
    """Put items by way of a stage; its id."""
    head = (await backend.read(KEY)).head
    assert head is not None
    stage = new_id()
    puts = tuple((name.encode(), value) for name, value in parts.items())
    await backend.stage(KEY, head.incarnation, stage, puts)
    await write(backend, KEY, stages=(stage,))
    return stage


async def test_a_document_saved_again_and_again_leaves_the_rows_of_one(
    settings: Settings, raw: Raw
) -> None:
    assert settings.endpoint is not None
    url = table_url(settings.endpoint, settings.table)

    async def read(store: perdure.Store, *may_be: int) -> None:
        loaded = await store.load("doc")
        assert isinstance(loaded, bytes)
        assert loaded[0] in may_be
        assert loaded == document(loaded[0])

    async with perdure.Store(url) as store, perdure.Store(url) as other:
        for n in range(20):
            if n % 5 == 3:
                dying = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", SAVE_AND_DIE, url, str(n)
                )
                assert await dying.wait() == 0
            elif n % 5 == 1:
                await asyncio.gather(store.save("doc", document(n)), read(other, n - 1, n))
            else:
                await store.save("doc", document(n))
        key = store.key("doc")
        await asyncio.sleep(1)  # looking takes the time of who removes
        await until(lambda: sum(len(v) for _, v in kept(raw, key)) < 1.01 * DOCUMENT_BYTES)
        await read(other, 19)
    assert len({name for name, _ in kept(raw, key)}) == len(kept(raw, key))
    check_lapses(raw, key)


async def test_puts_and_parts_replace_one_another(backend: DynamoDBBackend, raw: Raw) -> None:
    await write(backend, KEY, puts=((b"a", b"1"), (b"m", b"1"), (b"z", b"1")))
    await stage_and_commit(backend, a=b"2", b=b"2", z=b"2")
    now = {b"a": b"2", b"b": b"2", b"m": b"1", b"z": b"2"}
    await until(lambda: kept(raw) == sorted(now.items()))
    assert await read_values(backend, KEY) == now
    await write(backend, KEY, puts=((b"a", b"3"), (b"z", b"3")))
    now |= {b"a": b"3", b"z": b"3"}
    await until(lambda: kept(raw) == sorted(now.items()))
    assert await read_values(backend, KEY) == now
    await stage_and_commit(backend, a=b"4", b=b"4")
    now |= {b"a": b"4", b"b": b"4"}
    await until(lambda: kept(raw) == sorted(now.items()))
    assert await read_values(backend, KEY) == now


async def test_what_was_replaced_does_not_come_back_when_its_successor_is_deleted(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    made = await write(backend, KEY, puts=((b"a", b"1"), (b"b", b"1")))
    first = await stage_and_commit(backend, a=b"2", c=b"2")
    await stage_and_commit(backend, a=b"3", b=b"3", c=b"3")
    await write(backend, KEY, puts=((b"b", b"4"),))
    await until(lambda: len(kept(raw)) == 3)
    await write(backend, KEY, deletes=(b"a", KeyRange(b"b", b"c")))
    assert await read_values(backend, KEY) == {b"c": b"3"}
    await until(lambda: len(kept(raw)) == 1)
    late = rows.put_staged(keys.session(KEY), made.incarnation, b"a", first, b"2")
    with pytest.raises(ConditionFailed):
        await visit().table.put(late)
    for _ in range(2):
        await write(backend, KEY)
        assert await read_values(backend, KEY) == {b"c": b"3"}
    check_lapses(raw, KEY)


async def test_parts_that_wait_for_their_commit_stay(
    backend: DynamoDBBackend, raw: Raw
) -> None:
    made = await write(backend, KEY, puts=((b"a", b"1"),))
    waiting = new_id()
    await backend.stage(KEY, made.incarnation, waiting, ((b"a", b"late"), (b"b", b"late")))
    await stage_and_commit(backend, a=b"2", b=b"2")
    await write(backend, KEY, puts=((b"a", b"3"),))
    await until(lambda: len(kept(raw)) == 4)
    assert await read_values(backend, KEY) == {b"a": b"3", b"b": b"2"}
    await write(backend, KEY, stages=(waiting,))
    await until(lambda: kept(raw) == [(b"a", b"late"), (b"b", b"late")])
    assert await read_values(backend, KEY) == {b"a": b"late", b"b": b"late"}


async def test_what_is_put_meanwhile_stays(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    made = await write(backend, KEY, puts=((b"a", b"1"), (b"b", b"1")))
    stage, visitor = new_id(), visit()
    await backend.stage(KEY, made.incarnation, stage, ((b"a", b"2"), (b"b", b"2")))

    async def overtake() -> None:
        await write(backend, KEY, puts=((b"a", b"3"), (b"b", b"3")))

    visitor.client.interludes["DeleteItem"] = overtake
    await visitor.commit(KEY, new_commit(stages=(stage,)))
    await until(lambda: not visitor.client.interludes)
    await until(lambda: kept(raw) == [(b"a", b"3"), (b"b", b"3")])
    assert await read_values(backend, KEY) == {b"a": b"3", b"b": b"3"}


async def test_what_a_dead_client_left_is_swept(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    names = [b"%02d" % n for n in range(9)]
    made = await write(backend, KEY, puts=tuple((name, b"0") for name in names))
    for n in range(3):
        stage = new_id()
        puts = tuple((name, b"%d" % (n + 1)) for name in names[n:])
        await backend.stage(KEY, made.incarnation, stage, puts)
        await visit().commit_and_die(KEY, new_commit(stages=(stage,)))
    now = {name: b"%d" % (min(n, 2) + 1) for n, name in enumerate(names)}
    assert len(kept(raw)) == 9 + 9 + 8 + 7
    assert await read_values(backend, KEY) == now
    clock.advance(STAGE_MS + 2 * HOUR)
    sweeper = visit()
    sweeper.client.page = 2

    async def look() -> None:
        assert await read_values(backend, KEY) == now

    assert await until_done(sweeper, 2, look) > 3
    assert dict(kept(raw)) == now
    assert len(kept(raw)) == 9
    assert await read_values(backend, KEY) == now


async def test_the_next_commit_does_what_a_dead_client_left(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    made = await write(backend, KEY, puts=((b"a", b"0"), (b"b", b"0")))
    for n in range(3):
        stage = new_id()
        await backend.stage(KEY, made.incarnation, stage, ((b"a", b"%d" % n), (b"b", b"x")))
        await visit().commit_and_die(KEY, new_commit(stages=(stage,)))
    assert len(kept(raw)) == 8
    await stage_and_commit(backend, a=b"last", b=b"last")
    await until(lambda: kept(raw) == [(b"a", b"last"), (b"b", b"last")])


async def test_whoever_did_not_write_the_parts_removes_what_they_replace(
    backend: DynamoDBBackend, fresh: Fresh, raw: Raw
) -> None:
    made = await write(backend, KEY, puts=((b"a", b"0"), (b"z", b"0")))
    stage = new_id()
    await backend.stage(KEY, made.incarnation, stage, ((b"a", b"1"),))
    await write(await fresh(), KEY, stages=(stage,))
    await until(lambda: kept(raw) == [(b"a", b"1"), (b"z", b"0")])


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("after", range(6))
async def test_a_reader_meets_all_of_one_or_all_of_the_other(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, after: int, known: bool
) -> None:
    await write(backend, KEY, puts=tuple((b"%d" % n, b"0") for n in range(6)))
    await stage_and_commit(backend, **{str(n): b"1" for n in range(6)})
    visitor = visit()
    visitor.client.page = 2
    if known:
        await visitor.chain.fetch(KEY)
    left = after

    async def before_each() -> None:
        nonlocal left
        if left:
            left -= 1
            visitor.client.interludes["Query"] = before_each
            return
        await stage_and_commit(backend, **{str(n): b"2" for n in range(6)})
        await until(lambda: len(kept(raw)) == 6)

    visitor.client.interludes["Query"] = before_each
    (found,) = (await Reader(visitor.chain).read(KEY, (Scan(),))).rows
    values = [item.value for item in found.items]
    assert values in ([b"1"] * 6, [b"2"] * 6)


async def test_rows_of_one_item_may_be_on_two_pages(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    """The page ends between the row that is replaced and the one in its place."""
    names = [b"%02d" % n for n in range(7)]
    made = await write(backend, KEY, puts=tuple((name, b"0") for name in names))
    for page in (1, 2, 3):
        stage, visitor = new_id(), visit()
        visitor.client.page = page
        await backend.stage(KEY, made.incarnation, stage, tuple((n, b"1") for n in names))
        await visitor.commit(KEY, new_commit(stages=(stage,)))
        await until(lambda: len(kept(raw)) == 7)
    assert await read_values(backend, KEY) == dict.fromkeys(names, b"1")


async def test_a_session_without_stages_is_not_looked_through(
    backend: DynamoDBBackend, visit: Visit
) -> None:
    await write(backend, KEY, puts=((b"a", b"1"),))
    visitor = visit()
    await visitor.commit(KEY, new_commit(puts=((b"a", b"2"),)))

    async def looked() -> None:
        raise AssertionError("nothing needs to be read")

    visitor.client.interludes["Query"] = looked
    await visitor.commit(KEY, new_commit(puts=((b"a", b"3"),)))
    await asyncio.sleep(0.05)
    assert visitor.client.interludes


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_committed_one_row_of_each_item_is_left(
    backend: DynamoDBBackend,
    visit: Visit,
    fresh: Fresh,
    raw: Raw,
    clock: TestClock,
    seed: int,
) -> None:
    chance = Random(seed)
    incarnation = (await write(backend, KEY)).incarnation
    other = await fresh()
    there: dict[bytes, bytes] = {}
    names = [b"%d" % n for n in range(6)]
    for n in range(40):
        who = chance.choice((backend, other))
        some = chance.sample(names, chance.randrange(1, 6))
        puts = tuple((name, b"%d" % n) for name in some)
        match chance.choice(("put", "put", "stage", "stage", "die", "delete")):
            case "put":
                await write(who, KEY, puts=puts)
            case "delete":
                await write(who, KEY, deletes=tuple(some))
                puts = ()
                for name in some:
                    there.pop(name, None)
            case how:
                stage = new_id()
                await chance.choice((backend, other)).stage(KEY, incarnation, stage, puts)
                if how == "stage":
                    await write(who, KEY, stages=(stage,))
                else:
                    await visit().commit_and_die(KEY, new_commit(stages=(stage,)))
        there.update(puts)
        assert await read_values(chance.choice((backend, other)), KEY) == there
    clock.advance(STAGE_MS + 2 * HOUR)
    await visit().sweep_all()
    await until(lambda: kept(raw) == sorted(there.items()))
    assert await read_values(backend, KEY) == there
    check_lapses(raw, KEY)
