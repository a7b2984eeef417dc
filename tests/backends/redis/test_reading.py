"""Long reads: past the scripts, and of sessions too long for one answer."""

import random

import pytest

from perdure.backend import Backend
from perdure.testing.shorthand import read_items, write
from perdure.types import Get, Item, KeyRange, Scan, SessionKey

from perdure_redis.backend import MAX_READ_BYTES, SHORT_READ
from tests.backends.redis.opened import opened

KEY = SessionKey.of("acme", "session", "chat-7")
KIB = 1024


async def fill(backend: Backend, sizes: list[int]) -> list[Item]:
    """Items of these sizes, ten a commit; a few of them are written again."""
    for first in range(0, len(sizes), 10):
        batch = enumerate(sizes[first : first + 10], first)
        puts = tuple((b"%05d" % n, bytes([n % 256]) * size) for n, size in batch)
        await write(backend, KEY, puts=puts)
    version = len(sizes) // 10
    items = [
        Item(b"%05d" % n, bytes([n % 256]) * size, n // 10 + 1) for n, size in enumerate(sizes)
    ]
    for n in range(0, len(sizes), len(sizes) // 7):
        version += 1
        items[n] = Item(items[n].key, b"new" * 100, version)
        await write(backend, KEY, puts=((items[n].key, items[n].value),))
    return items


def expected(items: list[Item], scan: Scan) -> list[Item]:
    matching = [
        item
        for item in items
        if item.key >= scan.start
        and (scan.stop is None or item.key < scan.stop)
        and item.version > scan.since
    ]
    if scan.reverse:
        matching.reverse()
    found: list[Item] = []
    size = 0
    for item in matching:
        if found and (
            (scan.limit is not None and len(found) == scan.limit)
            or (scan.max_bytes is not None and size >= scan.max_bytes)
        ):
            break
        found.append(item)
        size += len(item.value)
    return found


async def test_long_reads_find_what_short_ones_do(valkey_url: str) -> None:
    chance = random.Random(11)
    async with opened(valkey_url) as (backend, _):
        items = await fill(backend, [chance.choice([10, KIB, 5 * KIB]) for _ in range(500)])
        assert sum(len(item.value) for item in items) > 4 * SHORT_READ
        whole = await backend.read(KEY, Scan())
        assert list(whole.rows[0].items) == items
        assert not whole.rows[0].more
        for _ in range(60):
            scans = [
                Scan(
                    start=b"%05d" % chance.randrange(500),
                    stop=chance.choice([None, b"%05d" % chance.randrange(500, 600)]),
                    limit=chance.choice([None, 1, 30, 400]),
                    reverse=chance.random() < 0.5,
                    since=chance.choice([0, 0, 20, 48, 100]),
                    max_bytes=chance.choice([None, 1, 50 * KIB, 300 * KIB]),
                )
                for _ in range(2)
            ]
            get = Get(b"%05d" % chance.randrange(600))
            snapshot = await backend.read(KEY, *scans, get)
            assert snapshot.head == whole.head
            for scan, rows in zip(scans, snapshot.rows, strict=False):
                found = expected(items, scan)
                assert list(rows.items) == found, scan
                unlimited = Scan(scan.start, scan.stop, None, scan.reverse, scan.since)
                assert rows.more or found == expected(items, unlimited), scan
            assert list(snapshot.rows[2].items) == [i for i in items if i.key == get.key]


async def test_a_session_longer_than_an_answer_is_read_page_by_page(valkey_url: str) -> None:
    async with opened(valkey_url) as (backend, _):
        items = await fill(backend, [64 * KIB] * 320)
        assert sum(len(item.value) for item in items) > MAX_READ_BYTES
        assert await read_items(backend, KEY) == items
        snapshot = await backend.read(KEY, Scan(reverse=True), Scan(b"00100", b"00102"))
        backwards, two = snapshot.rows
        assert backwards.more
        count = len(backwards.items)
        assert list(backwards.items) == items[::-1][:count]
        assert list(two.items) == items[100:102]


@pytest.mark.parametrize("reverse", [False, True])
async def test_what_comes_back_with_a_commit_is_bounded(valkey_url: str, reverse: bool) -> None:
    async with opened(valkey_url) as (backend, _):
        items = await fill(backend, [64 * KIB] * 40)
        made = await write(backend, KEY, returning=(Scan(reverse=reverse), Get(b"00001")))
        assert made.rows[0].more
        assert 10 < len(made.rows[0].items) < 40
        ordered = items[::-1] if reverse else items
        assert list(made.rows[0].items) == ordered[: len(made.rows[0].items)]
        assert list(made.rows[1].items) == [items[1]]


async def test_deleting_many_short_items_does_not_make_a_long_session_pass_for_a_short_one(
    valkey_url: str,
) -> None:
    async with opened(valkey_url) as (backend, _):
        await write(backend, KEY, puts=tuple((b"a%04d" % n, b"short") for n in range(1000)))
        for n in range(20):
            await write(backend, KEY, puts=((b"z%02d" % n, bytes(1024 * KIB)),))
        await write(backend, KEY, deletes=(KeyRange(b"a0000", b"a0900"),))
        (rows,) = (await backend.read(KEY, Scan())).rows
        assert rows.more
        assert sum(len(item.value) for item in rows.items) <= MAX_READ_BYTES
        assert len(await read_items(backend, KEY)) == 120


async def test_a_session_shrunk_by_deletions_is_read_in_one_answer(valkey_url: str) -> None:
    """How long a session is, is kept up."""
    async with opened(valkey_url) as (backend, raw):
        await fill(backend, [64 * KIB] * 300)
        await write(backend, KEY, deletes=(KeyRange(b"00010", b"00290"),))
        (head,) = [m for m in raw.members(raw.name(KEY)) if m[:2] == b"h0"]
        size = int.from_bytes(head[58:66], "big")
        real = sum(len(m) for m in raw.members(raw.name(KEY)) if m[:1] == b"i")
        assert size == real
        await write(backend, KEY, deletes=(KeyRange(b""),))
        (head,) = [m for m in raw.members(raw.name(KEY)) if m[:2] == b"h0"]
        assert int.from_bytes(head[58:66], "big") == 0
