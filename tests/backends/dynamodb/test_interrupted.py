"""Whatever others do between two requests of an operation, it is as if it were one."""

from collections.abc import Awaitable, Callable

import pytest

from perdure.errors import Conflict
from perdure.testing import TestClock
from perdure.testing.shorthand import (
    new_commit,
    new_id,
    write,
)
from perdure.types import (
    Append,
    Condition,
    Get,
    KeyRange,
    Scan,
    SessionKey,
    append_key,
)

from perdure_dynamodb import keys, tombs
from perdure_dynamodb.actions import Delete, Put
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.reading import Reader
from perdure_dynamodb.settings import Settings
from perdure_dynamodb.table import Table
from tests.backends.dynamodb.conftest import Fresh, Visit
from tests.backends.dynamodb.raw import Raw
from tests.backends.dynamodb.visitors import Visitor

KEY = SessionKey.of("acme", "session", "chat-7")
LOG = b"l\0"
WHOLE = Scan(LOG, b"l\0\xff")
HOUR = 3_600_000


def entry(value: bytes) -> tuple[Append, ...]:
    return (Append(LOG, (value,)),)


async def log(backend: DynamoDBBackend) -> list[bytes]:
    (found,) = (await backend.read(KEY, WHOLE)).rows
    return [item.value for item in found.items]


class Interrupted:
    """A reader between whose requests others do something, and whose pages are short."""

    def __init__(self, visitor: Visitor, page: int) -> None:
        self.client = visitor.client
        self.client.page = page
        self.reader = Reader(visitor.chain)

    async def read(
        self, scan: Scan, after: int, others: Callable[[], Awaitable[object]]
    ) -> list[bytes] | None:
        """What a scan finds, ``None`` where there is no session, if ``others`` do something
        after so many of its requests."""
        left = after

        async def before_each() -> None:
            nonlocal left
            if left == 0:
                await others()
            else:
                left -= 1
                self.client.interludes["Query"] = before_each

        self.client.interludes["Query"] = before_each
        snapshot = await self.reader.read(KEY, (scan,))
        assert not self.client.interludes, "others came in between"
        if snapshot.head is None:
            return None
        return [item.value for item in snapshot.rows[0].items]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("what", ["purge", "drop", "delete", "lapse", "remake"])
@pytest.mark.parametrize("after", [1, 2, 3])
async def test_a_log_that_is_deleted_while_it_is_read_is_read_whole_or_not_at_all(
    backend: DynamoDBBackend,
    visit: Visit,
    clock: TestClock,
    known: bool,
    reverse: bool,
    what: str,
    after: int,
) -> None:
    for n in range(9):
        await write(backend, KEY, appends=entry(b"%d" % n))
    visitor = visit()
    if known:
        await visitor.chain.fetch(KEY)

    async def others() -> None:
        if what in ("purge", "drop"):
            await write(backend, KEY, deletes=(KeyRange(LOG, append_key(LOG, 8, 0)),))
            while await backend.sweep():
                pass
        else:
            await backend.delete(KEY, id=new_id())
            for _ in range(2 if what == "lapse" else 0):
                while await backend.sweep():
                    pass
                clock.advance(30 * HOUR)
        while what != "purge" and await backend.sweep():
            pass
        if what in ("drop", "remake"):
            await write(backend, KEY, appends=entry(b"new"))

    scan = Scan(LOG, b"l\0\xff", reverse=reverse)
    found = await Interrupted(visitor, page=2).read(scan, after, others)
    now = {
        "purge": [b"7", b"8"],
        "drop": [b"7", b"8", b"new"],
        "delete": None,
        "lapse": None,
        "remake": [b"new"],
    }[what]
    whole = [b"%d" % n for n in range(9)]
    if reverse and found is not None:
        found.reverse()
    assert found in (whole, now)


async def test_what_a_known_state_hides_stays_hidden_when_it_is_dropped_meanwhile(
    backend: DynamoDBBackend, visit: Visit
) -> None:
    for n in range(6):
        await write(backend, KEY, appends=entry(b"%d" % n))
    deletes = (KeyRange(LOG, append_key(LOG, 4, 0)),)
    await visit().commit_and_die(KEY, new_commit(deletes=deletes))
    visitor = visit()
    await visitor.chain.fetch(KEY)

    async def others() -> None:
        state = await visitor.chain.newest(KEY)
        assert state is not None
        assert state.tombs
        other = visit()
        await tombs.purge(other.table, KEY, state)
        other.chain.note_purged(KEY, state)
        await other.commit(KEY, new_commit(appends=entry(b"new")))

    found = await Interrupted(visitor, page=2).read(WHOLE, 1, others)
    assert found == [b"3", b"4", b"5", b"new"]


async def test_a_refusal_shows_the_session_as_the_refused_rows_were(
    backend: DynamoDBBackend, visit: Visit
) -> None:
    await write(backend, KEY, puts=((b"a", b"1"),))
    visitor = visit()
    queries = visitor.client.interludes

    async def others() -> None:
        await write(backend, KEY, puts=((b"a", b"2"),))

    async def first() -> None:
        queries["Query"] = others  # after the newest slot, before the row

    queries["Query"] = first
    with pytest.raises(Conflict) as caught:
        await visitor.commit(KEY, new_commit(conditions=(Condition(b"a", 1),)))
    assert caught.value.head is not None
    assert caught.value.head.version == 2


