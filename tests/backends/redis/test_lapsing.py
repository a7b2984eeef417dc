"""What goes by itself, when, and that nothing goes by half."""

import pytest

from perdure.backend import REMEMBERED_COMMITS, STAGE_MS, TOMBSTONE_MS, Backend
from perdure.errors import CommitIdReused, SessionDeleted, StageMissing
from perdure.testing.shorthand import (
    list_ids,
    new_commit,
    new_id,
    read_head,
    read_values,
    resent,
    write,
)
from perdure.types import NEVER, Append, Expect, KeyRange, Order, SessionKey

from tests.backends.redis.moved_clock import MovedValkey
from tests.backends.redis.opened import opened
from tests.backends.redis.raw import Raw

KEY = SessionKey.of("acme", "session", "chat-7")
MINUTE = 60_000
HOUR = 60 * MINUTE


async def sweep_all(backend: Backend) -> None:
    while await backend.sweep():
        pass


def lives_for(raw: Raw, key: SessionKey = KEY) -> int:
    """For how many ms the server will keep the session's key; -1: for ever, -2: not at all."""
    return raw.client.pttl(raw.name(key))


async def test_a_tombstone_lapses_unswept(moved_valkey: MovedValkey) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        made = await write(backend, KEY, puts=((b"a", b"1"),))
        await backend.delete(KEY, id=new_id())
        moved_valkey.advance(TOMBSTONE_MS - MINUTE)
        assert raw.members(raw.name(KEY))
        with pytest.raises(SessionDeleted):
            await write(backend, KEY, incarnation=made.incarnation)
        moved_valkey.advance(3 * MINUTE)
        assert raw.members(raw.name(KEY)) == []
        await sweep_all(backend)
        assert list(raw.indexes()) == []


async def test_an_expired_session_is_whole_until_all_of_it_lapses(
    moved_valkey: MovedValkey,
) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        commit = new_commit(
            puts=((b"a", b"1"),), appends=(Append(b"log", (b"x",)),), expires_in=HOUR
        )
        first = await backend.commit(KEY, commit)
        whole = raw.members(raw.name(KEY))
        moved_valkey.advance(HOUR)
        assert (await backend.read(KEY)).head is None
        moved_valkey.advance(TOMBSTONE_MS - MINUTE)
        assert raw.members(raw.name(KEY)) == whole
        again = await backend.commit(KEY, resent(commit))
        assert (again.replayed, again.version, again.head) == (True, first.version, None)
        moved_valkey.advance(TOMBSTONE_MS + 3 * MINUTE)  # counted from when it was noticed
        assert lives_for(raw) == -2


async def test_a_session_gone_unswept_leaves_nothing_in_lists(
    moved_valkey: MovedValkey,
) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        await write(backend, KEY, labels=("old", "kept"), expires_in=HOUR)
        moved_valkey.advance(HOUR + TOMBSTONE_MS + 3 * MINUTE)
        assert lives_for(raw) == -2
        for order in Order:
            assert await list_ids(backend, KEY, order=order) == []
        await write(backend, KEY, labels=("kept", "new"))
        for _ in range(2):
            for order in Order:
                assert await list_ids(backend, KEY, order=order) == [KEY.id]
                assert await list_ids(backend, KEY, order=order, label="kept") == [KEY.id]
                assert await list_ids(backend, KEY, order=order, label="old") == []
            await sweep_all(backend)
        assert sorted(raw.indexes()) == sorted(raw.index_of(KEY))


async def test_sweeping_clears_the_index_of_what_has_gone_by_itself(
    moved_valkey: MovedValkey,
) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        for n in range(20):
            key = SessionKey("acme", "session", f"s{n}")
            await write(backend, key, labels=("l", f"l{n}"), expires_in=HOUR)
        moved_valkey.advance(HOUR + TOMBSTONE_MS + 3 * MINUTE)
        assert len(list(raw.indexes())) == 20 * 7
        await sweep_all(backend)
        assert list(raw.indexes()) == []


