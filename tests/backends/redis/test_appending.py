"""The short way through a commit that only appends, and what it must have in common with the
long one: everything but the time it takes."""

import asyncio
from typing import cast

import msgspec
import pytest

from perdure.errors import Conflict, SessionDeleted
from perdure.testing.shorthand import CommitFields, at, new_commit, write
from perdure.types import (
    Append,
    At,
    Commit,
    Committed,
    Expect,
    Get,
    Read,
    Scan,
    SessionKey,
    append_key,
)

from tests.backends.redis.opened import opened
from tests.backends.redis.raw import Raw

SHORT, LONG = (SessionKey.of("acme", "session", id) for id in ("short", "long"))
LOG = b"l\0\1"
EXPIRES = 4_000_000_000_000


def number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def the_long_way(commit: Commit) -> Commit:
    """It asks for something back, which the short way does not give."""
    return msgspec.structs.replace(commit, returning=(Get(b"nothing"),))


def calls(raw: Raw, command: str) -> int:
    """How often a server has run it."""
    stats = cast("dict[str, dict[str, int]]", raw.client.info("commandstats"))
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


def timeless(raw: Raw, key: SessionKey) -> list[bytes]:
    """A session's members, without the times of commits."""
    found: list[bytes] = []
    for member in raw.members(raw.name(key)):
        if member[:2] == b"h0":
            found.append(member[:26] + member[42:50] + member[58:])
        elif member[:1] == b"r":
            found.append(member[:-8])
        else:
            found.append(member)
    return found


ONE = Append(LOG, (b"row",))
APPENDS: tuple[CommitFields, ...] = (
    {"appends": (Append(b"", (b"a\0b", b"", b"\1" * 9)),)},
    {"appends": (ONE,)},
    {"appends": (Append(LOG, (b"zero", b"one", b"two")),)},
    {"appends": (Append(LOG, tuple(b"%d" % n for n in range(120))),)},
    {"appends": (ONE, Append(b"other", (b"1", b"2")))},
    {"appends": (ONE,), "puts": ((b"cell", b"value"),)},
    {"appends": (Append(LOG, ()),)},
)
"""As many as do not go into 64, so that the short way and the long one meet all versions."""


async def test_both_ways_write_the_same(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, raw):
        first = new_commit(
            deletes=(b"gone",),
            puts=(
                (append_key(LOG, 8, 0), b"where an append is going to be"),
                (append_key(LOG, 16, 2), b"where the last of three is"),
                (append_key(LOG, 23, 1) + b"x", b"between two"),
            ),
            meta=b"meta",
            labels=("red", "é"),
            expires_at=EXPIRES,
        )
        head = (await backend.commit(SHORT, first)).head
        await backend.commit(LONG, first)
        lapses = cast("int", raw.client.pexpiretime(raw.name(SHORT)))
        for version in range(2, 140):
            assert head is not None
            fields: CommitFields = {
                **APPENDS[version % len(APPENDS)],
                "incarnation": head.incarnation,
                # Now and then somebody else's commit has come in between.
                "base": head.version - (version % 5 == 0),
                "expect": at(head) if version % 3 == 0 else Expect.ANY,
                "seen": head.updated_at,
            }
            commit = new_commit(**fields)
            made = await backend.commit(SHORT, commit)
            await backend.commit(LONG, the_long_way(commit))
            assert timeless(raw, SHORT) == timeless(raw, LONG)
            check(raw, SHORT, made)
            head = made.head
        assert raw.client.pexpiretime(raw.name(SHORT)) == lapses > EXPIRES
        ids = [m for m in raw.members(raw.name(SHORT)) if m[:1] == b"r"]
        assert 64 <= len(ids) < 128


def check(raw: Raw, key: SessionKey, made: Committed) -> None:
    """What is kept is what was acknowledged, at the time that was told."""
    members = raw.members(raw.name(key))
    (head,) = (m for m in members if m[:2] == b"h0")
    (used,) = (m for m in members if m[:1] == b"r" and number(made.version) == m[34:42])
    assert made.head is not None
    assert head[34:42] == used[-8:] == number(made.now) == number(made.head.updated_at)
    assert head[82:] == used[1:17] == made.head.tip
    assert made.head.labels == ("red", "é")
    assert made.head.meta == b"meta"
    size = sum(len(m) for m in members if m[:1] == b"i")
    assert int.from_bytes(head[58:66], "big") == size
    index = raw.index_of(key)
    assert set(index) <= set(raw.members(raw.index(key)))


