"""Slots: each is taken once, by whoever was first, and nobody acts on an old one."""

import asyncio

import pytest

from perdure.errors import Conflict, SessionDeleted, StageMissing
from perdure.testing import TestClock
from perdure.testing.shorthand import (
    new_commit,
    new_id,
    read_head,
    read_items,
    read_values,
    resent,
    write,
)
from perdure.types import (
    Append,
    At,
    Condition,
    Expect,
    Get,
    KeyRange,
    Restored,
    Scan,
    SessionKey,
    append_key,
)

from perdure_dynamodb import keys, rows
from perdure_dynamodb.actions import Delete, Put
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.settings import Settings
from perdure_dynamodb.state import Kind
from perdure_dynamodb.table import Table
from tests.backends.dynamodb.conftest import Fresh, Visit
from tests.backends.dynamodb.raw import Raw

KEY = SessionKey.of("acme", "session", "chat-7")
LOG = b"l\0"
WHOLE = Scan(LOG, b"l\0\xff")
HOUR = 3_600_000


def entry(value: bytes) -> tuple[Append, ...]:
    return (Append(LOG, (value,)),)


async def log(backend: DynamoDBBackend) -> list[bytes]:
    (found,) = (await backend.read(KEY, WHOLE)).rows
    return [item.value for item in found.items]


@pytest.mark.parametrize("hours", [0, 0.5, 2, 30, 60])
@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("remade", [False, True])
async def test_a_writer_who_slept_through_a_delete_is_told(
    backend: DynamoDBBackend,
    fresh: Fresh,
    clock: TestClock,
    hours: float,
    swept: bool,
    remade: bool,
) -> None:
    """It remembers a state whose next slot was free when it fell asleep."""
    late = await fresh()
    made = await write(late, KEY, appends=entry(b"1"))
    await backend.delete(KEY, id=new_id())
    for _ in range(2):
        while swept and await backend.sweep():
            pass
        clock.advance(round(hours * HOUR))
    while swept and await backend.sweep():
        pass
    if remade:
        await write(backend, KEY, appends=entry(b"new"))
    for writer in (late, await fresh()):
        with pytest.raises(SessionDeleted):
            await write(
                writer, KEY, incarnation=made.incarnation, base=1, appends=entry(b"late")
            )
    assert await log(backend) == ([b"new"] if remade else [])


