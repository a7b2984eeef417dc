"""Attachments when things go wrong: interruptions, other writers."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    AttachmentNotFound,
    Conflict,
    SessionDeleted,
    StageMissing,
    Store,
    TooLarge,
    attachment_parts,
    attachment_uploads,
)
from perdure.attachment_parts import PART_BYTES
from perdure.backend import STAGE_MS, Backend
from perdure.client import new_id
from perdure.testing import TestClock
from perdure.testing.faults import DropRequests, LoseReplies
from perdure.types import Commit, Committed, Scan, SessionKey

from perdure_memory.backend import MemoryBackend
from perdure_sqlite.backend import SqliteBackend
from tests.core.attachment_sources import LOT, async_pieces, content, pieces
from tests.core.wrappers import Recorder
from tests.faults.cancelling import at_await

KEY = SessionKey("default", "session", "s")


async def nothing_shows(backend: Backend, clock: TestClock) -> None:
    """No session, and after a day and a sweep nothing staged either."""
    store = Store(backend)
    assert await store.session("s").head() is None
    assert [entry async for entry in store.list()] == []
    clock.advance(STAGE_MS + 1000)
    await store.sweep()
    if isinstance(backend, SqliteBackend):
        path = backend._file.path
        db = sqlite3.connect(path)
        assert db.execute("SELECT count(*) FROM items WHERE sid < 0").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM items").fetchone() == (0,)
        db.close()
    else:
        assert isinstance(backend, MemoryBackend)
        assert not backend._stages


async def test_a_source_that_fails_leaves_nothing(backend: Backend, clock: TestClock) -> None:
    def failing() -> Generator[bytes, None, None]:
        yield content(3 * LOT)
        raise OSError("the disk is gone")

    async def failing_later() -> AsyncGenerator[bytes, None]:
        for piece in failing():
            yield piece

    class File:
        reads = 0

        def read(self, size: int) -> bytes:
            self.reads += 1
            if self.reads == 3:
                raise OSError("the disk is gone")
            return bytes(size)

    for source in (failing(), failing_later(), File()):
        with pytest.raises(OSError, match="the disk is gone"):
            await Store(backend).session("s").attachments.put(source)
    await nothing_shows(backend, clock)


async def test_wherever_it_is_cancelled_it_is_whole_or_not_there(
    backend: Backend, clock: TestClock
) -> None:
    store = Store(backend)
    data = content(3 * LOT)
    ran, number = False, 0
    while not ran:
        session = store.session("s")

        async def upload(session: Any = session) -> None:
            await session.attachments.put(pieces(data, 400_000))

        ran = await at_await(upload(), number)
        number += 1
        kept = await store.session("s").attachments.list()
        if kept:
            assert await store.session("s").attachments.read(kept[0].digest) == data
            await store.delete("s")
        else:
            assert not ran
            assert await store.session("s").head() is None
    assert number > 5
    await nothing_shows(backend, clock)


async def test_a_reader_can_be_cancelled_anywhere(backend: Backend) -> None:
    session = Store(backend).session("s")
    digest = (await session.attachments.put(content(3 * LOT))).digest

    async def read() -> None:
        await session.attachments.read(digest)

    number = 0
    while not await at_await(read(), number):
        number += 1
    assert number > 3
    assert await session.attachments.read(digest) == content(3 * LOT)


CHILD = """
import asyncio, sys, time
from perdure import Store

async def pieces():
    for n in range(100):
        yield bytes([n]) * 500_000
        if n == 60:
            print("half", flush=True)
            await asyncio.sleep(60)

async def main():
    async with Store(sys.argv[1]) as store:
        await store.session("s").attachments.put(pieces())

