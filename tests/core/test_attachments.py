"""Attachments: what was put is what is read, or an error."""

import io
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    AttachmentNotFound,
    InvalidKey,
    InvalidValue,
    Session,
    SessionDeleted,
    Store,
)
from perdure.attachment_parts import PART_BYTES
from perdure.backend import Backend
from perdure.testing import TestClock
from perdure.types import SessionKey

from tests.core.attachment_sources import LOT, SOURCES, async_pieces, content, pieces
from tests.core.wrappers import Recorder

DAY = 24 * 3600 * 1000


async def read(session: Session, digest: str, **bounds: int) -> bytes:
    return b"".join([piece async for piece in session.attachments.open(digest, **bounds)])


@pytest.mark.parametrize(
    "size",
    [0, 1, 70_000, PART_BYTES, PART_BYTES + 1, LOT - 1, LOT, LOT + 1, 2 * LOT, 3_000_000],
)
async def test_what_was_put_is_read(store: Store, size: int) -> None:
    data = content(size)
    put = await store.session("s").attachments.put(data, media_type="image/png")
    assert (put.digest, put.size, put.media_type) == (
        sha256(data).hexdigest(),
        size,
        "image/png",
    )
    session = store.session("s")
    assert await session.attachments.stat(put.digest) == put
    assert await session.attachments.list() == [put]
    assert await session.attachments.read(put.digest) == data
    assert await read(session, put.digest) == data


async def test_text_is_compressed_and_comes_back(store: Store, backend: Backend) -> None:
    data = b"The same again. " * 100_000
    recorder = Recorder(backend)
    put = await Store(recorder).session("s").attachments.put(data[:500_000])
    (commit,) = recorder.commits
    assert sum(len(value) for _, value in commit.puts) < 10_000
    assert await store.session("s").attachments.read(put.digest) == data[:500_000]
    long = await store.session("s").attachments.put(data)
    assert await store.session("s").attachments.read(long.digest) == data


@pytest.mark.parametrize("size", [0, 100, 2_000_000])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
async def test_bytes_come_from_anything_that_gives_them(
    store: Store, source: Callable[[bytes], Any], size: int
) -> None:
    data = content(size)
    put = await store.session("s").attachments.put(source(data))
    assert put.digest == sha256(data).hexdigest()
    assert await store.session("s").attachments.read(put.digest) == data


