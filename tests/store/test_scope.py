"""Lists, expiry, erasure, export and lineage of stores on every backend."""

import asyncio

import pytest

from perdure import Cell, Log, Order, Session, SessionDeleted, Store
from perdure.exporting import AttachmentRecord, ChunkRecord, EndRecord, EntryRecord
from perdure.testing import Harness
from perdure.testing.rooms.room import let_pass


async def listed(harness: Harness, store: Store) -> None:
    """Let pass what lists are behind by."""
    limits = store.backend.capabilities
    await let_pass(harness, max(limits.list_lag, limits.recency_lag))


async def ids(
    store: Store, *, label: str | None = None, prefix: str = "", order: Order = Order.ID
) -> list[str]:
    """Through pages of four."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.page(limit=4, cursor=cursor, label=label, prefix=prefix, order=order)
        found += [entry.key.id for entry in page.items]
        cursor = page.cursor
        if cursor is None:
            return found


async def test_pages_show_every_session_with_what_it_carries(
    harness: Harness, any_store: Store
) -> None:
    names = [f"{n:02}/é" for n in range(10)]
    for n, name in enumerate(names):
        await any_store.session(name).set(
            meta=b"%d" % n, labels=("even", "all") if n % 2 == 0 else ("all",)
        )
    await listed(harness, any_store)
    assert await ids(any_store) == names
    assert await ids(any_store, prefix="0") == names
    assert await ids(any_store, label="even") == names[::2]
    assert await ids(any_store, label="all", prefix="00") == names[:1]
    assert sorted(await ids(any_store, order=Order.RECENCY)) == names
    assert sorted(await ids(any_store, label="even", order=Order.RECENCY)) == names[::2]
    page = await any_store.page(label="even")
    assert [entry.head.meta for entry in page.items] == [b"0", b"2", b"4", b"6", b"8"]
    assert all(set(entry.head.labels) == {"even", "all"} for entry in page.items)


async def test_several_sessions_are_read_at_once(any_store: Store) -> None:
    for n in range(10):
        await any_store.session(f"s{n}").append(n)
    found = await any_store.read_many([f"s{n}" for n in range(11)], Log(), Cell("c", 0))
    assert found == {f"s{n}": ([n] if n < 10 else [], 0) for n in range(11)}


async def test_erasing_takes_all_of_a_tenant_and_nothing_else(
    harness: Harness, any_store: Store
) -> None:
    mine, other = any_store.tenant("mine"), any_store.tenant("other")
    for scope in (mine, other):
        for kind in ("session", "job"):
            for n in range(5):
                await scope.kind(kind).session(f"s{n}").append(n)
    session = mine.session("s0")
    await session.append("a")
    assert await mine.erase() == 10
    with pytest.raises(SessionDeleted):
        await session.append("b")
    await listed(harness, any_store)
    assert [record async for record in mine.export()] == []
    assert len([entry async for entry in other.list()]) == 5


async def test_erasing_by_label_while_others_write_leaves_nothing_that_carried_it(
    harness: Harness, any_store: Store
) -> None:
    scope = any_store.tenant("mine")
    sessions = [scope.session(f"s{n}") for n in range(8)]
    for n, session in enumerate(sessions):
        await session.set(labels=("red",) if n < 6 else ("blue",))
    erased = asyncio.Event()

    async def write(session: Session) -> int:
        """Until it is deleted, or has not been."""
        n = 0
        while not erased.is_set():
            await session.append(n)
            await asyncio.sleep(0)
            n += 1
        return n

    writing = [asyncio.create_task(write(session)) for session in sessions]
    assert await scope.erase(label="red") == 6
    erased.set()
    results = await asyncio.gather(*writing, return_exceptions=True)
    assert all(isinstance(result, SessionDeleted) for result in results[:6])
    left = [len(await session.entries()) for session in sessions[6:]]
    assert left == results[6:]
    await listed(harness, any_store)
    assert [entry.key.id async for entry in scope.list()] == ["s6", "s7"]


async def test_idle_sessions_expire_and_others_do_not(
    harness: Harness, any_store: Store
) -> None:
    idle = 1.0
    busy, left, pinned = (
        any_store.session(name, idle_expiry=idle) for name in ("busy", "left", "pinned")
    )
    for session in (busy, left, pinned):
        await session.append(0)
    await any_store.session("pinned").set(never_expires=True)
    for n in range(4):
        await let_pass(harness, 400)
        await busy.append(n)
        await pinned.append(n)
    assert len(await busy.entries()) == 5
    assert await any_store.session("left").entries() == []
    with pytest.raises(SessionDeleted):
        await left.append(1)
    head = await pinned.head()
    assert head is not None
    assert head.expires_at is None


async def test_what_is_exported_is_what_is_there(harness: Harness, any_store: Store) -> None:
    session = any_store.session("s")
    content = bytes(range(256)) * 2000
    await session.append("a", {"n": 2**70})
    await session.append("x" * 100_000, "b")
    await session.stream("branch").append(1, 2)
    await session.cells.update({"step": 3})
    await any_store.save("s", {"files": ["f" * 1000] * 100})
    attachment = await session.attachments.put(content, media_type="image/png")
    await session.set(meta=b"m", labels=("red",))
    await listed(harness, any_store)
    records = [record async for record in any_store.export(label="red")]
    entries = [(r.stream, r.value) for r in records if isinstance(r, EntryRecord)]
    assert entries == [
        ("", "a"),
        ("", {"n": 2**70}),
        ("", "x" * 100_000),
        ("", "b"),
        ("branch", 1),
        ("branch", 2),
    ]
    assert [r.attachment for r in records if isinstance(r, AttachmentRecord)] == [attachment]
    assert b"".join(r.data for r in records if isinstance(r, ChunkRecord)) == content
    assert records[-1] == EndRecord(whole=True, cells=1, entries=6, attachments=1)


async def test_a_fork_has_all_that_its_parent_had_and_goes_with_it_if_asked(
    harness: Harness, any_store: Store
) -> None:
    root = any_store.session("root")
    await root.append("a", "b")
    at = await root.append("c", "d")
    await root.stream("branch").append(1, "x" * 100_000, 3)
    await root.cells.put("step", 3)
    await any_store.save("root", {"a": 1})
    small = await root.attachments.put(b"small")
    large = await root.attachments.put(bytes(range(256)) * 8000)
    await root.derive("summary", "abcd", at=at)
    copy = await root.fork("copy")
    assert await copy.entries() == ["a", "b", "c", "d"]
    assert await copy.streams() == ["branch"]
    assert await copy.stream("branch").entries() == [1, "x" * 100_000, 3]
    assert await copy.cells.get("step") == 3
    assert await any_store.load("copy") == {"a": 1}
    assert {a.digest: a for a in await copy.attachments.list()} == {
        small.digest: small,
        large.digest: large,
    }
    assert (await copy.resume("summary")).value is None
    await (await copy.fork("grandchild", at=(await copy.entries()).positions[0])).append("e")
    assert await any_store.session("grandchild").entries() == ["a", "e"]
    await root.delete()
    assert await copy.attachments.read(large.digest) == bytes(range(256)) * 8000
    assert await copy.attachments.read(small.digest) == b"small"
    assert await any_store.delete("copy", forks=True)
    await listed(harness, any_store)
    assert [entry async for entry in any_store.list()] == []


async def test_many_writers_at_once_neither_shorten_nor_lose_a_sliding_life(
    harness: Harness, any_store: Store
) -> None:
    idle = 2.0
    writers = [any_store.session("s", idle_expiry=idle) for _ in range(8)]

    async def write(session: Session) -> None:
        for n in range(6):
            await session.append(n)
            await asyncio.sleep(0)

    for _ in range(3):
        await asyncio.gather(*map(write, writers))
        snapshot = await any_store.backend.read(any_store.key("s"))
        assert snapshot.head is not None
        assert snapshot.head.expires_at is not None
        error = any_store.backend.capabilities.clock_error
        left = snapshot.head.expires_at - snapshot.now
        # Reading this took time where time passes by itself.
        assert idle * 1000 / 2 < left <= idle * 1000 * 17 / 16 + error
        await let_pass(harness, 300)
    assert len(await any_store.session("s").entries()) == 3 * 8 * 6