asyncio.run(main())
"""


def kill_half_way(path: Path) -> None:
    command = [sys.executable, "-c", CHILD, f"sqlite:///{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        child.kill()


async def test_a_process_that_is_killed_half_way_leaves_nothing(
    tmp_path: Path, clock: TestClock
) -> None:
    path = tmp_path / "sessions.db"
    kill_half_way(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM items WHERE sid < 0").fetchone() > (50,)
    (staged_at,) = db.execute("SELECT max(staged_at) FROM stages").fetchone()
    db.close()
    clock.advance(staged_at - clock())
    backend = SqliteBackend(path, clock=clock)
    await nothing_shows(backend, clock)
    await backend.aclose()


async def test_too_much_is_refused_as_soon_as_it_is_seen(
    backend: Backend, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment_parts, "MAX_PARTS", 10)
    session = Store(backend).session("s")
    given: list[int] = []

    async def note(start: int) -> None:
        given.append(start)

    with pytest.raises(TooLarge, match="2611200 bytes"):
        await session.attachments.put(async_pieces(content(12 * LOT), LOT, then=note))
    assert len(given) < 8
    put_ = await session.attachments.put(content(10 * PART_BYTES))
    assert await session.attachments.delete(put_.digest)
    await Store(backend).delete("s")
    await nothing_shows(backend, clock)


# Other writers


async def test_two_uploads_of_the_same_content_make_one_copy(backend: Backend) -> None:
    for size in (1000, 3 * LOT):
        recorder = Recorder(backend)
        store = Store(recorder)
        data = content(size, seed=1)
        both = await asyncio.gather(
            *(store.session("s").attachments.put(pieces(data, 99_999)) for _ in range(4))
        )
        assert len({each.digest for each in both}) == 1
        session = store.session("s")
        assert [each.digest for each in await session.attachments.list()] == [both[0].digest]
        assert await session.attachments.read(both[0].digest) == data
        snapshot = await backend.read(KEY, Scan(b"b", b"c"))
        assert len(snapshot.rows[0].items) == -(-size // PART_BYTES)
        assert await session.attachments.delete(both[0].digest)
        await store.delete("s")


async def test_many_uploads_and_deletions_at_once_end_whole(backend: Backend) -> None:
    store = Store(backend)
    datas = [content(size, seed=size) for size in (10, 300_000, 2 * LOT)]
    await store.session("s").append("x")

    async def worker(number: int) -> None:
        session = store.session("s")
        for n in range(6):
            data = datas[(n + number) % 3]
            put_ = await session.attachments.put(pieces(data, 200_000))
            with suppress(AttachmentNotFound):  # another worker has deleted it
                assert await session.attachments.read(put_.digest) == data
            if n % 2:
                await session.attachments.delete(put_.digest)

    await asyncio.gather(*map(worker, range(4)))
    session = store.session("s")
    kept = await session.attachments.list()
    for each in kept:
        assert len(await session.attachments.read(each.digest)) == each.size
        assert await session.attachments.delete(each.digest)
    snapshot = await backend.read(KEY, Scan(b"a", b"c"))
    assert snapshot.rows[0].items == []


class Meanwhile(Recorder):
    """Does something before the nth read, during which the others wait."""

    def __init__(self, backend: Backend, number: int, act: Callable[[], Any]) -> None:
        super().__init__(backend)
        self._number = number
        self._act = act
        self._acting = asyncio.Lock()

    async def read(self, key: SessionKey, *reads: Any) -> Any:
        async with self._acting:
            if self.reads == self._number:
                self._number = -1
                await self._act()
        return await super().read(key, *reads)


async def test_content_deleted_while_it_is_read_is_an_error_that_says_so(
    backend: Backend,
) -> None:
    store = Store(backend)
    digest = (await store.session("s").attachments.put(content(5 * LOT))).digest

    async def act() -> None:
        await store.session("s").attachments.delete(digest)

    reader = Store(Meanwhile(backend, 3, act)).session("s")
    with pytest.raises(AttachmentNotFound, match="while it was read"):
        await reader.attachments.read(digest)


async def test_content_put_again_while_it_is_read_is_read_on(backend: Backend) -> None:
    store = Store(backend)
    digest = (await store.session("s").attachments.put(content(5 * LOT))).digest

    async def act() -> None:
        await store.session("s").attachments.delete(digest)
        await store.session("s").attachments.put(content(5 * LOT))

    reader = Store(Meanwhile(backend, 3, act)).session("s")
    assert await reader.attachments.read(digest) == content(5 * LOT)


async def test_an_upload_begins_again_where_another_writer_makes_the_session(
    backend: Backend,
) -> None:
    """What is staged belongs to the session that was to be made."""
    store = Store(backend)

    async def create(given: int) -> None:
        if given >= 2 * LOT:
            await store.session("s").append("mine")

    with pytest.raises(StageMissing, match="put it again"):
        await store.session("s").attachments.put(
            async_pieces(content(4 * LOT), 500_000, then=create)
        )
    assert await store.session("s").attachments.list() == []
    await store.delete("s")

    class File:
        """Can be read again. Half-way, somebody makes the session."""

        def __init__(self) -> None:
            self.place = 0
            self.rewinds = 0

        async def read(self, size: int) -> bytes:
            if self.place >= 2 * LOT:
                await store.session("s").append("mine")
            piece = content(4 * LOT)[self.place : self.place + size]
            self.place += len(piece)
            return piece

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.place

        def seek(self, place: int) -> None:
            self.place = place
            self.rewinds += 1

    file = File()
    put_ = await store.session("s").attachments.put(file)
    assert file.rewinds == 1
    assert await store.session("s").attachments.read(put_.digest) == content(4 * LOT)


async def test_lost_replies_and_requests_do_not_show(backend: Backend) -> None:
    for number, faulty in enumerate(
        (LoseReplies(backend, {0, 2}), DropRequests(backend, {0, 2}, known=False))
    ):
        session = Store(faulty).session(f"s{number}")
        for size in (1000, 3 * LOT):
            put_ = await session.attachments.put(pieces(content(size), 99_999))
            assert await session.attachments.read(put_.digest) == content(size)
        assert faulty.faults == 2


# Content that takes several commits


@pytest.fixture
def small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one commit could make no more than a MiB visible."""
    monkeypatch.setattr(attachment_uploads, "LOTS_OF_STAGE", 1)


