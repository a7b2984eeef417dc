"""Sweeping: what lapsed goes, and attachments that nothing refers to."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
import pytest

from perdure import Corrupt, Session, Store
from perdure.backend import Backend
from perdure.client import Client, new_id
from perdure.codec import Codec
from perdure.handle import Handle
from perdure.testing import TestClock
from perdure.types import Append, Commit, Committed, Scan, SessionKey

from tests.core.attachment_sources import LOT, content
from tests.core.wrappers import Narrow, Recorder

DAY = 24 * 3600 * 1000 + 10_000

KEY = SessionKey("default", "session", "s")


async def digests(session: Session) -> set[str]:
    return {attachment.digest for attachment in await session.attachments.list()}


async def in_long_entry(session: Session, digest: str) -> None:
    """Over the boundary between two rows."""
    await session.append({"text": "." * (65_536 - 40) + digest + "." * 100_000})


async def in_document(session: Session, digest: str) -> None:
    await session.save({"messages": [content(300, n).hex() for n in range(500)], "at": digest})


async def in_document_text(session: Session, digest: str) -> None:
    text = content(200_000).hex()
    await session.save({"page": text[:150_001] + digest + text[150_001:]})


async def in_derived(session: Session, digest: str) -> None:
    at = await session.append("x")
    await session.derive("summary", f"see {digest}", at=at)


NAMING: dict[str, Callable[[Session, str], Awaitable[object]]] = {
    "an entry": lambda session, digest: session.append({"file": [digest]}),
    "an entry of many": lambda session, digest: session.append(*range(5000), digest),
    "a compressed entry": lambda session, digest: session.append("x" * 30_000 + digest),
    "a long entry": in_long_entry,
    "a stream": lambda session, digest: session.stream("agent").append(f"sha256:{digest}"),
    "a cell": lambda session, digest: session.cells.put("avatar", digest),
    "a derived value": in_derived,
    "the document": in_document,
    "a long text in the document": in_document_text,
    "digits without end": lambda session, digest: session.append(
        "ab" * 9999 + digest + "c" * 99
    ),
    "capitals": lambda session, digest: session.append(f"SHA256:{digest.upper()}"),
    "the name of a cell": lambda session, digest: session.cells.put(f"file/{digest}", "a.png"),
    "the name of a stream": lambda session, digest: session.stream(f"on-{digest}").append(1),
    "meta": lambda session, digest: session.set(meta=b"v1 " + digest.encode()),
    "a label": lambda session, digest: session.set(labels=("a", digest)),
}


@pytest.mark.parametrize("name", NAMING.values(), ids=NAMING)
async def test_what_is_named_stays_and_what_is_not_goes(
    store: Store, clock: TestClock, name: Callable[[Session, str], Awaitable[object]]
) -> None:
    session = store.session("s")
    named = await session.attachments.put(b"named")
    unnamed = await session.attachments.put(content(2 * LOT))
    await name(session, named.digest)
    assert await session.sweep() == 0  # both are new
    clock.advance(DAY)
    fresh = await session.attachments.put(b"fresh")
    assert await session.sweep() == 1
    assert await digests(session) == {named.digest, fresh.digest}
    assert await session.attachments.read(named.digest) == b"named"
    assert await session.attachments.stat(unnamed.digest) is None
    assert await session.sweep() == 0


async def test_parts_go_with_what_they_are_of(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    session = store.session("s")
    await session.attachments.put(content(2 * LOT))
    clock.advance(DAY)
    assert await session.sweep() == 1
    snapshot = await backend.read(KEY, Scan(b"a", b"c"))
    assert snapshot.rows[0].items == []


async def test_putting_content_again_keeps_it(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    put = await session.attachments.put(b"again")
    clock.advance(DAY)
    await session.attachments.put(b"again")
    assert await session.sweep() == 0
    assert await digests(session) == {put.digest}


async def test_part_of_a_digest_names_nothing(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    put = await session.attachments.put(b"x")
    await session.append(put.digest[:-1], put.digest[1:])
    clock.advance(DAY)
    assert await session.sweep() == 1


async def test_of_very_many_those_that_are_named_stay(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    put = [await session.attachments.put(str(n).encode()) for n in range(50)]
    named = {put[7].digest, put[30].digest, put[49].digest}
    one, *others = named
    await session.append(f"{'0' * 500}{one}{'f' * 500}", *others)
    clock.advance(DAY)
    assert await session.sweep() == 47
    assert await digests(session) == named


async def test_a_damaged_session_does_not_keep_others_from_being_swept(
    store: Store, backend: Backend, clock: TestClock
) -> None:
    for id in ("a", "b", "c"):
        await store.session(id).attachments.put(b"x")
    key = SessionKey("default", "session", "b")
    (row,) = (await backend.read(key, Scan(b"a", b"b"))).rows[0].items
    other = Codec().seal(key, {"size": 1})
    await Handle(Client(backend, deadline=5), key).commit(puts=((row.key, other),))
    clock.advance(DAY)
    assert await store.sweep() == 2
    with pytest.raises(Corrupt):
        await store.session("b").sweep()


async def test_lapsed_cells_and_keys_go(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    await session.cells.put("short", 1, expires_in=60)
    await session.cells.put("long", 2, expires_in=100 * 3600)
    await session.cells.put("ever", 3)
    await session.append("x", key="webhook-1")
    clock.advance(120_000)
    assert await session.sweep() == 1
    assert await session.cells.scan() == {"long": 2, "ever": 3}
    clock.advance(DAY)
    await session.append("y", key="webhook-2")
    assert await session.sweep() == 2  # what was appended under a key, and where
    assert await session.entries() == ["x", "y"]
    assert await session.append("y", key="webhook-2")
    assert await session.entries() == ["x", "y"]
    assert await session.cells.scan() == {"long": 2, "ever": 3}


async def test_there_may_be_nothing_to_sweep(store: Store) -> None:
    session = store.session("s")
    assert await session.sweep() == 0
    assert await session.head() is None
    await session.append("x")
    head = await session.head()
    assert await session.sweep() == 0
    assert await session.head() == head


async def test_a_session_with_nothing_old_costs_one_read(backend: Backend) -> None:
    recorder = Recorder(backend)
    session = Store(recorder).session("s")
    await session.append(*range(1000))
    await session.attachments.put(b"new")
    await session.cells.put("a", 1)
    recorder.reset()
    await session.sweep()
    assert (recorder.reads, recorder.items_read) == (1, 2)


async def test_large_sessions_are_looked_through_in_pages(
    backend: Backend, clock: TestClock
) -> None:
    session = Store(backend).session("s")
    named = await session.attachments.put(b"named")
    other = await session.attachments.put(b"other")
    await session.cells.update({f"c{n}": "x" * 100 for n in range(50)})
    await session.cells.put("gone", 1, expires_in=1)
    for n in range(30):
        await session.append(f"{n}" * 100)
    await session.append(named.digest)
    clock.advance(DAY)
    narrow = Narrow(backend, read_bytes=500)
    assert await Store(narrow).session("s").sweep() == 2
    assert narrow.reads > 20
    assert await session.attachments.list() == [named]
    assert await session.attachments.stat(other.digest) is None


async def test_many_things_go_in_several_commits(backend: Backend, clock: TestClock) -> None:
    session = Store(backend).session("s")
    for n in range(25):
        await session.cells.put(f"c{n}", 1, expires_in=1)
    clock.advance(DAY)

    class Few(Recorder):
        def __init__(self, backend: Backend) -> None:
            super().__init__(backend)
            self.capabilities = msgspec.structs.replace(
                backend.capabilities, max_commit_items=20
            )

    few = Few(backend)
    assert await Store(few).session("s").sweep() == 25
    assert len(few.commits) == 3
    assert await session.cells.scan() == {}


async def test_what_is_named_just_then_stays(backend: Backend, clock: TestClock) -> None:
    session = Store(backend).session("s")
    put = await session.attachments.put(b"x")
    clock.advance(DAY)

    class Naming(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            if not self.commits:
                await Store(backend).session("s").append(put.digest)
            return await super().commit(key, commit)

    naming = Naming(backend)
    assert await Store(naming).session("s").sweep() == 0
    assert len(naming.commits) == 1
    assert await session.attachments.read(put.digest) == b"x"


async def test_a_session_that_changes_all_the_time_is_left(
    backend: Backend, clock: TestClock
) -> None:
    session = Store(backend).session("s")
    put = await session.attachments.put(b"x")
    clock.advance(DAY)

    class Busy(Recorder):
        async def commit(self, key: SessionKey, commit: Commit) -> Committed:
            await Store(backend).session("s").append("busy")
            return await super().commit(key, commit)

    busy = Busy(backend)
    assert await Store(busy).session("s").sweep() == 0
    assert len(busy.commits) == 3
    assert await session.attachments.stat(put.digest) == put


async def test_a_sweep_does_not_extend_a_life(backend: Backend, clock: TestClock) -> None:
    store = Store(backend, idle_expiry=3 * 24 * 3600)
    session = store.session("s")
    await session.attachments.put(b"x")
    before = await session.head()
    clock.advance(DAY)
    assert await session.sweep() == 1
    after = await store.session("s").head()
    assert before is not None
    assert after is not None
    assert after.expires_at == before.expires_at


async def test_a_store_sweeps_all_its_sessions(store: Store, clock: TestClock) -> None:
    for tenant in ("a", "b"):
        for kind in ("session", "task"):
            for n in range(10):
                session = store.tenant(tenant).kind(kind).session(f"s{n}")
                kept = await session.attachments.put(b"kept")
                await session.attachments.put(b"unnamed")
                await session.append(kept.digest)
    await store.session("expired").set(expires_at=datetime.fromtimestamp(1.8e9, UTC))
    clock.advance(DAY)
    steps: list[int] = []
    assert await store.sweep(steps.append) == sum(steps) == 40
    session = store.tenant("b").kind("task").session("s7")
    assert len(await session.attachments.list()) == 1
    assert await store.sweep() == 0


async def test_a_damaged_session_stops_no_sweep_of_the_others(
    backend: Backend, clock: TestClock
) -> None:
    store = Store(backend)
    for id in ("a", "b", "c"):
        await store.session(id).attachments.put(b"unnamed")
        await store.session(id).append("x")
    await backend.commit(
        SessionKey("default", "session", "b"),
        Commit(
            id=new_id(),
            digest=bytes(8),
            new_incarnation=new_id(),
            appends=(Append(b"l\0", (b"\1\1rubbish",)),),
        ),
    )
    clock.advance(DAY)
    with pytest.raises(Corrupt):
        await store.session("b").sweep()
    assert await store.sweep() == 2
    assert len(await store.session("b").attachments.list()) == 1