async def test_a_key_emptied_or_made_again_keeps_its_expiry(moved_valkey: MovedValkey) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        await write(backend, KEY, puts=((b"a", b"1"),), expires_in=HOUR)
        expiring = HOUR + TOMBSTONE_MS
        assert expiring <= lives_for(raw) <= expiring + 2 * MINUTE
        await write(backend, KEY, deletes=(KeyRange(b""),))
        assert await read_values(backend, KEY) == {}
        assert expiring - MINUTE <= lives_for(raw) <= expiring + 2 * MINUTE
        await write(backend, KEY, puts=((b"b", b"2"),))
        assert expiring - MINUTE <= lives_for(raw) <= expiring + 2 * MINUTE
        await write(backend, KEY, expires_at=NEVER)
        assert lives_for(raw) == -1
        await write(backend, KEY, expires_in=HOUR)
        assert lives_for(raw) >= expiring
        await backend.delete(KEY, id=new_id())
        assert TOMBSTONE_MS <= lives_for(raw) <= TOMBSTONE_MS + 2 * MINUTE
        await write(backend, KEY)
        assert lives_for(raw) == -1
        await backend.delete(KEY, id=new_id())
        await write(backend, KEY, expires_in=2 * HOUR)
        assert lives_for(raw) >= 2 * HOUR + TOMBSTONE_MS
        moved_valkey.advance(2 * HOUR)
        await write(backend, KEY, expect=Expect.ABSENT)
        assert lives_for(raw) == -1, "the expiry was that of its predecessor"


async def test_tombstones_under_a_living_session_lapse_too(moved_valkey: MovedValkey) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        old = new_commit(puts=((b"a", b"1"),))
        await backend.commit(KEY, old)
        id = new_id()
        await backend.delete(KEY, id=id)
        await write(backend, KEY, puts=((b"b", b"2"),))
        moved_valkey.advance(TOMBSTONE_MS - MINUTE)
        await sweep_all(backend)
        assert (await backend.commit(KEY, resent(old))).replayed
        with pytest.raises(CommitIdReused):
            await write(backend, KEY, id=id)
        moved_valkey.advance(3 * MINUTE)
        await sweep_all(backend)
        kinds = [member[:1] for member in raw.members(raw.name(KEY))]
        assert kinds == [b"h", b"i", b"r"]
        assert sorted(raw.indexes()) == sorted(raw.index_of(KEY))
        assert (await read_head(backend, KEY)).version == 1


async def test_stages_of_a_session_never_made_lapse_unswept(moved_valkey: MovedValkey) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        await backend.stage(KEY, new_id(), new_id(), ((b"part", b"1"),))
        moved_valkey.advance(STAGE_MS - MINUTE)
        assert len(raw.items(KEY)) == 1
        moved_valkey.advance(3 * MINUTE)
        assert lives_for(raw) == -2
        await sweep_all(backend)
        assert list(raw.indexes()) == []


async def test_a_stage_waits_for_its_time_from_its_last_part_on(
    moved_valkey: MovedValkey,
) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        made = await write(backend, KEY)
        early, late = new_id(), new_id()
        for stage in (early, late):
            await backend.stage(KEY, made.incarnation, stage, ((b"part", stage),))
        moved_valkey.advance(STAGE_MS - HOUR)
        await backend.stage(KEY, made.incarnation, late, ((b"part 2", b"2"),))
        moved_valkey.advance(2 * HOUR)
        await sweep_all(backend)
        with pytest.raises(StageMissing):
            await write(backend, KEY, stages=(early,))
        await write(backend, KEY, stages=(late,))
        assert await read_values(backend, KEY) == {b"part": late, b"part 2": b"2"}
        moved_valkey.advance(2 * STAGE_MS)
        await sweep_all(backend)
        assert sorted(raw.indexes()) == sorted(raw.index_of(KEY))
        assert {m[:1] for m in raw.members(raw.name(KEY))} == {b"h", b"i", b"r"}


async def test_of_many_commits_no_more_than_two_shares_of_ids_are_kept(
    moved_valkey: MovedValkey,
) -> None:
    async with opened(moved_valkey.url) as (backend, raw):
        for n in range(1, 300):
            await write(backend, KEY)
            ids = sum(member[:1] == b"r" for member in raw.members(raw.name(KEY)))
            assert min(n, REMEMBERED_COMMITS) <= ids <= 2 * REMEMBERED_COMMITS
