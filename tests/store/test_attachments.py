"""Attachments on every backend: staged, adopted, read and removed within its limits."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from perdure import AttachmentNotFound, Corrupt, Store, attachment_uploads
from perdure.attachment_parts import PART_BYTES
from perdure.backend import STAGE_MS
from perdure.client import new_id
from perdure.testing import Harness
from perdure.types import Commit, Scan

from tests.core.attachment_sources import LOT, content, pieces

LONG = 8_500_000


async def test_long_content_comes_back_whole_and_in_ranges(any_store: Store) -> None:
    data = content(LONG)
    put = await any_store.session("s").attachments.put(pieces(data, 300_000))
    session = any_store.session("s")
    assert await session.attachments.list() == [put]
    assert await session.attachments.read(put.digest) == data
    start, stop = 3_000_001, 5_500_000
    opened = session.attachments.open(put.digest, start=start, stop=stop)
    assert b"".join([piece async for piece in opened]) == data[start:stop]


@pytest.mark.parametrize("size", [0, 1000, LOT - 1, LOT])
async def test_short_content_comes_back_beside_other_things(
    any_store: Store, size: int
) -> None:
    session = any_store.session("s")
    await session.append("a")
    put = await session.attachments.put(content(size), media_type="a/b")
    await session.append("b")
    fresh = any_store.session("s")
    assert await fresh.entries() == ["a", "b"]
    assert await fresh.attachments.stat(put.digest) == put
    assert await fresh.attachments.read(put.digest) == content(size)


async def test_the_same_content_is_kept_once_also_if_put_at_once(any_store: Store) -> None:
    data = content(3 * LOT)
    await asyncio.gather(
        *(any_store.session("s").attachments.put(pieces(data, 200_000)) for _ in range(3))
    )
    session = any_store.session("s")
    (put,) = await session.attachments.list()
    assert await session.attachments.read(put.digest) == data
    key = any_store.key("s")
    counted = 0
    scan = Scan(b"b", b"c")
    while True:
        (rows,) = (await any_store.backend.read(key, scan)).rows
        counted += len(rows.items)
        if not rows.more:
            break
        scan = Scan(rows.items[-1].key + b"\0", b"c")
    assert counted == -(-len(data) // PART_BYTES)


async def test_what_was_deleted_is_gone_and_can_be_put_again(any_store: Store) -> None:
    session = any_store.session("s")
    data = content(2 * LOT)
    put = await session.attachments.put(data)
    kept = await session.attachments.put(b"kept")
    assert await session.attachments.delete(put.digest)
    assert not await any_store.session("s").attachments.delete(put.digest)
    with pytest.raises(AttachmentNotFound):
        await session.attachments.read(put.digest)
    await session.attachments.put(data)
    assert await any_store.session("s").attachments.read(put.digest) == data
    assert await session.attachments.read(kept.digest) == b"kept"
    await session.delete()
    assert await any_store.session("s").attachments.list() == []


async def test_content_of_several_commits(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment_uploads, "LOTS_OF_STAGE", 2)
    data = content(LONG)
    put = await any_store.session("s").attachments.put(pieces(data, 300_000))
    session = any_store.session("s")
    assert await session.attachments.read(put.digest) == data
    head = await session.head()
    assert head is not None
    assert head.version == 9


async def test_missing_and_altered_parts_are_found(any_store: Store) -> None:
    session = any_store.session("s")
    put = await session.attachments.put(content(3 * LOT))
    key, backend = any_store.key("s"), any_store.backend
    snapshot = await backend.read(key, Scan(b"b", b"c", limit=3))
    items = snapshot.rows[0].items
    changed = bytearray(items[2].value)
    changed[100_000] ^= 4
    for value in (bytes(changed), items[1].value, None):
        await backend.commit(
            key,
            Commit(
                id=new_id(),
                digest=bytes(8),
                new_incarnation=new_id(),
                puts=((items[2].key, value),) if value else (),
                deletes=() if value else (items[2].key,),
            ),
        )
        with pytest.raises(Corrupt):
            await any_store.session("s").attachments.read(put.digest)
        start = 3 * PART_BYTES
        opened = session.attachments.open(put.digest, start=start)
        assert b"".join([piece async for piece in opened]) == content(3 * LOT)[start:]


async def test_an_upload_that_ends_half_way_shows_nothing(
    any_store: Store, harness: Harness
) -> None:
    async def ending() -> AsyncGenerator[bytes, None]:
        yield content(3 * LOT)
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError):
        await any_store.session("s").attachments.put(ending())
    assert await any_store.session("s").head() is None
    assert await harness.raw_items(any_store.key("s")) != {}
    if harness.patience < STAGE_MS:
        return
    await harness.advance(STAGE_MS + 2 * 3600 * 1000)  # more than any backend waits
    await any_store.sweep()
    assert not await harness.raw_items(any_store.key("s"))


async def test_a_fork_has_the_attachments(any_store: Store) -> None:
    session = any_store.session("s")
    long = await session.attachments.put(content(3 * LOT))
    short = await session.attachments.put(b"short")
    await session.append({"files": [long.digest, short.digest]})
    fork = await session.fork("fork")
    await session.delete()
    assert await fork.attachments.read(long.digest) == content(3 * LOT)
    assert await fork.attachments.read(short.digest) == b"short"
    assert len(await fork.entries()) == 1


async def test_what_nothing_refers_to_is_swept(any_store: Store, harness: Harness) -> None:
    day = 24 * 3600 * 1000 + 10_000
    if harness.patience < day:
        pytest.skip("the clock of this backend cannot be moved")
    session = any_store.session("s")
    named = await session.attachments.put(content(2 * LOT))
    await session.attachments.put(content(2 * LOT, seed=1))
    await session.append(f"see {named.digest}")
    await harness.advance(day)
    assert await any_store.session("s").sweep() == 1
    assert [kept.digest for kept in await session.attachments.list()] == [named.digest]
    assert await session.attachments.read(named.digest) == content(2 * LOT)
