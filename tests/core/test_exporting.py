"""Exporting: everything that a session holds, as of a version, in bounded memory."""

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from perdure import InvalidKey, Scope, Store
from perdure.backend import Backend
from perdure.exporting import (
    AttachmentRecord,
    CellRecord,
    ChunkRecord,
    DocumentRecord,
    EndRecord,
    EntryRecord,
    Record,
    SessionRecord,
)
from perdure.testing import TestClock

from tests.core.wrappers import Narrow

LONG = "x" * 200_000
"""An entry of more than two rows."""


async def exported(scope: Scope, **how: Any) -> list[Record]:
    return [record async for record in scope.export(**how)]


def entries(records: list[Record]) -> list[tuple[str, Any]]:
    return [(r.stream, r.value) for r in records if isinstance(r, EntryRecord)]


async def rich(store: Store, id: str = "s") -> None:
    """A session with some of everything."""
    session = store.session(id)
    await session.append({"role": "user", "at": datetime(2026, 1, 2, tzinfo=UTC)}, b"\0\xff")
    at = await session.append(Decimal("1.10"), 2**70, LONG)
    await session.stream("é/branch").append("b1", "b2")
    await session.stream("agent").append("a1")
    await session.cells.update({"step": 3, "z": None})
    await session.cells.put("soon", 1, expires_in=60)
    await session.set(meta=b"m", labels=("red",), expires_in=3600)
    await session.derive("summary", "derived", at=at)
    await session.append("keyed", key="webhook-1")
    await store.save(id, {"files": {"a": "b"}})


async def test_all_of_a_session_comes_out_and_in_order(store: Store, clock: TestClock) -> None:
    await rich(store)
    session = store.session("s")
    head, positions = await session.head(), (await session.entries()).positions
    begin, document, *rest = await exported(store)
    assert head is not None
    assert begin == SessionRecord(session.key, head, None)
    assert document == DocumentRecord({"files": {"a": "b"}})
    soon = clock() + 60_000
    assert rest[:3] == [
        CellRecord("soon", 1, soon),
        CellRecord("step", 3, None),
        CellRecord("z", None, None),
    ]
    log = [
        {"role": "user", "at": datetime(2026, 1, 2, tzinfo=UTC)},
        b"\0\xff",
        Decimal("1.10"),
        2**70,
        LONG,
        "keyed",
    ]
    assert rest[3:9] == [EntryRecord("", *each) for each in zip(positions, log, strict=True)]
    assert entries(rest[9:-1]) == [("agent", "a1"), ("é/branch", "b1"), ("é/branch", "b2")]
    assert rest[-1] == EndRecord(whole=True, cells=3, entries=9, attachments=0)
    assert not any("derived" in repr(record) for record in rest)


async def test_an_expired_cell_is_not_there(store: Store, clock: TestClock) -> None:
    await store.session("s").cells.put("gone", 1, expires_in=1)
    clock.advance(1000)
    _, end = await exported(store)
    assert end == EndRecord(whole=True, cells=0, entries=0, attachments=0)


async def test_attachments_come_with_their_content(store: Store) -> None:
    session = store.session("s")
    content = bytes(range(256)) * 4000
    await session.append("a")
    small = await session.attachments.put(b"small", media_type="text/plain")
    empty = await session.attachments.put(b"")
    large = await session.attachments.put(content)
    found: dict[str, bytes] = {}
    current = ""
    records = await exported(store)
    for record in records:
        if isinstance(record, AttachmentRecord):
            current = record.attachment.digest
            found[current] = b""
        elif isinstance(record, ChunkRecord):
            assert len(record.data) <= 255 * 1024
            found[current] += record.data
    assert found == {small.digest: b"small", empty.digest: b"", large.digest: content}
    attachments = [r.attachment for r in records if isinstance(r, AttachmentRecord)]
    assert small in attachments
    assert records[-1] == EndRecord(whole=True, cells=0, entries=1, attachments=3)


async def test_a_tenant_is_exported_of_every_kind_and_nothing_of_others(store: Store) -> None:
    for tenant in ("acme", "other"):
        for kind in ("session", "job"):
            for n in range(3):
                session = store.tenant(tenant).kind(kind).session(f"s{n}")
                await session.set(labels=("red",) if n == 1 else ("blue",))
                await session.append(f"{tenant}/{kind}/{n}")
    records = await exported(store.tenant("acme"))
    assert [value for _, value in entries(records)] == [
        f"acme/{kind}/{n}" for kind in ("job", "session") for n in range(3)
    ]
    assert entries(await exported(store.tenant("acme"), label="red")) == [
        ("", "acme/job/1"),
        ("", "acme/session/1"),
    ]
    assert await exported(store.tenant("nobody")) == []
    with pytest.raises(InvalidKey):
        await exported(store, label="")


async def test_a_fork_says_where_it_comes_from(store: Store) -> None:
    session = store.session("s")
    at = await session.append("a", "b")
    await session.fork("copy", at=at)
    copy, *_ = await exported(store)
    assert isinstance(copy, SessionRecord)
    assert copy.lineage is not None
    assert (copy.lineage.parent, copy.lineage.position) == (session.key, at)


