"""What lists cost, and where their rows lie."""

from collections import Counter

from perdure.testing import TestClock
from perdure.testing.shorthand import list_ids, new_id, write
from perdure.types import ListQuery, Order, SessionKey

from perdure_dynamodb import listing, registry
from perdure_dynamodb.backend import DynamoDBBackend
from perdure_dynamodb.capacity import Consumption, measured
from tests.backends.dynamodb.conftest import Visit
from tests.backends.dynamodb.raw import Raw, partition

SHARDS = 8
MANY = 80


def key(id: str) -> SessionKey:
    return SessionKey.of("acme", "session", id)


def requests(cost: Consumption) -> dict[str, int]:
    return {name: consumed.requests for name, consumed in cost.operations.items()}


async def fill(backend: DynamoDBBackend, count: int, *, expires_in: int | None = None) -> None:
    for n in range(count):
        await write(backend, key(f"{n:04}"), labels=("l",), expires_in=expires_in)


async def test_a_page_costs_what_it_shows_however_many_sessions_there_are(
    backend: DynamoDBBackend,
) -> None:
    await fill(backend, MANY)
    for order in Order:
        for label in (None, "l"):
            query = ListQuery(limit=3, order=order, label=label)
            with measured() as cost:
                page = await backend.list("acme", "session", query)
            assert len(page.items) == 3
            assert requests(cost)["Query"] <= SHARDS + 3 + SHARDS
            assert cost.total.read_units <= 2 * (SHARDS + 3) + SHARDS


async def test_a_page_is_filled_past_sessions_that_have_expired(
    backend: DynamoDBBackend, clock: TestClock
) -> None:
    await fill(backend, 60, expires_in=1000)
    await write(backend, key("0030"), expires_in=1_000_000)
    for id in ("0100", "0101"):
        await write(backend, key(id))
    clock.advance(2000)
    page = await backend.list("acme", "session", ListQuery(limit=3))
    assert [entry.key.id for entry in page.items] == ["0030", "0100", "0101"]


async def test_the_sessions_of_a_tenant_are_spread(backend: DynamoDBBackend, raw: Raw) -> None:
    await fill(backend, MANY)
    for letter in b"irlm":
        rows = Counter(partition(row) for row in raw.rows(bytes((letter,))))
        assert len(rows) == SHARDS
        assert max(rows.values()) < 3 * MANY / SHARDS


async def test_a_session_is_listed_once_it_is_acknowledged(backend: DynamoDBBackend) -> None:
    assert backend.capabilities.list_lag == 0
    for n in range(10):
        await write(backend, key(str(n)), labels=("l",))
        for order in Order:
            assert len(await list_ids(backend, key("0"), order=order, label="l")) == n + 1


async def test_a_turn_writes_to_the_index_once_a_minute(
    backend: DynamoDBBackend, clock: TestClock
) -> None:
    made = await write(backend, key("a"), labels=("l",))
    with measured() as cost:
        for n in range(60):
            clock.advance(5_000)
            made = await write(
                backend, key("a"), incarnation=made.incarnation, base=n + 1, puts=((b"n", b""),)
            )
    assert cost.total.requests >= 60
    moved = cost.operations["TransactWriteItems"].write_units
    plain = 60 * 2 * 2  # the slot and the item of each commit
    assert moved == plain + 5 * 4 * 2, "five times two rows were moved"


async def test_names_are_registered_once_an_hour(
    backend: DynamoDBBackend, clock: TestClock
) -> None:
    def registrations(cost: Consumption) -> int:
        consumed = cost.operations.get("PutItem")
        return 0 if consumed is None else consumed.requests

    with measured() as first:
        await write(backend, key("a"))
    with measured() as second:
        await write(backend, key("b"))
    clock.advance(3_600_000)
    with measured() as third:
        await write(backend, key("c"))
    assert [registrations(cost) for cost in (first, second, third)] == [2, 0, 2]


