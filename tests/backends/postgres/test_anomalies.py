"""Right under READ COMMITTED: a statement that waited for a lock goes on with that row as it is
now, and with everything else as it was when the statement began. Here another client has always
written when ours begins, and commits while ours waits."""

import asyncio
from typing import Any

import psycopg
import pytest

from perdure.backend import STAGE_MS
from perdure.errors import CommitIdReused, Conflict, SessionDeleted, StageMissing
from perdure.testing.shorthand import (
    at,
    list_ids,
    new_commit,
    new_id,
    other_content,
    read_head,
    read_items,
    read_values,
    resent,
    write,
)
from perdure.types import (
    Append,
    Commit,
    Condition,
    Expect,
    Item,
    KeyRange,
    Scan,
    SessionKey,
    append_key,
)

from perdure_postgres import operations
from perdure_postgres.backend import PostgresBackend
from perdure_postgres.settings import Settings
from tests.backends.postgres.conftest import Connect
from tests.backends.postgres.races import STATEMENTS, Other, by

ONCE = (Append(b"log", (b"once",)),)


@pytest.fixture
async def other(
    db: psycopg.AsyncConnection[Any], backend: PostgresBackend, settings: Settings
) -> Other:
    del backend  # has made the tables
    other = Other(settings, db)
    await other.open()
    return other


