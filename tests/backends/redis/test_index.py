"""The index says what the heads say, whatever was done, and lists what they say."""

import random
from contextlib import suppress

from perdure.errors import Conflict
from perdure.testing.shorthand import list_ids, new_id, write
from perdure.types import NEVER, Expect, Order, SessionKey

from perdure_redis.keys import BUCKETS, Names, escape, unescape
from tests.backends.redis.moved_clock import MovedValkey
from tests.backends.redis.opened import opened

MINUTE = 60_000


async def test_the_index_is_exact_after_any_changes(moved_valkey: MovedValkey) -> None:
    keys = [SessionKey("acme", kind, f"s{n}") for n in range(6) for kind in ("a", "a\x01")]
    chance = random.Random(7)
    async with opened(moved_valkey.url) as (backend, raw):
        for step in range(400):
            key = chance.choice(keys)
            if chance.random() < 0.15:
                await backend.delete(key, id=new_id())
            else:
                labels = chance.choice([None, (), ("red",), ("blue", "red"), ("é", "re")])
                with suppress(Conflict):
                    await write(
                        backend,
                        key,
                        labels=labels,
                        expires_in=chance.choice([None, None, 2 * MINUTE, 90 * MINUTE]),
                        expires_at=chance.choice([None, None, NEVER]),
                        expect=chance.choice([Expect.ANY, Expect.PRESENT, Expect.ABSENT]),
                    )
            if chance.random() < 0.2:
                moved_valkey.advance(chance.choice([100, MINUTE]))
            if step % 40 == 0:
                await backend.sweep()
            if step % 10 == 0:
                expected = [member for key in keys for member in raw.index_of(key)]
                found = [member for member in raw.indexes() if member[:1] != b"u"]
                assert sorted(found) == sorted(expected)


async def test_long_lists_are_merged_from_all_buckets(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, _):
        key = SessionKey("acme", "session", "any")
        ids = [f"{n:04}" for n in range(300)]
        for id in ids:
            await write(backend, SessionKey("acme", "session", id), labels=(f"l{id[-1]}",))
        for limit in (1, 7, 64, 299, 300, 301):
            if limit > 1:
                assert await list_ids(backend, key, limit=limit) == ids
            found = await list_ids(backend, key, label="l3", limit=limit)
            assert found == ids[3::10]
            found = await list_ids(backend, key, label="l3", limit=limit, order=Order.RECENCY)
            assert sorted(found) == ids[3::10]
        assert await list_ids(backend, key, prefix="02", limit=9) == ids[200:]


async def test_a_list_passes_over_many_that_have_expired(moved_valkey: MovedValkey) -> None:
    async with opened(moved_valkey.url) as (backend, _):
        key = SessionKey("acme", "session", "any")
        for n in range(200):
            expires_in = 1000 if n % 50 else None
            await write(
                backend, SessionKey("acme", "session", f"{n:03}"), expires_in=expires_in
            )
        moved_valkey.advance(1000)
        assert await list_ids(backend, key, limit=3) == ["000", "050", "100", "150"]


def test_names_of_keys_do_not_collide() -> None:
    names = Names("perdure")
    parts = ("a", "b", "}", "{", "{7}", "a:b", "*", "?", "[a]", "\\", "a\x01", "é")
    keys = {SessionKey(t, k, i) for t in parts for k in parts for i in parts}
    found = {names.session(key)[1] for key in keys}
    assert len(found) == len(keys)
    for key in keys:
        bucket, name = names.session(key)
        assert name.startswith(b"perdure:{%d}:" % bucket)
        tag = name[name.index(b"{") + 1 : name.index(b"}")]
        assert tag == b"%d" % bucket, "the hash tag is the bucket's, whatever the id holds"


def test_sessions_are_spread_over_the_buckets() -> None:
    names = Names("perdure")
    counts = [0] * BUCKETS
    for n in range(6400):
        counts[names.session(SessionKey("acme", "session", f"chat-{n}"))[0]] += 1
    assert 50 < min(counts) <= max(counts) < 160


def test_item_keys_are_escaped_in_order_and_back() -> None:
    alphabet = (b"", b"\0", b"\1", b"\2", b"a", b"\xff")
    keys = {
        a + b + c + d for a in alphabet for b in alphabet for c in alphabet for d in alphabet
    }
    for key in keys:
        assert b"\0" not in escape(key)
        assert unescape(escape(key)) == key
    ended = sorted(keys, key=lambda key: escape(key) + b"\0")
    assert ended == sorted(keys)
