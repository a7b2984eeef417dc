"""What is deleted goes physically, whoever dies on the way, and nothing else goes with it."""

import asyncio

import pytest
from msgspec.structs import replace

from perdure.backend import STAGE_MS
from perdure.errors import Unavailable
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
from perdure.types import (
    Append,
    Commit,
    KeyRange,
    SessionKey,
    append_key,
)

from perdure_dynamodb import keys, purge, rows
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.chain import SETTLING_MS
from perdure_dynamodb.due import Due, What
from tests.backends.dynamodb.conftest import Visit
from tests.backends.dynamodb.raw import Raw, check_lapses
from tests.backends.dynamodb.visitors import until_done

KEY = SessionKey.of("acme", "session", "chat-7")
LOG = b"log/"
DAY = 24 * 3_600_000
LAPSE = purge.LAPSE_MS + 1000


async def live_a_life(backend: DynamoDBBackend, *, incarnation: bytes) -> list[Commit]:
    """A session with everything a session may have; its commits."""
    adopted, waiting = new_id(), new_id()
    await backend.stage(KEY, incarnation, adopted, ((b"part/1", b"1"), (b"part/2", b"2")))
    commits = [
        new_commit(
            new_incarnation=incarnation,
            puts=((b"a", b"1"), (b"b", b"2")),
            appends=(Append(LOG, (b"x", b"y")),),
            labels=("l",),
            meta=b"m" * 1000,
        ),
        new_commit(stages=(adopted,), deletes=(b"a",)),
        *(new_commit(appends=(Append(LOG, (b"z" * 100,)),)) for _ in range(5)),
    ]
    for commit in commits:
        await backend.commit(KEY, commit)
    await backend.stage(KEY, incarnation, waiting, ((b"part/3", b"3"),))
    return commits


