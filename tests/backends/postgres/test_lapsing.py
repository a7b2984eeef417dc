"""What is forgotten after a day of the server's clock: rows are aged past the backend."""

from typing import Any

import psycopg
import pytest

from perdure.backend import STAGE_MS, TOMBSTONE_MS
from perdure.errors import CommitIdReused, OutcomeUnknown, SessionDeleted, StageMissing
from perdure.testing.shorthand import new_commit, new_id, read_values, resent, write
from perdure.types import Append, Expect, SessionKey

from perdure_postgres.backend import PostgresBackend
from tests.backends.postgres.databases import until

Connection = psycopg.AsyncConnection[Any]
MINUTE = 60_000


async def sweep(backend: PostgresBackend) -> None:
    while await backend.sweep():
        pass


async def count(db: Connection, key: SessionKey) -> dict[str, int]:
    """How many rows each table has for a tenant."""
    found: dict[str, int] = {}
    for table in ("sessions", "tombstones", "stages", "discarded", "watches"):
        text = f"SELECT count(*) FROM {table} WHERE tenant = %s"
        row = await (await db.execute(text.encode(), (key.tenant,))).fetchone()
        assert row is not None
        found[table] = row[0]
    return found


async def age(db: Connection, key: SessionKey, ms: int) -> None:
    """Let everything of a tenant be so much older."""
    await db.execute(
        "UPDATE tombstones SET deleted_at = deleted_at - %s WHERE tenant = %s", (ms, key.tenant)
    )
    await db.execute(
        "UPDATE stages SET staged_at = staged_at - %s WHERE tenant = %s", (ms, key.tenant)
    )


async def test_a_tombstone_is_kept_for_a_day_and_no_longer(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    commit = new_commit(puts=((b"a", b"1"),))
    made = await backend.commit(key, commit)
    id = new_id()
    await backend.delete(key, id=id)
    sids = await (
        await db.execute("SELECT sid FROM tombstones WHERE tenant = %s", (key.tenant,))
    ).fetchone()
    await age(db, key, TOMBSTONE_MS - MINUTE)
    await sweep(backend)
    assert (await backend.commit(key, resent(commit))).replayed
    with pytest.raises(CommitIdReused):
        await write(backend, key, id=id)
    assert await backend.delete(key, id=id)
    await age(db, key, 2 * MINUTE)
    await sweep(backend)
    assert set((await count(db, key)).values()) == {0}
    cursor = await db.execute("SELECT count(*) FROM commits WHERE sid = %s", sids)
    assert await cursor.fetchone() == (0,)
    with pytest.raises(SessionDeleted):
        await write(backend, key, incarnation=made.incarnation)
    assert not await backend.delete(key, id=id)


async def test_a_lapsed_tombstone_does_not_take_the_successor_along(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    for value in (b"1", b"2"):
        await write(backend, key, expect=Expect.ABSENT, puts=((b"a", value),))
        await backend.delete(key, id=new_id())
    commit = new_commit(puts=((b"a", b"3"),))
    made = await backend.commit(key, commit)
    await age(db, key, TOMBSTONE_MS + MINUTE)
    await sweep(backend)
    assert await count(db, key) == {
        "sessions": 1,
        "tombstones": 0,
        "stages": 0,
        "discarded": 0,
        "watches": 0,
    }
    assert await read_values(backend, key) == {b"a": b"3"}
    again = await backend.commit(key, resent(commit))
    assert (again.version, again.replayed) == (made.version, True)


async def test_each_life_lapses_by_itself(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    """The key's row stays until the last of them does."""
    first, second = new_commit(appends=(Append(b"log", (b"1",)),)), new_commit()
    await backend.commit(key, first)
    await backend.delete(key, id=new_id())
    await age(db, key, TOMBSTONE_MS + MINUTE)
    await backend.commit(key, second)
    await backend.delete(key, id=new_id())
    await sweep(backend)
    found = await count(db, key)
    assert (found["sessions"], found["tombstones"]) == (1, 1)
    assert (await backend.commit(key, resent(second))).replayed
    assert (await backend.read(key)).head is None


async def test_expired_sessions_leave_tombstones_too(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    commit = new_commit(puts=((b"a", b"1"),), expires_in=1)
    made = await backend.commit(key, commit)
    await db.execute(
        "UPDATE sessions SET expires_at = expires_at - 1000 WHERE tenant = %s", (key.tenant,)
    )
    stage = new_id()
    await backend.stage(key, made.incarnation, stage, ((b"part", b"2"),))
    await sweep(backend)
    found = await count(db, key)
    assert (found["tombstones"], found["stages"], found["discarded"]) == (1, 0, 0)
    assert (await backend.commit(key, resent(commit))).replayed
    await age(db, key, TOMBSTONE_MS + MINUTE)
    await sweep(backend)
    assert set((await count(db, key)).values()) == {0}


async def test_a_stage_is_kept_for_a_day_and_no_longer(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    made = await write(backend, key)
    kept, lapsed = new_id(), new_id()
    for stage in (kept, lapsed):
        await backend.stage(key, made.incarnation, stage, ((stage, b"part"),))
    await age(db, key, STAGE_MS - MINUTE)
    await sweep(backend)
    await write(backend, key, stages=(kept,))
    await age(db, key, 2 * MINUTE)
    await sweep(backend)
    with pytest.raises(StageMissing):
        await write(backend, key, stages=(lapsed,))
    assert await read_values(backend, key) == {kept: b"part"}
    found = await count(db, key)
    assert (found["stages"], found["discarded"]) == (0, 0)


async def test_staging_more_keeps_what_was_staged_before(
    backend: PostgresBackend, db: Connection, key: SessionKey
) -> None:
    made = await write(backend, key)
    stage = new_id()
    await backend.stage(key, made.incarnation, stage, ((b"1", b"part"),))
    await age(db, key, STAGE_MS + MINUTE)
    await backend.stage(key, made.incarnation, stage, ((b"2", b"part"),))
    await sweep(backend)
    await write(backend, key, stages=(stage,))
    assert await read_values(backend, key) == {b"1": b"part", b"2": b"part"}


async def test_watches_lapse(backend: PostgresBackend, db: Connection, key: SessionKey) -> None:
    async def watched() -> bool:
        assert await backend.wait(key, after=None, timeout=0.05) is None
        return (await count(db, key))["watches"] == 1

    await until(watched)
    await sweep(backend)
    assert (await count(db, key))["watches"] == 1
    await db.execute("UPDATE watches SET until = 1 WHERE tenant = %s", (key.tenant,))
    await sweep(backend)
    assert (await count(db, key))["watches"] == 0


@pytest.mark.parametrize("known", [True, False])
async def test_what_a_lapsed_clock_cannot_tell_is_not_guessed(
    backend: PostgresBackend, key: SessionKey, known: bool
) -> None:
    """A resend of one who had seen a later time than the server's has now proves nothing."""
    made = await write(backend, key)
    for _ in range(70):
        await write(backend, key)
    commit = new_commit(
        incarnation=made.incarnation if known else None,
        base=1,
        seen=made.now + 10**9,
        puts=((b"a", b"1"),),
    )
    with pytest.raises(OutcomeUnknown) as unknown:
        await backend.commit(key, resent(commit))
    assert unknown.value.forgotten
    assert unknown.value.commit == resent(commit)
