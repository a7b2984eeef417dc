"""What a turn takes: its own statements for its read and its commit, which judge and do what
those for everything else do."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psycopg
import pytest

from perdure.backend import TOMBSTONE_MS
from perdure.errors import Conflict, OutcomeUnknown, SessionDeleted
from perdure.testing.shorthand import (
    at,
    new_commit,
    new_id,
    read_head,
    read_items,
    read_values,
    resent,
    write,
    write_times,
)
from perdure.types import (
    NEVER,
    Append,
    At,
    Expect,
    Get,
    Item,
    Scan,
    SessionKey,
    append_key,
)

from perdure_postgres.backend import PostgresBackend
from perdure_postgres.reading import FEW, MAX_READ_BYTES
from perdure_postgres.settings import Settings
from perdure_postgres.statements import fill, read
from tests.backends.postgres.conftest import SCHEMA, Connect
from tests.backends.postgres.races import STATEMENTS, Other, by

Connection = psycopg.AsyncConnection[Any]

ONE = (Append(b"log", (b"one",)),)
SMALL = MAX_READ_BYTES // FEW


@pytest.fixture
async def other(
    connect: Connect, backend: PostgresBackend, settings: Settings
) -> AsyncIterator[Other]:
    """A backend that tells what it has sent."""
    del backend  # has made the tables
    conninfo = settings.connect_string(settings.conninfo, direct=True)
    async with await Connection.connect(conninfo, autocommit=True) as connection:
        other = Other(settings, connection)
        await other.open()
        other.database.sent.clear()
        yield other


def sent(other: Other) -> list[str]:
    """The names of the statements since it was asked last."""
    names = ("head", "read", "delta", "append", "plain", "lock", "commit")
    queries = {fill(" ".join(read(name).split()), SCHEMA)[0].encode(): name for name in names}
    found = [queries[query] for query in other.database.sent]
    other.database.sent.clear()
    return found


async def test_a_turn_is_a_delta_and_an_append(other: Other, key: SessionKey) -> None:
    await write(other, key)
    for expect in (Expect.ANY, Expect.PRESENT, None):
        head = await read_head(other, key)
        other.database.sent.clear()
        snapshot = await other.read(key, Scan(since=head.version))
        assert (snapshot.head, snapshot.rows[0].items) == (head, ())
        made = await write(
            other,
            key,
            incarnation=head.incarnation,
            base=head.version,
            expect=at(head) if expect is None else expect,
            appends=ONE,
        )
        (rows,) = (await other.read(key, Scan(since=head.version))).rows
        place = append_key(b"log", made.version, 0)
        assert list(rows.items) == [Item(place, b"one", made.version)]
        assert sent(other) == ["delta", "append", "delta"]


@STATEMENTS
async def test_a_commit_is_applied_by_the_statement_that_is_for_it(
    other: Other, key: SessionKey, statement: str
) -> None:
    made = await write(other, key)
    sent(other)
    fields = by(statement, made.incarnation)
    await write(other, key, **fields, appends=ONE)
    await write(other, key, **fields, appends=ONE)  # others have committed: the same
    assert sent(other) == [statement] * 2


@pytest.mark.parametrize(
    "more",
    [
        {"appends": (Append(b"log", (b"1", b"2")),)},
        {"appends": (Append(b"log", (b"1",)), Append(b"more", (b"2",)))},
        {"appends": ()},
        {"puts": ((b"a", b"1"),)},
        {"meta": b"meta"},
        {"meta": b""},
        {"labels": ("label",)},
        {"labels": ()},
        {"expires_at": NEVER},
        {"expires_in": 60_000},
    ],
    ids=str,
)
async def test_whatever_else_a_commit_says_is_heard(
    other: Other, key: SessionKey, more: dict[str, Any]
) -> None:
    """By the statement for it, though the commit may append one value as well."""
    first = await write(
        other, key, meta=b"old", labels=("old",), expires_in=100_000, puts=((b"a", b"0"),)
    )
    sent(other)
    fields: dict[str, Any] = {"appends": ONE} | more
    made = await write(other, key, incarnation=first.incarnation, base=1, **fields)
    assert sent(other) == ["plain"]
    head = made.head
    assert head is not None
    assert head == await read_head(other, key)
    assert head.meta == more.get("meta", b"old")
    assert head.labels == more.get("labels", ("old",))
    assert first.head is not None
    if "expires_in" in more:
        assert head.expires_at == made.now + 60_000
    else:
        assert head.expires_at == (None if "expires_at" in more else first.head.expires_at)
    expected = {b"a": b"1" if "puts" in more else b"0"}
    for append in fields["appends"]:
        for ordinal, value in enumerate(append.values):
            expected[append_key(append.prefix, 2, ordinal)] = value
    assert await read_values(other, key) == expected


async def rows_of(db: Connection, key: SessionKey) -> dict[str, list[tuple[Any, ...]]]:
    """All that is stored of a session but for its number and the times."""
    name = (key.tenant, key.kind, key.id)
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table, columns in (
        (
            "sessions",
            "version, first_version, incarnation, tip, resent_at, last_delete, "
            "expires_at, updated_at - recent_at < 60000, meta_version, meta, labels, "
            "bytes >= (SELECT sum(octet_length(value)) FROM items WHERE sid = sessions.sid)",
        ),
        ("commits", "slot, version, id, digest"),
        ("items", "key, version, value"),
    ):
        cursor = await db.execute(
            f"SELECT {columns} FROM {table} WHERE sid = (SELECT sid FROM sessions "
            "WHERE tenant = %s AND kind = %s AND id = %s) ORDER BY 1, 2".encode(),
            name,
        )
        found[table] = await cursor.fetchall()
    return found


@pytest.mark.parametrize("before", [0, 1, 100])
async def test_all_that_append_leaves_is_what_the_others_leave(
    backend: PostgresBackend, db: Connection, key: SessionKey, before: int
) -> None:
    """With no others in between, with one, and with so many that ids are overwritten."""
    create = new_commit(
        meta=b"meta", labels=("a", "b"), expires_at=1 << 50, puts=((b"a", b""),)
    )
    large = (Append(b"log", (bytes(1000),)),)
    commit = new_commit(incarnation=create.new_incarnation, base=1 + before, appends=large)
    others = [new_commit(deletes=(b"a",), puts=((b"a", b"%d" % n),)) for n in range(before)]
    commits = {
        "append": commit,
        "plain": msgspec.structs.replace(commit, expires_at=1 << 50),
        "commit": msgspec.structs.replace(commit, incarnation=None, base=0),
    }
    left: dict[str, Any] = {}
    for statement, last in commits.items():
        session = SessionKey(key.tenant, key.kind, statement)
        for each in (create, *others):
            await backend.commit(session, each)
        made = await backend.commit(session, last)
        assert made.head == await read_head(backend, session)
        left[statement] = await rows_of(db, session)
    assert left["append"] == left["plain"] == left["commit"]
    (head,) = left["append"]["sessions"]
    assert head[0] == 2 + before
    assert head[-1], "it may hold more than it says"


@STATEMENTS
async def test_what_lies_under_the_key_of_an_append_is_replaced(
    backend: PostgresBackend, key: SessionKey, statement: str
) -> None:
    place = append_key(b"log", 2, 0)
    made = await write(backend, key, puts=((place, b"before"),))
    await write(backend, key, **by(statement, made.incarnation), appends=ONE)
    assert await read_items(backend, key) == [Item(place, b"one", 2)]


@STATEMENTS
async def test_what_is_not_as_the_writer_has_seen_it_is_left_alone(
    backend: PostgresBackend, key: SessionKey, statement: str
) -> None:
    first = await write(backend, key)
    assert first.head is not None
    second = await write(backend, key)
    assert second.head is not None
    fields = by(statement, first.incarnation)
    for seen in (at(first.head), At(2, new_id()), At(3, second.head.tip)):
        with pytest.raises(Conflict) as refused:
            await write(backend, key, **fields, expect=seen, appends=ONE)
        assert refused.value.head == second.head
    with pytest.raises(SessionDeleted):
        await write(backend, key, incarnation=new_id(), base=2, appends=ONE)
    assert await read_items(backend, key) == []


@STATEMENTS
async def test_what_has_ended_is_left_alone(
    backend: PostgresBackend, db: Connection, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key, expires_in=60_000)
    fields = by(statement, made.incarnation) | {"incarnation": made.incarnation, "base": 1}
    await db.execute("UPDATE sessions SET expires_at = 1 WHERE tenant = %s", (key.tenant,))
    with pytest.raises(SessionDeleted):
        await backend.commit(key, new_commit(**fields, appends=ONE))
    await backend.delete(key, id=new_id(), expect=Expect.ANY)
    await backend.sweep()
    with pytest.raises(SessionDeleted):
        await backend.commit(key, new_commit(**fields, appends=ONE))
    again = await write(backend, key)
    await backend.delete(key, id=new_id())
    with pytest.raises(SessionDeleted):
        await backend.commit(
            key,
            new_commit(**fields | {"incarnation": again.incarnation}, appends=ONE),
        )
    assert (await backend.read(key)).head is None


@STATEMENTS
async def test_a_first_sending_that_its_resend_overtook_is_not_applied_again(
    backend: PostgresBackend, db: Connection, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key)
    fields = by(statement, made.incarnation)
    late = new_commit(**fields, seen=made.now, appends=ONE)
    await backend.commit(key, resent(late))
    await write_times(backend, key, 70)  # its id is forgotten
    for told in (0, made.now, made.now + TOMBSTONE_MS):  # the last by another clock
        with pytest.raises(OutcomeUnknown):
            await backend.commit(key, msgspec.structs.replace(late, seen=told))
    assert len(await read_items(backend, key)) == 2
    # Who began later is not one that was overtaken, and after a day nothing is on its way.
    later = await backend.read(key)
    assert (await write(backend, key, **fields, seen=later.now, appends=ONE)).version == 73
    await db.execute(
        "UPDATE sessions SET resent_at = resent_at - %s WHERE tenant = %s",
        (TOMBSTONE_MS, key.tenant),
    )
    assert (await write(backend, key, **fields, appends=ONE)).version == 74


@STATEMENTS
async def test_recency_moves_once_a_minute(
    backend: PostgresBackend, db: Connection, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key)
    fields = by(statement, made.incarnation)
    for age, moves in ((50_000, False), (70_000, True)):
        (before,) = await read_one(
            db,
            "UPDATE sessions SET recent_at = %s WHERE tenant = %s RETURNING recent_at",
            (made.now - age, key.tenant),
        )
        made = await write(backend, key, **fields, appends=ONE)
        text = "SELECT recent_at, updated_at FROM sessions WHERE tenant = %s"
        recent, updated = await read_one(db, text, (key.tenant,))
        assert recent == (updated if moves else before)
        assert updated == made.now


async def read_one(db: Connection, text: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    row = await (await db.execute(text.encode(), values)).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("count", "size"),
    [
        (0, 0),
        (1, 0),
        (FEW - 1, 1),
        (FEW, 1),
        (FEW + 1, 1),
        (1, SMALL),
        (1, SMALL + 1),
        (FEW - 1, 2 * SMALL),  # more than one read returns
    ],
)
async def test_a_delta_says_what_any_read_says(
    other: Other, key: SessionKey, count: int, size: int
) -> None:
    await write(other, key, meta=b"meta", labels=("a",), puts=((b"a", b"old"), (b"c", b"old")))
    values = (bytes(size),) * count
    for begin in range(0, count, 10):
        await write(other, key, appends=(Append(b"b", values[begin : begin + 10]),))
    scans = (Scan(since=1), Scan(b"b", b"c", since=2), Scan(b"a", b"b", since=1))
    for scan in scans:
        other.database.sent.clear()
        found = await other.read(key, scan)
        ways = sent(other)
        alike = await other.read(key, scan, Get(b"none"))
        assert sent(other) == ["read"]
        assert (found.head, found.rows) == (alike.head, alike.rows[:1])
        (rows,) = found.rows
        small = len(rows.items) < FEW and all(len(item.value) <= SMALL for item in rows.items)
        assert ways == (["delta"] if small else ["delta", "read"])


@pytest.mark.parametrize(
    "scan",
    [
        Scan(),
        Scan(since=1, reverse=True),
        Scan(since=1, limit=1),
        Scan(since=1, max_bytes=1),
    ],
    ids=str,
)
async def test_any_other_scan_is_no_delta(other: Other, key: SessionKey, scan: Scan) -> None:
    await write(other, key)
    await write(other, key, puts=((b"a", b"1"), (b"b", b"2")))
    other.database.sent.clear()
    (rows,) = (await other.read(key, scan)).rows
    assert sent(other) == ["read"]
    keys = [item.key for item in rows.items]
    if scan.limit is None and scan.max_bytes is None:
        assert keys == ([b"b", b"a"] if scan.reverse else [b"a", b"b"])
    else:
        assert (keys, rows.more) == ([b"a"], True)


async def test_a_delta_of_what_is_absent_is_empty(
    other: Other, db: Connection, key: SessionKey
) -> None:
    async def absent() -> bool:
        snapshot = await other.read(key, Scan(since=1))
        assert sent(other) == ["delta"]
        return snapshot.head is None and snapshot.rows[0].items == ()

    assert await absent()
    await write(other, key)
    await write(other, key, puts=((b"a", b"1"),))
    other.database.sent.clear()
    assert not await absent()
    await other.delete(key, id=new_id())
    other.database.sent.clear()
    assert await absent()
    await write(other, key)
    await db.execute("UPDATE sessions SET expires_at = 1 WHERE tenant = %s", (key.tenant,))
    other.database.sent.clear()
    assert await absent()


async def test_a_delta_shows_all_of_a_commit_or_nothing(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    made = await write(backend, key)
    async with other.transaction():
        await write(other, key, incarnation=made.incarnation, base=1, appends=ONE)
        before = await backend.read(key, Scan(since=1))
        assert (before.head, before.rows[0].items) == (made.head, ())
    after = await backend.read(key, Scan(since=1))
    assert after.head == await read_head(backend, key) != made.head
    assert [item.value for item in after.rows[0].items] == [b"one"]