async def test_names_without_sessions_are_forgotten_in_time(
    backend: DynamoDBBackend, clock: TestClock
) -> None:
    async def sweep() -> None:
        while await backend.sweep():
            pass

    other = SessionKey.of("acme", "other", "a")
    for session in (key("a"), key("b"), other):
        await write(backend, session)
    for session in (key("b"), other):
        await backend.delete(session, id=new_id())
    await sweep()
    assert (await backend.kinds("acme")).items == ("other", "session")
    clock.advance(26 * 3_600_000)
    await sweep()
    assert (await backend.kinds("acme")).items == ("session",)
    await backend.delete(key("a"), id=new_id())
    await sweep()
    assert (await backend.tenants()).items == ("acme",)
    clock.advance(26 * 3_600_000)
    await sweep()
    assert (await backend.kinds("acme")).items == ()
    assert (await backend.tenants()).items == ()


async def test_names_stay_while_a_session_may_be_on_its_way(
    backend: DynamoDBBackend, clock: TestClock
) -> None:
    await write(backend, key("a"))
    await backend.delete(key("a"), id=new_id())
    while await backend.sweep():
        pass
    clock.advance(26 * 3_600_000 - 1_800_000)
    await write(backend, key("b"))
    await backend.delete(key("b"), id=new_id())
    clock.advance(1_800_000)
    while await backend.sweep():
        pass
    with measured() as cost:
        await write(backend, key("c"))
    assert "PutItem" not in cost.operations, "registered half an hour ago"
    assert (await backend.tenants()).items == ("acme",)
    assert (await backend.kinds("acme")).items == ("session",)


async def test_names_registered_anew_while_they_are_forgotten_stay(
    backend: DynamoDBBackend, visit: Visit, clock: TestClock
) -> None:
    await write(backend, key("a"))
    await backend.delete(key("a"), id=new_id())
    clock.advance(26 * 3_600_000)
    sweeper = visit()

    async def create() -> None:
        await write(backend, key("b"))

    sweeper.client.interludes["DeleteItem"] = create
    await registry.forget(sweeper.table, "acme", "session")
    assert (await backend.kinds("acme")).items == ("session",)
    assert (await backend.tenants()).items == ("acme",)


async def test_pages_are_whole_though_those_of_the_table_are_not(
    backend: DynamoDBBackend, visit: Visit
) -> None:
    names = [f"{n:02}" for n in range(20)]
    for name in names:
        await write(backend, key(name), labels=("l",))
        await write(backend, SessionKey.of(name, "session", "s"))
        await write(backend, SessionKey.of("acme", name, "s"))
    visitor = visit()
    visitor.client.page = 2

    async def sessions(cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        query = ListQuery(label="l", cursor=cursor, limit=limit)
        page = await listing.sessions(
            visitor.table, visitor.chain.head, "acme", "session", query
        )
        return [entry.key.id for entry in page.items], page.cursor

    async def tenants(cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        page = await registry.tenants(visitor.table, cursor, limit)
        return list(page.items), page.cursor

    async def kinds(cursor: str | None, limit: int) -> tuple[list[str], str | None]:
        page = await registry.kinds(visitor.table, "acme", cursor, limit)
        return list(page.items), page.cursor

    for ask, expected in (
        (sessions, names),
        (tenants, [*names, "acme"]),
        (kinds, [*names, "session"]),
    ):
        for limit in (3, 100):
            found, cursor = await ask(None, limit)
            while cursor is not None:
                more, cursor = await ask(cursor, limit)
                assert len(more) <= limit
                found += more
            assert found == expected


async def test_the_longest_names_are_listed(backend: DynamoDBBackend) -> None:
    longest = SessionKey.of("t" * 512, "k" * 512, "i" * 512)
    await write(backend, longest, labels=("l" * 128,))
    for order in Order:
        assert await list_ids(backend, longest, order=order) == [longest.id]
        found = await list_ids(backend, longest, order=order, label="l" * 128)
        assert found == [longest.id]
    assert (await backend.tenants()).items == (longest.tenant,)
    assert (await backend.kinds(longest.tenant)).items == (longest.kind,)