async def test_a_row_that_shows_late_is_in_the_log_that_began_meanwhile(
    backend: DynamoDBBackend, fresh: Fresh, settings: Settings, clock: TestClock
) -> None:
    table = Table(settings, clock)
    made = await write(backend, KEY, puts=((LOG + b"x", b"early"),))
    place = keys.session(KEY), keys.item(made.incarnation, LOG + b"x")
    row = await table.get(*place)
    assert row is not None
    await table.delete(Delete(*place))
    await write(await fresh(), KEY, appends=entry(b"late"))
    await table.put(Put(row))
    assert sorted(await log(await fresh())) == [b"early", b"late"]
    await table.aclose()


@pytest.mark.parametrize("hard", [False, True])
async def test_rows_changed_while_they_are_read_are_read_again(
    backend: DynamoDBBackend, visit: Visit, hard: bool
) -> None:
    """However often: then the changed rows are read at one instant with the newest slot."""
    filling = tuple((b"m%02d" % n, b"x") for n in range(20))
    await write(backend, KEY, puts=((b"a", b"0"), (b"z", b"0"), *filling), appends=entry(b"0"))
    visitor = visit()
    await visitor.chain.fetch(KEY)
    reader, times = Reader(visitor.chain), 0

    async def others() -> None:
        nonlocal times
        times += 1
        value = b"%d" % times
        if times % 3:
            puts = ((b"a", value), (b"z", value), (b"new" + value, value))
            await write(backend, KEY, puts=puts, appends=entry(value))
        else:
            await write(backend, KEY, deletes=(b"new1",), appends=entry(value))
            await write(backend, KEY, puts=((b"a", value), (b"z", value)), appends=entry(value))
        if hard or times == 1:
            visitor.client.interludes["Query"] = others

    visitor.client.interludes["Query"] = others
    reads = (Get(b"a"), Get(b"z"), Scan(), Scan(b"", b"zz", limit=3, reverse=True), WHOLE)
    snapshot = await reader.read(KEY, reads)
    assert snapshot.head is not None
    a, z, everything, last, whole = ([item.value for item in r.items] for r in snapshot.rows)
    (value,) = a
    assert a == z == whole[-1:] == last[:1]
    found = {item.key: item.value for item in snapshot.rows[2].items}
    expected = {b"new%d" % n: b"%d" % n for n in range(1, int(value) + 1) if n % 3}
    if int(value) >= 3:
        del expected[b"new1"]
    assert {k: v for k, v in found.items() if k.startswith(b"new")} == expected
    assert (found[b"a"], found[b"z"]) == (value, value)
    assert len(found) == 22 + len(expected) + len(whole)
    assert everything == list(found.values())
    assert times >= (3 if hard else 2)


async def test_a_log_that_gets_rows_of_its_own_meanwhile_is_read_with_them(
    backend: DynamoDBBackend, visit: Visit
) -> None:
    await write(backend, KEY, appends=entry(b"1"))
    visitor = visit()
    await visitor.chain.fetch(KEY)
    entries = ((append_key(LOG, 1, 7), b"put"),)
    found = await Interrupted(visitor, page=5).read(
        WHOLE, 0, lambda: write(backend, KEY, puts=entries)
    )
    assert found == [b"1", b"put"]


@pytest.mark.parametrize("reverse", [False, True])
async def test_what_a_commit_puts_replaces_the_part_that_it_adopts(
    backend: DynamoDBBackend, reverse: bool
) -> None:
    stage, made = new_id(), await write(backend, KEY)
    await backend.stage(KEY, made.incarnation, stage, ((b"a", b"part"),))
    await write(backend, KEY, stages=(stage,), puts=((b"a", b"put"),))
    (found,) = (await backend.read(KEY, Scan(reverse=reverse))).rows
    assert [item.value for item in found.items] == [b"put"]


async def test_a_creation_does_not_follow_on_a_slot_that_lapses_meanwhile(
    backend: DynamoDBBackend, fresh: Fresh, visit: Visit, clock: TestClock, raw: Raw
) -> None:
    """The slots of the key are counted from 1 again then."""
    await write(backend, KEY, appends=entry(b"old"))
    await backend.delete(KEY, id=new_id())
    while await backend.sweep():
        pass
    clock.advance(24 * HOUR + HOUR // 2)
    visitor = visit()

    async def others() -> None:
        clock.advance(3 * HOUR)
        while await backend.sweep():
            pass
        assert raw.slots(KEY) == []
        await write(await fresh(), KEY, appends=entry(b"1"))

    visitor.client.interludes["TransactWriteItems"] = others
    made = await visitor.commit(KEY, new_commit(appends=entry(b"2")))
    assert made.version == 2
    assert await log(await fresh()) == [b"1", b"2"]
