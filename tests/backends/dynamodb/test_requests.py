"""How many requests and capacity units an operation takes: no more as a session grows."""

import pytest

from perdure.testing import TestClock
from perdure.testing.shorthand import new_commit, read_head, write
from perdure.types import Append, Commit, Condition, Get, Head, KeyRange, Read, Scan, SessionKey

from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.capacity import Consumed, measured
from tests.backends.dynamodb.conftest import Fresh

KEY = SessionKey.of("acme", "session", "chat-7")
LOG, LOG_STOP = b"l\0", b"l\0\xff"
WHOLE = Scan(LOG, LOG_STOP)
KIB = 1024


def turn(head: Head | None, size: int = 100) -> Commit:
    """What a handle sends for ``append``."""
    return new_commit(
        incarnation=None if head is None else head.incarnation,
        base=0 if head is None else head.version,
        appends=(Append(LOG, (b"x" * size,)),),
    )


async def append_many(backend: DynamoDBBackend, times: int, size: int = 100) -> Head:
    head: Head | None = None
    for _ in range(times):
        head = (await backend.commit(KEY, turn(head, size))).head
    assert head is not None
    return head


async def read(backend: DynamoDBBackend, *reads: Read) -> tuple[Consumed, list[int]]:
    """What a read costs, and how many items each of its reads finds."""
    with measured() as cost:
        snapshot = await backend.read(KEY, *reads)
    return cost.total, [len(rows.items) for rows in snapshot.rows]


async def commit(backend: DynamoDBBackend, commit: Commit) -> dict[str, Consumed]:
    with measured() as cost:
        await backend.commit(KEY, commit)
    return cost.operations