async def test_what_was_remembered_refuses_nobody(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    """Each of these would be refused by what the other client remembers."""
    other = await fresh()
    await backend.delete(KEY, id=new_id())
    first = await write(other, KEY, puts=((b"a", b"1"),))
    await read_head(backend, KEY)
    second = await write(other, KEY, puts=((b"a", b"2"),))
    assert second.head is not None
    at = At(2, second.head.tip)
    third = await write(backend, KEY, expect=at, conditions=(Condition(b"a", 2),))
    assert third.version == 3
    await other.delete(KEY, id=new_id())
    again = await write(backend, KEY, expect=Expect.ABSENT)
    assert again.incarnation != first.incarnation
    await write(other, KEY, expires_in=1000)
    with pytest.raises(Conflict):
        await write(backend, KEY, expect=Expect.ABSENT)
    assert (await read_head(backend, KEY)).version == 2


async def test_a_condition_holds_when_the_commit_is_applied_and_not_before(
    backend: DynamoDBBackend, visit: Visit, settings: Settings, clock: TestClock
) -> None:
    """Who finds a row as it was before a transaction that shows in part overwrites nothing."""
    made = await write(backend, KEY, puts=((b"a", b"1"), (b"b", b"1")))
    table = Table(settings, clock)
    place = keys.session(KEY), keys.item(made.incarnation, b"a")
    before = await table.get(*place)
    await write(backend, KEY, puts=((b"a", b"2"),))
    after = await table.get(*place)
    assert before is not None
    assert after is not None
    for commit in (
        new_commit(conditions=(Condition(b"a", 1),), puts=((b"a", b"3"),)),
        new_commit(conditions=(Condition(b"a", 1),), deletes=(b"a",)),
        new_commit(conditions=(Condition(b"a", 1),), appends=entry(b"x")),
    ):
        await table.put(Put(before))  # as a read may find it still
        visitor = visit()
        transact = "TransactWriteItems"
        visitor.client.interludes[transact] = lambda: table.put(Put(after))
        with pytest.raises(Conflict):
            await visitor.commit(KEY, commit)
    assert await read_values(backend, KEY) == {b"a": b"2", b"b": b"1"}
    await table.aclose()


async def test_a_reader_waits_for_rows_whose_slot_shows_already(
    backend: DynamoDBBackend, fresh: Fresh, settings: Settings, clock: TestClock
) -> None:
    table = Table(settings, clock)
    incarnation = new_id()
    stage = new_id()
    await backend.stage(KEY, incarnation, stage, ((b"p", b"staged"),))
    await write(
        backend,
        KEY,
        new_incarnation=incarnation,
        puts=((b"a", b"1"), (b"b", b"1"), (b"c", b"1")),
    )
    partition = keys.session(KEY)
    places = [
        (partition, keys.item(incarnation, b"a")),
        (partition, keys.item(incarnation, b"b")),
        (partition, keys.stage(incarnation, stage)),
    ]
    before = [await table.get(*place) for place in places]
    await write(backend, KEY, puts=((b"a", b"2"),), deletes=(b"b",), stages=(stage,))
    after = [await table.get(*place) for place in places]
    assert after[1] is None
    expected = {b"a": b"2", b"c": b"1", b"p": b"staged"}
    for number, row in enumerate(before):
        assert row is not None
        await table.put(Put(row))  # as if the transaction were being applied
        reading = asyncio.create_task(read_values(await fresh(), KEY))
        done, _ = await asyncio.wait({reading}, timeout=0.1)
        assert not done, "it is neither as before nor as after"
        now = after[number]
        if now is not None:
            await table.put(Put(now))
        else:
            await table.delete(Delete(*places[number]))
        assert await reading == expected
    await table.aclose()


async def test_versions_jump_and_slots_do_not(backend: DynamoDBBackend, fresh: Fresh) -> None:
    """A copy brought up to date: what is read by version lies in slots of another number."""
    made = await write(backend, KEY, appends=entry(b"1"))
    for n in (2, 3):
        await write(backend, KEY, appends=entry(b"%d" % n))
    versions = [1, 2, 3]
    for version in (10, 50):
        head = await read_head(backend, KEY)
        await write(
            backend,
            KEY,
            expect=At(head.version, head.tip),
            restored=Restored(version, 1, 2),
            appends=entry(b"%d" % version),
        )
        await write(backend, KEY, appends=entry(b"%d" % (version + 1)))
        versions += [version, version + 1]
    for reader in (backend, await fresh()):
        for since in (0, 1, 2, 3, 4, 9, 10, 11, 30, 49, 50, 51, 60):
            for reverse in (False, True):
                scan = Scan(LOG, b"l\0\xff", since=since, reverse=reverse)
                (found,) = (await reader.read(KEY, scan)).rows
                expected = [b"%d" % v for v in versions if v > since]
                assert [item.value for item in found.items] == expected[:: -1 if reverse else 1]
                assert all(item.value == b"%d" % item.version for item in found.items)
        for version in (*versions, 4, 9, 12, 52):
            (found,) = (await reader.read(KEY, Get(append_key(LOG, version, 0)))).rows
            assert [item.version for item in found.items] == [version] * (version in versions)
            start, stop = LOG + version.to_bytes(8, "big"), append_key(LOG, version, 1)
            for scan in (Scan(start, b"l\1"), Scan(LOG, start), Scan(LOG, stop, limit=3)):
                (found,) = (await reader.read(KEY, scan)).rows
                wanted = [
                    v
                    for v in versions
                    if scan.start <= append_key(LOG, v, 0)
                    and (scan.stop is None or append_key(LOG, v, 0) < scan.stop)
                ]
                assert [item.version for item in found.items] == wanted[: scan.limit]
    assert (await read_head(backend, KEY)).incarnation == made.incarnation


async def test_log_rows_of_their_own_and_riding_values_are_one_log(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    stage = new_id()
    first = await write(backend, KEY, puts=((append_key(LOG, 1, 5), b"before"),))
    await write(backend, KEY, appends=entry(b"2"))
    await write(backend, KEY, appends=(Append(LOG, (b"3" * 200_000, b"3" * 200_000)),))
    await write(backend, KEY, puts=((append_key(LOG, 2, 0), b"two"),))
    await backend.stage(KEY, first.incarnation, stage, ((append_key(LOG, 5, 0), b"5"),))
    await write(backend, KEY, stages=(stage,), appends=(Append(b"other", (b"x",)),))
    await write(backend, KEY, appends=entry(b"6"))
    await write(backend, KEY, deletes=(append_key(LOG, 1, 5), append_key(LOG, 3, 0)))
    expected = [b"two", b"3" * 200_000, b"5", b"6"]
    for reader in (backend, await fresh()):
        assert await log(reader) == expected
        backwards = Scan(LOG, b"l\0\xff", reverse=True, limit=2)
        (found,) = (await reader.read(KEY, backwards)).rows
        assert ([item.value for item in found.items], found.more) == ([b"6", b"5"], True)
        assert len(await read_items(reader, KEY)) == 5


async def test_a_log_that_begins_late_finds_the_rows_under_its_prefix(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    for restart in (False, True):
        key = SessionKey.of("acme", "session", str(restart))
        await write(backend, key, puts=((LOG + b"x", b"early"),))
        writer = await fresh() if restart else backend
        await write(writer, key, appends=entry(b"late"))
        (found,) = (await (await fresh()).read(key, WHOLE)).rows
        assert sorted(item.value for item in found.items) == [b"early", b"late"]


async def test_a_stage_swept_or_adopted_elsewhere_is_missing(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    other = await fresh()
    made = await write(backend, KEY)
    stage = new_id()
    await backend.stage(KEY, made.incarnation, stage, ((b"a", b"1"),))
    commit = new_commit(stages=(stage,))
    await other.commit(KEY, commit)
    with pytest.raises(StageMissing):
        await write(backend, KEY, stages=(stage,))
    assert (await backend.commit(KEY, resent(commit))).replayed
    assert await read_values(backend, KEY) == {b"a": b"1"}


async def test_readers_see_all_or_nothing_while_a_long_log_is_deleted_and_purged(
    backend: DynamoDBBackend, fresh: Fresh, visit: Visit
) -> None:
    reader, sweeper = await fresh(), visit()
    sizes: set[int] = set()
    for life in range(3):
        for n in range(12):
            await write(backend, KEY, appends=entry(b"%d/%d" % (life, n) + b"x" * 100_000))

        async def read_on() -> None:
            while True:
                for scan in (WHOLE, Scan(LOG, b"l\0\xff", reverse=True)):
                    (found,) = (await reader.read(KEY, scan)).rows
                    sizes.add(len(found.items))

        reading = asyncio.create_task(read_on())
        await asyncio.sleep(0.05)
        if life == 1:
            await write(backend, KEY, deletes=(KeyRange(LOG, b"l\1"),))
        else:
            await backend.delete(KEY, id=new_id())
        await sweeper.sweep_all()
        await asyncio.sleep(0.05)
        assert not reading.done()
        reading.cancel()
        await backend.delete(KEY, id=new_id())
    assert sizes == {0, 12}


async def test_a_stub_is_never_the_newest_state_of_a_session(
    backend: DynamoDBBackend, fresh: Fresh, settings: Settings, clock: TestClock, raw: Raw
) -> None:
    """Time to live removes rows in any order: the seal may go before the slots below it."""
    await write(backend, KEY, appends=entry(b"1"))
    await write(backend, KEY, appends=entry(b"2"))
    await backend.delete(KEY, id=new_id())
    while await backend.sweep():
        pass
    slots = raw.slots(KEY)
    assert [rows.slot_of(row).state.kind for row in slots] == [Kind.STUB, Kind.STUB, Kind.SEAL]
    table = Table(settings, clock)
    await table.delete(Delete(keys.session(KEY), keys.slot(3)))
    other = await fresh()
    assert (await other.read(KEY, WHOLE)).head is None
    assert not await other.delete(KEY, id=new_id())
    assert (await write(other, KEY, expect=Expect.ABSENT)).version == 1
    await table.aclose()