async def test_a_file_is_read_from_where_it_stands(store: Store, tmp_path: Path) -> None:
    data = content(1_500_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    session = store.session("s")
    with path.open("rb") as file:
        file.seek(1000)
        put = await session.attachments.put(file)
        assert file.read() == b""
        assert not file.closed
    assert await session.attachments.read(put.digest) == data[1000:]


@pytest.mark.parametrize(
    "source",
    [
        "text",
        io.StringIO("text"),
        Path("some/file"),
        None,
        5,
        ["text"],
        [1, 2],
        [b"x" * 2_000_000, "text"],
    ],
    ids=repr,
)
async def test_what_gives_no_bytes_is_refused(store: Store, source: Any) -> None:
    session = store.session("s")
    with pytest.raises(InvalidValue) as caught:
        await session.attachments.put(source)
    assert caught.value.path == "source"
    assert await session.head() is None


async def test_a_file_that_gives_text_is_refused(store: Store) -> None:
    class Text:
        def read(self, size: int) -> str:
            return "text"

    with pytest.raises(InvalidValue):
        await store.session("s").attachments.put(Text())  # pyright: ignore[reportArgumentType]
    assert await store.session("s").head() is None


@pytest.mark.parametrize("media_type", ["", "x" * 256, "a\0b", 5])
async def test_a_media_type_is_a_short_text(store: Store, media_type: Any) -> None:
    with pytest.raises(InvalidKey):
        await store.session("s").attachments.put(b"x", media_type=media_type)


@pytest.mark.parametrize("digest", ["", "5" * 63, "G" * 64, "A" * 64, " " + "5" * 63, None])
async def test_a_digest_is_64_lower_case_digits(store: Store, digest: Any) -> None:
    attachments = store.session("s").attachments
    for call in (attachments.stat, attachments.read, attachments.delete):
        with pytest.raises(InvalidKey):
            await call(digest)


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    session = store.session("s")
    digest = "0" * 64
    for _ in range(2):
        assert await session.attachments.stat(digest) is None
        assert await session.attachments.list() == []
        assert not await session.attachments.delete(digest)
        with pytest.raises(AttachmentNotFound, match=digest):
            await session.attachments.read(digest)
        await session.append("now there is a session")


@pytest.mark.parametrize("size", [1000, 2_000_000])
async def test_the_same_content_is_kept_once_and_counts_as_put_now(
    backend: Backend, clock: TestClock, size: int
) -> None:
    recorder = Recorder(backend)
    session = Store(recorder).session("s")
    first = await session.attachments.put(content(size), media_type="text/plain")
    recorder.reset()
    clock.advance(5000)
    again = await session.attachments.put(pieces(content(size), 50_000))
    assert 4000 < again.uploaded_at - first.uploaded_at < 6000
    assert again.media_type == "text/plain"
    assert await session.attachments.list() == [again]
    other = await Store(backend).session("s").attachments.put(content(size), media_type="a/b")
    assert other.media_type == "a/b"
    assert all(commit.stages == () or size > LOT for commit in recorder.commits)
    assert len(recorder.commits[-1].puts) == 1  # the manifest
    assert await session.attachments.read(first.digest) == content(size)


async def test_long_bytes_that_are_there_are_not_sent_again(backend: Backend) -> None:
    class Staging(Recorder):
        stagings = 0

        async def stage(
            self,
            key: SessionKey,
            incarnation: bytes,
            stage: bytes,
            puts: tuple[tuple[bytes, bytes], ...],
        ) -> None:
            self.stagings += 1
            await super().stage(key, incarnation, stage, puts)

    staging = Staging(backend)
    session = Store(staging).session("s")
    await session.attachments.put(content(3 * LOT))
    assert staging.stagings == 3
    await session.attachments.put(bytearray(content(3 * LOT)))
    assert staging.stagings == 3


async def test_what_is_put_last_is_listed_last(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    names: list[str] = []
    for n in range(5):
        names.append((await session.attachments.put(b"%d" % n)).digest)
        clock.advance(1)
    await session.attachments.put(b"0")
    names.append(names.pop(0))
    assert [found.digest for found in await session.attachments.list()] == names


async def test_any_range_can_be_read(store: Store) -> None:
    data = content(3_500_000)
    session = store.session("s")
    digest = (await session.attachments.put(data)).digest
    draw = random.Random(1)
    bounds = [(0, 1), (len(data) - 1, len(data)), (PART_BYTES, 2 * PART_BYTES), (5, 5), (9, 4)]
    bounds += [(len(data), len(data) + 9), (10**9, 10**10), (0, 10**9)]
    bounds += [(draw.randrange(len(data)), draw.randrange(len(data))) for _ in range(30)]
    for start, stop in bounds:
        assert await read(session, digest, start=start, stop=stop) == data[start:stop]
    assert await read(session, digest, start=3_000_000) == data[3_000_000:]
    for bad in (-1, 1 << 60):
        with pytest.raises(InvalidKey):
            await read(session, digest, start=bad)


async def test_a_range_reads_only_its_parts_and_no_page_is_long(backend: Backend) -> None:
    recorder = Recorder(backend)
    session = Store(recorder).session("s")
    digest = (await session.attachments.put(content(20 * PART_BYTES))).digest
    recorder.reset()
    await read(session, digest, start=11 * PART_BYTES - 1, stop=11 * PART_BYTES + 1)
    assert (recorder.reads, recorder.items_read) == (2, 3)  # the manifest, and two parts
    recorder.reset()
    await read(session, digest)
    assert (recorder.reads, recorder.items_read) == (11, 21)


async def test_a_reader_who_leaves_early_leaves_nothing_behind(store: Store) -> None:
    session = store.session("s")
    digest = (await session.attachments.put(content(5 * LOT))).digest
    pieces = session.attachments.open(digest)
    assert await anext(pieces) == content(PART_BYTES)
    await pieces.aclose()


async def test_short_content_is_one_round_trip_and_one_commit(backend: Backend) -> None:
    recorder = Recorder(backend)
    session = Store(recorder).session("s")
    await session.append("x")
    recorder.reset()
    await session.attachments.put(content(LOT - 1))
    assert (recorder.reads, len(recorder.commits)) == (0, 1)
    recorder.reset()
    await session.attachments.put(pieces(content(2_000_000), 9999))
    assert (recorder.reads, len(recorder.commits)) == (2, 1)
    recorder.reset()
    await session.attachments.put(content(2_000_001))
    assert (recorder.reads, len(recorder.commits)) == (2, 1)


async def test_attachments_leave_the_rest_of_the_session_alone(store: Store) -> None:
    session = store.session("s")
    await session.append("a")
    await session.cells.put("c", 1)
    await session.save({"d": 1})
    put = await session.attachments.put(content(2_000_000))
    await session.append("b")
    assert await session.attachments.delete(put.digest)
    fresh = store.session("s")
    assert await fresh.entries() == await session.entries() == ["a", "b"]
    assert (await fresh.cells.get("c"), await fresh.load()) == (1, {"d": 1})
    assert await fresh.attachments.stat(put.digest) is None


async def test_a_deleted_attachment_can_be_put_again(store: Store) -> None:
    session = store.session("s")
    for size in (100, 2_000_000):
        put = await session.attachments.put(content(size))
        assert await session.attachments.delete(put.digest)
        assert not await session.attachments.delete(put.digest)
        with pytest.raises(AttachmentNotFound):
            await session.attachments.read(put.digest)
        await session.attachments.put(content(size))
        assert await session.attachments.read(put.digest) == content(size)


async def test_attachments_go_with_their_session(store: Store) -> None:
    session = store.session("s")
    put = await session.attachments.put(content(2_000_000))
    assert await store.delete("s")
    assert await store.session("s").attachments.stat(put.digest) is None
    await store.session("s").append("another session")
    assert await store.session("s").attachments.list() == []
    assert not await store.session("other").attachments.delete(put.digest)


async def test_a_late_upload_does_not_bring_a_session_back(store: Store) -> None:
    await store.session("s").append("x")
    sources = (b"short", content(2_000_000), pieces(content(2_000_000), 9999))
    sessions = [store.session("s") for _ in sources]
    for session in sessions:
        await session.head()
    await store.delete("s")
    for session, source in zip(sessions, sources, strict=True):
        with pytest.raises(SessionDeleted):
            await session.attachments.put(source)
    assert await store.session("s").head() is None


@pytest.mark.parametrize("seen", [True, False])
async def test_a_session_deleted_during_an_upload_stays_deleted(
    store: Store, seen: bool
) -> None:
    await store.session("s").append("x")
    session = store.session("s")
    if seen:
        await session.entries()

    async def delete(given: int) -> None:
        if given >= 2 * LOT:
            await store.delete("s")

    with pytest.raises(SessionDeleted):
        await session.attachments.put(async_pieces(content(4 * LOT), 100_000, then=delete))
    assert await store.session("s").head() is None


async def test_a_store_with_idle_expiry_takes_attachments(backend: Backend) -> None:
    session = Store(backend, idle_expiry=3600).session("s")
    for size in (100, 3_000_000):
        put = await session.attachments.put(pieces(content(size), 99_999))
        assert await session.attachments.read(put.digest) == content(size)
    head = await session.head()
    assert head is not None
    assert head.expires_at is not None