async def test_records_have_a_json_form_that_tells_them_apart(store: Store) -> None:
    await store.session("s").append({"a": 1})
    await store.session("s").cells.put("c", [1])
    lines = [msgspec.json.decode(msgspec.json.encode(r)) for r in await exported(store)]
    assert [line["type"] for line in lines] == ["session", "cell", "entry", "end"]
    assert lines[0]["key"] == {"tenant": "default", "kind": "session", "id": "s"}
    assert lines[2]["value"] == {"a": 1}


@pytest.mark.parametrize("read_bytes", [1, 1000, 70_000])
async def test_what_is_read_in_many_pages_is_the_same(
    backend: Backend, read_bytes: int
) -> None:
    store = Store(backend)
    await rich(store)
    session = store.session("s")
    for n in range(20):
        await session.append(n, "." * 300)
        await session.stream("agent").append(n)
        await session.cells.put(f"c{n}", n)
    await session.append(LONG, LONG)
    narrow = Store(Narrow(backend, read_bytes=read_bytes))
    assert await exported(narrow) == await exported(store)


async def paged(backend: Backend, at: int, meanwhile: Any) -> list[Record]:
    """An export in many pages, with something done once ``at`` entries have come."""
    narrow = Store(Narrow(backend, read_bytes=1))
    records: list[Record] = []
    exporting: AsyncGenerator[Record, None] = narrow.export()
    async with aclosing(exporting):
        async for record in exporting:
            records.append(record)
            if len(entries(records)) == at and meanwhile is not None:
                await meanwhile()
                meanwhile = None
    return records


async def test_what_is_appended_meanwhile_is_left_out(backend: Backend) -> None:
    store = Store(backend)
    session = store.session("s")
    for n in range(5):
        await session.append(n)
        await session.stream("b").append(n)

    async def append() -> None:
        await session.append("late")
        await session.stream("b").append("late")
        await session.stream("a").append("late")

    before = await exported(store)
    for at in range(1, 10):
        records = await paged(backend, at, append)
        assert entries(records) == entries(before)
        assert records[-1] == before[-1]
        begin = records[0]
        assert isinstance(begin, SessionRecord)
        await session.truncate(after=(await session.entries()).positions[4])
        await session.stream("a").delete()
        positions = (await session.stream("b").entries()).positions
        await session.stream("b").truncate(after=positions[4])
        before = await exported(store)


async def test_what_is_removed_meanwhile_may_be_missing_and_nothing_else_is(
    backend: Backend,
) -> None:
    for at in range(1, 4):
        store = Store(backend, tenant="t")
        await store.erase()
        session = store.session("s")
        await session.append("a", "b", "c")
        await session.append(LONG)
        await session.append("d", "e", "f")
        cut = (await session.entries()).positions[4]
        narrow = Store(Narrow(backend, read_bytes=1), tenant="t")
        records: list[Record] = []
        async for record in narrow.export():
            records.append(record)
            if len(entries(records)) == at:
                await session.truncate(before=cut)  # a row is written again, shorter
                await session.pop()
        left = [value for _, value in entries(records)]
        assert left in (["a", "b", "c", "d", "e"], ["a", "b", "c", LONG, "d", "e"])
        assert records[-1] == EndRecord(whole=False, cells=0, entries=len(left), attachments=0)


@pytest.mark.parametrize("successor", [False, True])
async def test_a_session_that_is_deleted_meanwhile_ends_and_says_so(
    backend: Backend, successor: bool
) -> None:
    store = Store(backend)
    for n in range(5):
        await store.session("s").append(n)

    async def delete() -> None:
        await store.delete("s")
        if successor:
            await store.session("s").append("another")

    records = await paged(backend, 2, delete)
    assert [value for _, value in entries(records)] in ([0, 1], [0, 1, 2])
    end = records[-1]
    assert isinstance(end, EndRecord)
    assert not end.whole
    assert end.entries == len(entries(records))


async def test_an_attachment_deleted_meanwhile_stops_short_and_the_rest_comes(
    store: Store,
) -> None:
    session = store.session("s")
    contents = [bytes([n]) * 3_000_000 for n in range(2)]
    for content in contents:
        await session.attachments.put(content)
    shown: list[str] = []
    sizes: dict[str, int] = {}
    end: Record | None = None
    async for record in store.export():
        if isinstance(record, AttachmentRecord):
            shown.append(record.attachment.digest)
            sizes[shown[-1]] = 0
            if len(shown) == 1:
                await session.attachments.delete(shown[0])
        elif isinstance(record, ChunkRecord):
            sizes[shown[-1]] += len(record.data)
        end = record
    assert sizes[shown[0]] < 3_000_000
    assert sizes[shown[1]] == 3_000_000
    assert end == EndRecord(whole=False, cells=0, entries=0, attachments=2)


async def test_a_long_session_is_exported_in_little_memory(backend: Backend) -> None:
    store = Store(backend)
    session = store.session("s", idle_expiry=0)
    for n in range(40):
        await session.append(*(f"{n:04}-{m:04}" + "." * 1000 for m in range(1000)))
    await asyncio.sleep(0)
    fresh = Store(backend)
    del session
    tracemalloc.start()
    try:
        count = 0
        async for record in fresh.export():
            count += isinstance(record, EntryRecord)
            del record
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 40_000
    assert peak < 16 << 20, "of 40 MB"