@pytest.mark.usefixtures("small_commits")
async def test_very_long_content_takes_several_commits(backend: Backend) -> None:
    recorder = Recorder(backend)
    session = Store(recorder).session("s")
    data = content(5 * LOT + 5)
    put_ = await session.attachments.put(pieces(data, LOT))
    assert len(recorder.commits) == 6
    assert await session.attachments.read(put_.digest) == data
    assert await session.attachments.list() == [put_]
    snapshot = await backend.read(KEY, Scan(b"a", b"b"))
    assert len(snapshot.rows[0].items) == 1


@pytest.mark.usefixtures("small_commits")
async def test_what_ends_between_those_commits_is_swept(
    backend: Backend, clock: TestClock
) -> None:
    class Dead(Recorder):
        """Answers no commit after the second."""

        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if len(self.commits) == 2:
                raise SystemError("the process is dead")
            return await super().commit(key, commit)

    with pytest.raises(SystemError):
        await Store(Dead(backend)).session("s").attachments.put(pieces(content(5 * LOT), LOT))
    session = Store(backend).session("s")
    assert await session.attachments.list() == []
    assert await session.sweep() == 0
    clock.advance(STAGE_MS + 1000)
    assert await session.sweep() == 1
    snapshot = await backend.read(KEY, Scan(b"a", b"c"))
    assert snapshot.head is not None
    assert snapshot.rows[0].items == []
    put_ = await session.attachments.put(content(5 * LOT))
    assert await session.attachments.read(put_.digest) == content(5 * LOT)


@pytest.mark.usefixtures("small_commits")
async def test_an_upload_whose_parts_were_swept_meanwhile_is_not_made_visible(
    backend: Backend, clock: TestClock
) -> None:
    class Slow(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if len(self.commits) == 2:
                clock.advance(STAGE_MS // 2 + 1000)
                clock.advance(STAGE_MS // 2 + 1000)
                await Store(backend).session("s").sweep()
            return await super().commit(key, commit)

    with pytest.raises(Conflict):
        await (
            Store(Slow(backend), deadline=0.3)
            .session("s")
            .attachments.put(pieces(content(3 * LOT), LOT))
        )
    assert await Store(backend).session("s").attachments.list() == []


@pytest.mark.usefixtures("small_commits")
async def test_a_session_deleted_between_those_commits_stays_deleted(backend: Backend) -> None:
    class Deleting(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if len(self.commits) == 2:
                await self.delete(key, id=new_id())
            return await super().commit(key, commit)

    with pytest.raises(SessionDeleted):
        await Store(Deleting(backend)).session("s").attachments.put(content(5 * LOT))
    assert await Store(backend).session("s").head() is None