async def test_a_purge_goes_on_where_a_client_died(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    incarnation = new_id()
    for writes in (2, 5):
        commits = await live_a_life(backend, incarnation=incarnation)
        dying, sweeper = visit(), visit()
        await dying.delete_and_die(KEY)
        assert (await backend.read(KEY)).head is None
        assert await list_ids(backend, KEY) == []
        clock.advance(1)

        # A copy is put back under the same incarnation, with parts that wait for it.
        stage = new_id()
        await backend.stage(KEY, incarnation, stage, ((b"part/1", b"new"),))
        await write(
            backend, KEY, new_incarnation=incarnation, puts=((b"a", b"new"),), labels=("l",)
        )
        await write(backend, KEY, appends=(Append(LOG, (b"new",)),))

        async def look() -> None:
            check_lapses(raw, KEY)
            assert len(await read_values(backend, KEY)) == 2

        assert await until_done(sweeper, writes, look) > 1
        await write(backend, KEY, stages=(stage,))
        expected = {b"a": b"new", append_key(LOG, 2, 0): b"new", b"part/1": b"new"}
        assert await read_values(backend, KEY) == expected
        assert raw.items(KEY) == expected
        assert await list_ids(backend, KEY, label="l") == [KEY.id]
        for commit in commits:
            assert (await backend.commit(KEY, resent(commit))).replayed
        check_lapses(raw, KEY)
        await backend.delete(KEY, id=new_id())


async def test_nothing_is_left_when_all_has_lapsed(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    await live_a_life(backend, incarnation=new_id())
    await backend.delete(KEY, id=new_id())
    await live_a_life(backend, incarnation=new_id())
    await write(backend, KEY, expires_in=1000)
    clock.advance(2000)
    await live_a_life(backend, incarnation=new_id())
    await write(backend, KEY, expires_in=1000)
    clock.advance(2000)
    sweeper = visit()
    sweeper.client.page = 2
    for pause in (0, LAPSE, LAPSE, LAPSE):
        clock.advance(pause)
        await until_done(sweeper, 3)
    assert raw.rows() == []


async def test_sweeps_at_once_do_not_harm_one_another(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    sweepers = [visit() for _ in range(3)]
    await live_a_life(backend, incarnation=new_id())
    await visit().delete_and_die(KEY)
    await live_a_life(backend, incarnation=new_id())
    await visit().commit_and_die(KEY, new_commit(deletes=(KeyRange(b""),), expires_in=10_000))
    await asyncio.gather(*(sweeper.sweep_all() for sweeper in sweepers))
    assert list(raw.items(KEY).values()) == [b"3"], "but for the part that waits"
    clock.advance(10_000)
    await asyncio.gather(*(sweeper.sweep_all() for sweeper in sweepers))
    assert raw.items(KEY) == {}
    check_lapses(raw, KEY)
    for _ in range(3):
        clock.advance(LAPSE)
        await asyncio.gather(*(sweeper.sweep_all() for sweeper in sweepers))
    assert raw.rows() == []


async def test_the_last_slot_lapses_after_all_lives_before_it_were_purged(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    last: Due | None = None
    for _ in range(3):
        await live_a_life(backend, incarnation=new_id())
        last = await visit().delete_and_die(KEY)
    assert last is not None
    purger = visit()
    for _ in range(100):
        purger.client.writes_left = 3
        try:
            await purge.life(purger.table, last)
            break
        except Unavailable:
            check_lapses(raw, KEY)
    assert raw.items(KEY) == {}
    assert all("x" in row for row in raw.slots(KEY))


async def test_the_last_slot_waits_for_a_write_that_failed(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    await live_a_life(backend, incarnation=new_id())
    last = await visit().delete_and_die(KEY)
    purger = visit()

    async def fail() -> None:
        raise Unavailable("throttled for too long")

    purger.client.interludes["PutItem"] = fail
    with pytest.raises(Unavailable):
        await purge.life(purger.table, last)
    assert "x" not in raw.slots(KEY)[-1]
    await purge.life(purger.table, last)
    assert all("x" in row for row in raw.slots(KEY))


async def test_a_purge_of_long_ago_spares_a_key_that_begins_anew(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    incarnation = new_id()
    await live_a_life(backend, incarnation=incarnation)
    task = await visit().delete_and_die(KEY)
    sweeper = visit()
    await sweeper.sweep_all()
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    assert raw.session(KEY) == []
    await live_a_life(backend, incarnation=incarnation)
    for n in range(5):
        await write(backend, KEY, appends=(Append(LOG, (b"%d" % n,)),))
    before = await read_values(backend, KEY)
    await sweeper.table.put(task.filed())
    await sweeper.sweep_all()
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    assert await read_values(backend, KEY) == before
    check_lapses(raw, KEY)


async def test_a_purge_that_slept_for_days_spares_a_key_that_began_anew(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    await live_a_life(backend, incarnation=new_id())
    task = await visit().delete_and_die(KEY)
    sleeper, sweeper = visit(), visit()

    async def sleep() -> None:
        await sweeper.sweep_all()
        clock.advance(LAPSE)
        await sweeper.sweep_all()
        assert raw.slots(KEY) == []
        await live_a_life(backend, incarnation=new_id())

    sleeper.client.page = 2
    sleeper.client.interludes["PutItem"] = sleep
    await purge.life(sleeper.table, task)
    check_lapses(raw, KEY)
    assert len(await read_values(backend, KEY)) == 10


async def test_items_that_showed_too_late_for_the_purge_go_with_the_stubs(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    incarnation = new_id()
    await live_a_life(backend, incarnation=incarnation)
    task = await visit().delete_and_die(KEY)
    sweeper = visit()
    await sweeper.sweep_all()
    await write(backend, KEY, new_incarnation=incarnation, puts=((b"new", b"1"),))
    partition = keys.session(KEY)
    late = rows.put_item(partition, incarnation, b"late", b"1", 3, task.last - 1)
    await sweeper.table.put(late)
    assert await read_values(backend, KEY) == {b"new": b"1"}
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    assert raw.items(KEY) == {b"new": b"1"}
    assert await read_values(backend, KEY) == {b"new": b"1"}

    await backend.delete(KEY, id=new_id())
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    assert raw.session(KEY) == []
    await write(backend, KEY, new_incarnation=incarnation, puts=((b"anew", b"1"),))
    await sweeper.table.put(replace(task, what=What.LAPSE).filed())
    await sweeper.sweep_all()
    assert await read_values(backend, KEY) == {b"anew": b"1"}


async def test_what_is_due_waits_for_the_commit_to_show(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    await write(backend, KEY, puts=((b"a", b"1"),))
    sweeper = visit()
    session = KEY.encode()
    for what in (What.LIFE, What.EXPIRE):  # of a transaction whose slot does not show yet
        task = Due(
            what=what, at=clock(), session=session, incarnation=bytes(16), first=2, last=2
        )
        await sweeper.table.put(task.filed())
        assert await sweeper.sweep() == 0
        assert len(raw.rows(b"d")) == 1
        clock.advance(SETTLING_MS + 1)
        assert await sweeper.sweep() == 1
        clock.advance(LAPSE)
        await sweeper.sweep_all()
        assert raw.rows(b"d") == []
    assert await read_values(backend, KEY) == {b"a": b"1"}


async def test_parts_on_their_way_when_a_life_ends_are_found(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    incarnation = new_id()
    adopted, waiting = new_id(), new_id()
    for stage in (adopted, waiting):
        await backend.stage(KEY, incarnation, stage, ((b"part/1", b"1"),))
    await write(backend, KEY, new_incarnation=incarnation, stages=(adopted,))
    await backend.delete(KEY, id=new_id())
    sweeper = visit()
    await sweeper.sweep_all()
    for stage in (adopted, waiting):
        for part in (b"part/1", b"part/2"):
            late = rows.put_staged(keys.session(KEY), incarnation, part, stage, b"late")
            await sweeper.table.put(late)
    await write(backend, KEY, new_incarnation=incarnation)
    assert await read_values(backend, KEY) == {}
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    assert raw.items(KEY) == {}
    assert (await read_head(backend, KEY)).version == 1


async def test_a_stage_goes_whole_or_is_committed_whole(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    made = await write(backend, KEY)
    given_up, taken = new_id(), new_id()
    for stage, part in ((given_up, b"part/1"), (taken, b"part/2")):
        await backend.stage(KEY, made.incarnation, stage, ((part, b"1"), (part + b"+", b"2")))
    clock.advance(STAGE_MS + DAY)
    sweeper = visit()

    async def commit() -> None:
        await write(backend, KEY, stages=(taken,))

    sweeper.client.interludes["UpdateItem"] = commit
    assert await until_done(sweeper, 2) > 1
    expected = {b"part/2": b"1", b"part/2+": b"2"}
    assert await read_values(backend, KEY) == expected
    assert raw.items(KEY) == expected
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    assert await read_values(backend, KEY) == expected


async def test_a_late_part_of_a_stage_given_up_is_found(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, clock: TestClock
) -> None:
    made = await write(backend, KEY)
    stage = new_id()
    await backend.stage(KEY, made.incarnation, stage, ((b"part/1", b"1"),))
    clock.advance(STAGE_MS + DAY)
    sweeper = visit()
    await sweeper.sweep_all()
    partition = keys.session(KEY)
    late = rows.put_staged(partition, made.incarnation, b"part/2", stage, b"late")
    await sweeper.table.put(late)
    await write(backend, KEY)
    assert await read_values(backend, KEY) == {}
    clock.advance(LAPSE)
    await sweeper.sweep_all()
    assert raw.items(KEY) == {}
    assert (await read_head(backend, KEY)).version == 2