async def test_a_stale_lease_is_not_accepted(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    made = await write(backend, key, puts=((b"lease", b"mine"),))
    held = (Condition(b"lease", made.version),)
    async with other.transaction():
        taken = await write(other, key, conditions=held, puts=((b"lease", b"theirs"),))
        late = await other.begun(
            write(backend, key, conditions=held, puts=((b"work", b"late"),))
        )
    with pytest.raises(Conflict) as refused:
        await late
    assert refused.value.head == taken.head
    assert await read_values(backend, key) == {b"lease": b"theirs"}


async def test_a_condition_on_absence_sees_what_was_just_made(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    await write(backend, key)
    absent = (Condition(b"lease", 0),)
    async with other.transaction():
        await write(other, key, conditions=absent, puts=((b"lease", b"theirs"),))
        late = await other.begun(
            write(backend, key, conditions=absent, puts=((b"lease", b"mine"),))
        )
    with pytest.raises(Conflict):
        await late
    assert await read_values(backend, key) == {b"lease": b"theirs"}


async def test_a_range_delete_takes_what_was_just_written(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    await write(backend, key, puts=((b"a1", b"old"), (b"b", b"stays")))
    async with other.transaction():
        await write(other, key, puts=((b"a2", b"x"),), appends=(Append(b"a", (b"x",)),))
        cut = await other.begun(
            write(backend, key, deletes=(KeyRange(b"a", b"b"),), puts=((b"a3", b"new"),))
        )
    assert (await cut).version == 3
    assert await read_items(backend, key) == [Item(b"a3", b"new", 3), Item(b"b", b"stays", 1)]


@STATEMENTS
async def test_a_late_write_does_not_resurrect_what_is_being_deleted(
    backend: PostgresBackend, other: Other, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key, puts=((b"a", b"1"),))
    fields = by(statement, made.incarnation) | {"incarnation": made.incarnation}
    async with other.transaction():
        assert await other.delete(key, id=new_id())
        late = await other.begun(write(backend, key, **fields, appends=ONCE))
    with pytest.raises(SessionDeleted) as refused:
        await late
    assert refused.value.head is None
    assert (await backend.read(key)).head is None
    assert await list_ids(backend, key) == []


async def test_who_may_create_makes_the_successor_of_what_is_being_deleted(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    await write(backend, key, puts=((b"a", b"1"),))
    commit = new_commit(puts=((b"b", b"2"),))
    async with other.transaction():
        await other.delete(key, id=new_id())
        creating = await other.begun(backend.commit(key, commit))
    made = await creating
    assert (made.version, made.incarnation) == (1, commit.new_incarnation)
    assert await read_values(backend, key) == {b"b": b"2"}


@STATEMENTS
async def test_a_conflict_shows_the_head_that_is_in_the_way(
    backend: PostgresBackend, other: Other, key: SessionKey, statement: str
) -> None:
    first = await write(backend, key)
    assert first.head is not None
    async with other.transaction():
        made = await write(other, key, puts=((b"a", b"theirs"),))
        late = await other.begun(
            write(
                backend,
                key,
                **by(statement, first.incarnation),
                expect=at(first.head),
                appends=ONCE,
                returning=(Scan(),),
            )
        )
    with pytest.raises(Conflict) as refused:
        await late
    assert refused.value.head == made.head
    assert refused.value.now >= made.now
    assert [list(rows.items) for rows in refused.value.rows] == [[Item(b"a", b"theirs", 2)]]


@STATEMENTS
@pytest.mark.parametrize("stages", [(), (b"stage..........a",)])
async def test_time_does_not_run_backwards_for_who_waited(
    backend: PostgresBackend,
    other: Other,
    key: SessionKey,
    statement: str,
    stages: tuple[bytes, ...],
) -> None:
    first = await write(backend, key)
    for stage in stages:
        await backend.stage(key, first.incarnation, stage, ((b"part", b"1"),))
    async with other.transaction():
        await write(other, key)
        begun = await other.begun(
            write(backend, key, **by(statement, first.incarnation), stages=stages, appends=ONCE)
        )
        await asyncio.sleep(0.02)
        theirs = await write(other, key)
    ours = await begun
    assert theirs.head is not None
    assert ours.head is not None
    assert ours.now >= theirs.now
    assert ours.head.updated_at >= theirs.head.updated_at


async def test_time_goes_on_within_a_transaction(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    """Of a group of commits, the last may have waited long for the first."""
    async with other.transaction():
        first = await write(other, key)
        await asyncio.sleep(0.01)
        second = await write(other, key)
    assert second.now > first.now
    assert (await backend.read(key)).head == second.head


@STATEMENTS
async def test_appends_that_meet_are_all_kept(
    connect: Connect, backend: PostgresBackend, other: Other, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key)
    fields = by(statement, made.incarnation)
    async with other.transaction():
        first = await write(other, key, appends=(Append(b"log", (b"0",)),))
        others = [
            await other.begun(
                write(connect(), key, **fields, appends=(Append(b"log", (b"%d" % n,)),)), n
            )
            for n in (1, 2, 3)
        ]
    versions = [first.version, *[(await task).version for task in others]]
    assert versions[0] == 2
    assert sorted(versions) == [2, 3, 4, 5]
    assert await read_values(backend, key) == {
        append_key(b"log", version, 0): b"%d" % n for n, version in enumerate(versions)
    }


@STATEMENTS
@pytest.mark.parametrize("as_resend", [True, False])
async def test_a_commit_that_meets_itself_is_applied_once(
    backend: PostgresBackend, other: Other, key: SessionKey, statement: str, as_resend: bool
) -> None:
    """The connection broke, the server has not noticed yet, and the store sends it again."""
    made = await write(backend, key)
    commit = new_commit(**by(statement, made.incarnation), appends=ONCE)
    async with other.transaction():
        first = await other.commit(key, commit)
        again = await other.begun(backend.commit(key, resent(commit) if as_resend else commit))
        await write(other, key)
    second = await again
    assert (second.version, second.replayed) == (first.version, True)
    assert second.head == await read_head(backend, key)
    assert [item.value for item in await read_items(backend, key)] == [b"once"]


@STATEMENTS
async def test_another_commit_under_its_id_is_refused(
    backend: PostgresBackend, other: Other, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key)
    commit = new_commit(**by(statement, made.incarnation), appends=ONCE)
    async with other.transaction():
        await other.commit(key, commit)
        again = await other.begun(backend.commit(key, other_content(commit)))
    with pytest.raises(CommitIdReused):
        await again


@pytest.mark.parametrize("expect", [Expect.ANY, Expect.ABSENT])
async def test_of_two_creators_one_creates(
    backend: PostgresBackend, other: Other, key: SessionKey, expect: Expect
) -> None:
    async with other.transaction():
        first = await write(other, key, expect=expect, puts=((b"a", b"1"),))
        second = await other.begun(write(backend, key, expect=expect, puts=((b"b", b"2"),)))
    if expect is Expect.ABSENT:
        with pytest.raises(Conflict) as refused:
            await second
        assert refused.value.head == first.head
    else:
        made = await second
        assert (made.version, made.incarnation) == (2, first.incarnation)
    assert await list_ids(backend, key) == [key.id]


@pytest.mark.parametrize("before", [0, 1])
async def test_a_whole_life_that_passed_meanwhile_is_remembered(
    backend: PostgresBackend, other: Other, key: SessionKey, before: int
) -> None:
    """The session was made, given this very commit, and deleted, all since ours began."""
    for _ in range(before):
        await write(backend, key)
        await backend.delete(key, id=new_id())
    commit: Commit = new_commit(appends=ONCE)
    async with other.transaction():
        await write(other, key)
        again = await other.begun(backend.commit(key, commit))
        first = await other.commit(key, commit)
        await other.delete(key, id=new_id())
    second = await again
    assert (second.version, second.replayed) == (first.version, True)
    assert second.head is None
    assert (await backend.read(key)).head is None


async def test_a_deletion_takes_what_was_just_written(
    backend: PostgresBackend, other: Other, key: SessionKey, db: psycopg.AsyncConnection[Any]
) -> None:
    await write(backend, key)
    cursor = await db.execute("SELECT sid FROM sessions WHERE tenant = %s", (key.tenant,))
    sid = await cursor.fetchone()
    async with other.transaction():
        await write(other, key, puts=((b"a", b"1"),))
        deleting = await other.begun(backend.delete(key, id=new_id()))
    assert await deleting
    assert (await backend.read(key)).head is None
    cursor = await db.execute("SELECT count(*) FROM items WHERE sid = %s", sid)
    assert await cursor.fetchone() == (0,)


async def test_of_two_deletions_one_deletes(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    await write(backend, key)
    async with other.transaction():
        assert await other.delete(key, id=new_id())
        second = await other.begun(backend.delete(key, id=new_id()))
    assert not await second


async def test_a_commit_adopts_the_parts_that_are_just_being_staged(
    backend: PostgresBackend, other: Other, key: SessionKey
) -> None:
    made = await write(backend, key)
    stage = new_id()
    await backend.stage(key, made.incarnation, stage, ((b"part/1", b"1"),))
    async with other.transaction():
        await other.stage(key, made.incarnation, stage, ((b"part/2", b"2"),))
        adopting = await other.begun(write(backend, key, stages=(stage,)))
    assert (await adopting).version == 2
    assert await read_values(backend, key) == {b"part/1": b"1", b"part/2": b"2"}


async def test_parts_that_are_just_being_swept_are_missing(
    backend: PostgresBackend, other: Other, key: SessionKey, db: psycopg.AsyncConnection[Any]
) -> None:
    made = await write(backend, key)
    stage = new_id()
    await backend.stage(key, made.incarnation, stage, ((b"part", b"1"),))
    await db.execute(
        "UPDATE stages SET staged_at = staged_at - %s WHERE tenant = %s",
        (2 * STAGE_MS, key.tenant),
    )
    async with other.transaction():
        await other.sweep()
        adopting = await other.begun(write(backend, key, stages=(stage,)))
    with pytest.raises(StageMissing):
        await adopting
    assert (await backend.read(key)).head == made.head


async def test_the_sweep_and_a_group_that_creates_anew_never_deadlock(
    backend: PostgresBackend, other: Other, key: SessionKey, db: psycopg.AsyncConnection[Any]
) -> None:
    """A group locks its sessions in the order of their keys, and so does the sweep."""
    first, second = (SessionKey(key.tenant, key.kind, id) for id in ("a", "b"))
    for ms, dead in ((1, first), (2, second)):  # the sweep comes upon the second first
        await write(backend, dead)
        await backend.delete(dead, id=new_id())
        await db.execute(
            "UPDATE tombstones SET deleted_at = %s WHERE tenant = %s AND id = %s",
            (-ms, dead.tenant, dead.id),
        )
    async with other.transaction():
        await write(other, first)
        sweeping = await other.begun(backend.sweep())
        async with asyncio.timeout(0.5):  # before the server looks for deadlocks
            await write(other, second)
    await sweeping
    assert await list_ids(backend, key) == ["a", "b"]


@STATEMENTS
async def test_a_repeat_not_marked_as_one_is_recognised_behind_others(
    backend: PostgresBackend, key: SessionKey, statement: str
) -> None:
    made = await write(backend, key)
    commit = new_commit(**by(statement, made.incarnation), appends=ONCE)
    first = await backend.commit(key, commit)
    for _ in range(3):
        await write(backend, key)
        again = await backend.commit(key, commit)
        assert (again.version, again.replayed) == (first.version, True)
        with pytest.raises(CommitIdReused):
            await backend.commit(key, other_content(commit))


@STATEMENTS
async def test_who_was_overtaken_once_is_not_overtaken_again(
    connect: Connect,
    backend: PostgresBackend,
    key: SessionKey,
    statement: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many want the same session."""
    made = await write(backend, key)
    monkeypatch.setattr(operations, "ATTEMPTS", 2 if statement == "commit" else 1)
    fields = by(statement, made.incarnation)
    backends = [connect() for _ in range(6)]

    async def append(backend: PostgresBackend) -> None:
        for _ in range(20):
            await write(backend, key, **fields, appends=ONCE)

    await asyncio.gather(*[append(backend) for backend in backends])
    assert (await read_head(backend, key)).version == 1 + 6 * 20