async def test_an_append_looks_at_the_head_and_at_nothing_else(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, raw):
        head = (await write(backend, SHORT, puts=((b"cell", b"value"),))).head
        for expect in (None, *[at] * 3):
            assert head is not None
            commit = new_commit(
                incarnation=head.incarnation,
                base=head.version,
                appends=(Append(LOG, (b"row", b"row")),),
            )
            if expect is not None:
                commit = msgspec.structs.replace(commit, expect=expect(head))
            before = calls(raw, "zrange")
            head = (await backend.commit(SHORT, commit)).head
            assert calls(raw, "zrange") - before == 1


async def test_an_append_to_what_is_not_as_it_was_writes_nothing(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, raw):
        head = (await write(backend, SHORT, puts=((b"cell", b"value"),))).head
        assert head is not None
        commit = new_commit(incarnation=head.incarnation, base=1, appends=(ONE,))
        before = raw.members(raw.name(SHORT))
        other_tip = msgspec.structs.replace(commit, expect=At(1, bytes(16)))
        with pytest.raises(Conflict):
            await backend.commit(SHORT, other_tip)
        other_life = msgspec.structs.replace(commit, incarnation=bytes(16))
        with pytest.raises(SessionDeleted):
            await backend.commit(SHORT, other_life)
        assert raw.members(raw.name(SHORT)) == before
        made = await write(backend, LONG, puts=((b"cell", b"value"),), expires_in=1)
        await asyncio.sleep(0.01)
        commit = msgspec.structs.replace(commit, incarnation=made.incarnation)
        with pytest.raises(SessionDeleted):
            await backend.commit(LONG, commit)
        assert not raw.items(LONG)


async def test_what_is_appended_replaces_what_was_put_in_its_place(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, _):
        place = append_key(LOG, 2, 1)
        head = (await write(backend, SHORT, puts=((place, b"put"),))).head
        assert head is not None
        values = (b"zero", b"one", b"two")
        await write(
            backend,
            SHORT,
            incarnation=head.incarnation,
            base=1,
            appends=(Append(LOG, values),),
        )
        (rows,) = (await backend.read(SHORT, Scan())).rows
        assert tuple(item.value for item in rows.items) == values


async def test_an_append_moves_a_session_that_was_not_recent(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, raw):
        made = await write(backend, SHORT, puts=((b"cell", b"value"),))
        (head,) = (m for m in raw.members(raw.name(SHORT)) if m[:2] == b"h0")
        earlier = raw.index_of(SHORT)
        aged = head[:50] + number(made.now - 60_000) + head[58:]
        raw.client.zrem(raw.name(SHORT), head)
        raw.client.zadd(raw.name(SHORT), {aged: 0})
        raw.client.zrem(raw.index(SHORT), *earlier)
        raw.client.zadd(raw.index(SHORT), dict.fromkeys(raw.index_of(SHORT), 0))
        made = await write(
            backend,
            SHORT,
            incarnation=made.incarnation,
            base=1,
            appends=(Append(LOG, (b"row",)),),
        )
        (head,) = (m for m in raw.members(raw.name(SHORT)) if m[:2] == b"h0")
        assert head[50:58] == number(made.now)
        index = [m for m in raw.members(raw.index(SHORT)) if m != b"f1"]
        assert sorted(index) == sorted(raw.index_of(SHORT))


async def test_an_append_wakes_those_who_wait(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, _):
        made = await write(backend, SHORT, puts=((b"cell", b"value"),))
        waiting = asyncio.create_task(backend.wait(SHORT, after=made.head, timeout=60))
        await asyncio.sleep(0.2)  # until it has looked
        commit = new_commit(
            incarnation=made.incarnation, base=1, appends=(Append(LOG, (b"row",)),)
        )
        made = await backend.commit(SHORT, commit)
        async with asyncio.timeout(5):
            assert await waiting == made.head


@pytest.mark.parametrize(
    ("since", "size"), [(1, 10), (1, 50_000), (20, 10), (45, 10), (45, 70_000), (50, 10)]
)
async def test_what_is_new_is_found_either_way(valkey_url: str, since: int, size: int) -> None:
    """Few short rows come by the short way through a read, others by the long one."""
    async with opened(valkey_url) as (backend, _):
        for version in range(1, 51):
            puts = ((b"%02d" % (version % 40), bytes(size)), (b"other", b""))
            await write(backend, SHORT, puts=puts)
        reads: tuple[Read, ...] = (Scan(b"0", b"4", since=since), Get(b"nothing"))
        short = await backend.read(SHORT, reads[0])
        both = await backend.read(SHORT, *reads)
        assert short.head == both.head
        assert short.rows == both.rows[:1]
        assert all(item.version > since for item in short.rows[0].items)
        assert len(short.rows[0].items) == min(40, 50 - since)