@pytest.mark.parametrize("size", [0, 500, 3 * KIB, 100 * KIB, 340 * KIB])
async def test_a_turn_is_one_write_of_its_own_units_and_at_most_one_more(
    backend: DynamoDBBackend, size: int
) -> None:
    head = await append_many(backend, 70)
    cost = await commit(backend, turn(head, size))
    assert list(cost) == ["PutItem"]
    assert cost["PutItem"].requests == 1
    assert cost["PutItem"].write_units <= max(1, -(-size // KIB)) + 1


async def test_a_blind_append_by_who_has_not_met_the_session_reads_one_slot(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    await append_many(backend, 100, 3 * KIB)
    for _ in range(2):
        stranger = await fresh()
        cost = await commit(stranger, turn(None, 3 * KIB))
        assert {name: one.requests for name, one in cost.items()} == {"Query": 1, "PutItem": 1}
        assert cost["Query"].read_units <= 1
        assert cost["PutItem"].write_units == 4
        cost = await commit(stranger, turn(None, 3 * KIB))
        assert list(cost) == ["PutItem"], "nor is it met again"


async def test_a_log_is_loaded_in_one_request_a_page_with_its_head(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    await append_many(backend, 30, 3 * KIB)
    cost, found = await read(await fresh(), WHOLE)
    assert (cost.requests, found) == (1, [30])
    for _ in range(6):
        head = await read_head(backend, KEY)
        await backend.commit(KEY, turn(head, 300 * KIB))
    cost, found = await read(await fresh(), WHOLE)
    assert (cost.requests, found) == (2, [36]), "two pages of 1 MB"


async def test_the_end_of_a_long_log_is_one_request_of_its_own_size(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    head = await append_many(backend, 200, KIB)
    cost, found = await read(await fresh(), Scan(LOG, LOG_STOP, limit=20, reverse=True))
    assert (cost.requests, found) == (1, [20])
    assert cost.read_units <= 8
    await backend.commit(KEY, turn(head))
    cost, found = await read(backend, Scan(LOG, LOG_STOP, since=head.version))
    assert (cost.requests, found) == (1, [1])
    assert cost.read_units <= 1
    cost, found = await read(backend, Scan(LOG, LOG_STOP, since=head.version + 1))
    assert (cost.requests, found) == (1, [0])


async def test_a_cell_takes_two_requests_and_the_log_with_it_no_more(
    backend: DynamoDBBackend, fresh: Fresh, clock: TestClock
) -> None:
    await append_many(backend, 10)
    await write(backend, KEY, puts=((b"c1", b"x"), (b"c2", b"y")))
    cost, found = await read(backend, Get(b"c1"))
    assert (cost.requests, found) == (2, [1])
    cost, found = await read(backend, WHOLE, Get(b"c1"), Scan(b"c", b"d"))
    assert (cost.requests, found) == (3, [10, 1, 2])
    cost, _ = await read(await fresh(), Get(b"c1"))
    assert cost.requests <= 5, "others look whether the rows show what the slots do"
    clock.advance(10_000)
    cost, _ = await read(await fresh(), Get(b"c1"))
    assert cost.requests == 3, "but not for long"
    cost, _ = await read(backend)
    assert cost.requests == 1


async def test_several_items_together_cost_twice_their_sum(backend: DynamoDBBackend) -> None:
    head = await append_many(backend, 3)
    puts = tuple((b"c%d" % n, b"x" * 2000) for n in range(5))
    together = turn(head, 3 * KIB)
    together = new_commit(
        incarnation=head.incarnation, base=3, puts=puts, appends=together.appends
    )
    cost = await commit(backend, together)
    assert list(cost) == ["TransactWriteItems"]
    assert cost["TransactWriteItems"].requests == 1
    alone = 4 + 5 * 3  # units of the slot, and of each row
    assert cost["TransactWriteItems"].write_units <= 2 * alone


async def test_removing_a_cell_is_one_transaction_and_leaves_nothing_to_be_done(
    backend: DynamoDBBackend,
) -> None:
    await append_many(backend, 2)
    made = await write(backend, KEY, puts=((b"c1", b"x"), (b"c2", b"x")))
    gone = new_commit(incarnation=made.incarnation, base=3, deletes=(b"c1", b"c9"))
    cost = await commit(backend, gone)
    assert list(cost) == ["TransactWriteItems"]
    assert await backend.sweep() == 0
    cost, found = await read(backend, Scan(b"c", b"d"))
    assert found == [1]


async def test_conditions_are_judged_by_one_read_of_each_key(backend: DynamoDBBackend) -> None:
    await append_many(backend, 2)
    made = await write(backend, KEY, puts=((b"c1", b"x"),))
    given = new_commit(
        incarnation=made.incarnation,
        base=made.version,
        conditions=(Condition(b"c1", 3), Condition(b"c2", 0)),
        appends=(Append(LOG, (b"x",)),),
    )
    cost = await commit(backend, given)
    assert {name: one.requests for name, one in cost.items()} == {
        "Query": 2,
        "TransactWriteItems": 1,
    }


async def test_nothing_grows_with_the_number_of_turns(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    costs: list[tuple[object, ...]] = []
    head: Head | None = None
    for turns in (100, 400):
        while head is None or head.version < turns:
            head = (await backend.commit(KEY, turn(head))).head
        made = await commit(backend, turn(head))
        head = await read_head(backend, KEY)
        tail, _ = await read(await fresh(), Scan(LOG, LOG_STOP, limit=20, reverse=True))
        costs.append((made["PutItem"], tail))
    assert costs[0] == costs[1]


async def test_a_resend_of_what_was_applied_last_reads_the_newest_slot_alone(
    backend: DynamoDBBackend, fresh: Fresh
) -> None:
    head = await append_many(backend, 50)
    sent = turn(head)
    await backend.commit(KEY, sent)
    again = new_commit(
        id=sent.id, digest=sent.digest, incarnation=sent.incarnation, base=50, resend=True
    )
    cost = await commit(await fresh(), again)
    assert {name: one.requests for name, one in cost.items()} == {"Query": 1}


async def test_many_deletions_are_done_before_they_are_carried_on(
    backend: DynamoDBBackend,
) -> None:
    await append_many(backend, 2)
    head = await read_head(backend, KEY)
    for n in range(40):
        deletes = tuple(
            KeyRange(b"c%02d/%02d" % (n, k), b"c%02d/%02d~" % (n, k)) for k in range(10)
        )
        made = await write(
            backend,
            KEY,
            incarnation=head.incarnation,
            base=head.version,
            deletes=deletes,
            appends=(Append(LOG, (b"x",)),),
        )
        assert made.head is not None
        head = made.head
    with measured() as cost:
        await backend.commit(KEY, turn(head))
    assert cost.operations["PutItem"].write_units <= 2
