"""Copying: what comes out is what was there, and another run knows what is done."""

import random
from pathlib import Path

import msgspec
import pytest

from perdure import Conflict, Order, Store, Unavailable
from perdure.backend import Backend
from perdure.copying import Copied, Fate, copy_sessions
from perdure.copying.marks import copy_id, is_copy
from perdure.testing import TestClock
from perdure.testing.faults import Forwarding
from perdure.testing.shorthand import at, read_head, write
from perdure.types import Commit, Committed, Expect, Read, SessionKey, Snapshot

from perdure_memory.backend import MemoryBackend
from perdure_sqlite.backend import SqliteBackend
from tests.core.copies import (
    KEY,
    answers,
    change,
    copy,
    copy_one,
    everything,
    fates,
    ids,
    noise,
    same_items,
)
from tests.core.wrappers import Narrow, Recorder


@pytest.fixture
def source(clock: TestClock) -> MemoryBackend:
    """What is copied from, to the ``backend``."""
    return MemoryBackend(clock=clock)


async def test_a_copy_answers_as_the_source_does(
    source: Backend, backend: Backend, clock: TestClock
) -> None:
    chance = random.Random(1)
    store, copied = Store(source), Store(backend)
    names = [
        SessionKey(tenant, kind, f"{tenant}-{kind}-{n}")
        for tenant in ("default", "ü\n'")
        for kind in ("session", "k")
        for n in range(3)
    ]
    for _ in range(150):
        await change(store, chance.choice(names), chance)
        clock.advance(chance.choice([1, 1000, 100_000]))
    expected = await everything(store)
    assert any(said["lineage"] for said in expected.values())
    reports = await copy(source, backend)
    assert {report.key: report.fate for report in reports.values()} == dict.fromkeys(
        expected, Fate.COPIED
    )
    assert all(report.digest and report.reason is None for report in reports.values())
    assert await everything(copied) == expected


async def test_a_copy_goes_on_where_its_source_was(source: Backend, backend: Backend) -> None:
    one, other = Store(source).session("s"), Store(backend).session("s")
    for n in range(5):
        await one.append(n, n)
    await one.pop()
    position = (await one.entries(last=1)).positions[0]
    await copy(source, backend)
    assert await one.append("more") == await other.append("more")
    assert await one.entries(after=position) == await other.entries(after=position) == ["more"]
    assert await answers(Store(source)) | {"updated_at": 0} == (
        await answers(Store(backend)) | {"updated_at": 0}
    )
    head = await read_head(backend, KEY)
    assert (await read_head(source, KEY)).version == head.version == 7
    await other.truncate(before=position)
    assert await other.entries() == [4, "more"]


async def test_lists_are_in_the_same_order(
    source: Backend, backend: Backend, clock: TestClock
) -> None:
    names = [f"s{n:02}" for n in range(25)]
    random.Random(2).shuffle(names)
    for name in names:
        await Store(source).session(name).append(name)
        clock.advance(120_000)
    await copy(source, backend)
    assert await ids(Store(backend)) == sorted(names)
    assert await ids(Store(backend), Order.RECENCY) == names[::-1]


async def test_a_second_run_writes_nothing_and_reads_heads_only(
    source: Backend, backend: Backend
) -> None:
    for n in range(20):
        await Store(source).session(f"s{n}").append(n)
    await copy(source, backend)
    one, other = Recorder(source), Recorder(backend)
    assert set((await fates(one, other)).values()) == {"present"}
    assert (one.items_read, other.items_read) == (0, 0)
    assert other.commits == []
    verified = await copy(one, other, verify=True)
    assert {copied.fate for copied in verified.values()} == {Fate.PRESENT}
    assert all(copied.digest for copied in verified.values())
    assert (one.items_read, other.items_read) == (20, 20)


async def test_a_copy_that_nobody_wrote_to_is_brought_up_to_date_in_place(
    source: Backend, backend: Backend
) -> None:
    session = Store(source).session("s")
    await session.append(1, 2)
    await session.cells.put("a", 1)
    await session.set(meta=b"m", labels=("l",), expires_in=1000)
    await copy(source, backend)
    reader = Store(backend).session("s")
    assert await reader.entries() == [1, 2]
    await session.pop()
    await session.append(3)
    await session.cells.delete("a")
    await session.set(meta=b"", labels=(), never_expires=True)
    recorder = Recorder(backend)
    assert await copy_one(source, recorder) is Fate.REPLACED
    assert len(recorder.commits) == 1
    assert await answers(Store(backend)) == await answers(Store(source))
    # A handle that had read the copy before is told of what went, too.
    assert await reader.entries() == [1, 3]
    assert await same_items(source, backend)


async def test_what_was_written_at_the_target_is_not_overwritten_unasked(
    source: Backend, backend: Backend
) -> None:
    for name in ("a", "b", "c"):
        await Store(source).session(name).append(name)
    await copy(source, backend)
    await Store(backend).session("b").append("mine")
    await Store(source).session("c").append("theirs")
    reports = await copy(source, backend)
    assert {id: report.fate.value for id, report in reports.items()} == {
        "a": "present",
        "b": "refused",
        "c": "replaced",
    }
    assert reports["b"].reason == "it is there, and not as an earlier copy left it"
    assert await Store(backend).session("b").entries() == ["b", "mine"]

    assert (await fates(source, backend, overwrite=True))["b"] == "replaced"
    assert await Store(backend).session("b").entries() == ["b"]
    assert set((await fates(source, backend, verify=True)).values()) == {"present"}
    # What is replaced was two versions on, and no version comes twice.
    assert (await read_head(backend, SessionKey("default", "session", "b"))).version == 3


async def test_another_session_of_the_same_name_is_not_overwritten_unasked(
    source: Backend, backend: Backend
) -> None:
    await Store(source).session("s").append(*range(3))
    await Store(backend).session("s").append("other")
    (refused,) = (await copy(source, backend)).values()
    assert (refused.fate, refused.reason) == (
        Fate.REFUSED,
        "another session of this name is there",
    )
    assert await Store(backend).session("s").entries() == ["other"]
    assert await copy_one(source, backend, overwrite=True) is Fate.REPLACED
    assert await answers(Store(backend)) == await answers(Store(source))
    # Deleted and made anew, it is another one again, though nobody wrote to its copy.
    await Store(source).session("s").delete()
    await Store(source).session("s").append("new")
    assert await copy_one(source, backend) is Fate.REFUSED


async def test_a_copy_of_a_later_version_is_not_set_back_unasked(backend: Backend) -> None:
    early, late = MemoryBackend(), MemoryBackend()
    await Store(late).session("s").append(1)
    await copy(late, early)
    await Store(late).session("s").append(2)
    await copy(late, backend)
    (refused,) = (await copy(early, backend)).values()
    assert refused.reason == "a copy of a later version is there"
    assert await copy_one(early, backend, overwrite=True) is Fate.REPLACED
    assert await Store(backend).session("s").entries() == [1]


async def test_a_session_deleted_at_the_target_is_copied_again(
    source: Backend, backend: Backend
) -> None:
    session = Store(source).session("s")
    for n in range(3):
        await session.append(n)
        for _ in range(2):
            assert await copy_one(source, backend) is Fate.COPIED
            assert await answers(Store(backend)) == await answers(Store(source))
            await Store(backend).session("s").delete()
    assert await copy_one(source, backend) is Fate.COPIED
    await backend.sweep()
    assert await same_items(source, backend)


async def test_a_copy_of_a_copy_is_a_copy_and_so_is_the_way_back(backend: Backend) -> None:
    one, other = MemoryBackend(), MemoryBackend()
    await Store(one).session("s").append(1)
    assert await copy_one(one, backend) is Fate.COPIED
    assert await copy_one(backend, other) is Fate.COPIED
    for here, there in ((one, other), (other, one), (backend, one), (other, backend)):
        assert await copy_one(here, there) is Fate.PRESENT
    await Store(other).session("s").append(2)
    assert await copy_one(other, backend) is Fate.REPLACED
    assert await copy_one(backend, one) is Fate.REFUSED  # it is no copy, but the original
    assert await copy_one(backend, one, overwrite=True) is Fate.REPLACED
    assert await answers(Store(one)) == await answers(Store(other))


async def test_an_expired_session_is_not_copied_and_expiry_is_kept(
    source: Backend, backend: Backend, clock: TestClock
) -> None:
    await Store(source).session("s").append(1)
    await Store(source).session("s").set(expires_in=100)
    assert await copy_one(source, backend) is Fate.COPIED
    clock.advance(99_999)
    assert await Store(backend).session("s").entries() == [1]
    clock.advance(1)
    assert await Store(backend).session("s").entries() == []
    assert await fates(source, backend) == {}
    # A target whose clock is ahead of the source's.
    await Store(source).session("t").append(1)
    await Store(source).session("t").set(expires_in=100)
    later = TestClock()
    later.advance(clock() - later() + 100_000)
    ahead = MemoryBackend(clock=later)
    assert await fates(source, ahead) == {"t": "absent"}


async def test_only_what_is_asked_for_is_copied(source: Backend, backend: Backend) -> None:
    for tenant in ("a", "b"):
        for kind in ("session", "k"):
            for id in ("x1", "x2", "y"):
                await Store(source).tenant(tenant).kind(kind).session(id).append(1)

    async def copied(
        tenants: tuple[str, ...] | None, kinds: tuple[str, ...] | None, prefix: str
    ) -> set[tuple[str, str, str]]:
        reports: list[Copied] = []
        await copy_sessions(
            Store(source),
            Store(MemoryBackend()),
            tenants=tenants,
            kinds=kinds,
            prefix=prefix,
            report=reports.append,
        )
        return {(r.key.tenant, r.key.kind, r.key.id) for r in reports}

    assert len(await copied(None, None, "")) == 12
    assert await copied(("b", "b", "c"), ("k",), "x") == {("b", "k", "x1"), ("b", "k", "x2")}
    assert len(await copied(("a",), None, "y")) == 2


async def test_a_store_is_not_copied_to_itself(backend: Backend) -> None:
    with pytest.raises(ValueError, match="itself"):
        await copy(backend, backend)


async def test_two_stores_on_one_database_have_nothing_to_copy(tmp_path: Path) -> None:
    one, other = (SqliteBackend(tmp_path / "sessions.db") for _ in range(2))
    await Store(one).session("s").append(1)
    assert await copy_one(one, other, overwrite=True) is Fate.PRESENT
    await one.aclose()
    await other.aclose()


# What is too large for one page or one commit


async def test_a_large_session_comes_in_parts_and_appears_whole(
    source: Backend, backend: Backend
) -> None:
    chance = random.Random(3)
    session = Store(source).session("s")
    for n in range(60):
        await session.append(noise(chance, 2000))
        await session.cells.put(f"c{n}", n)
    await Store(source).save("s", [noise(chance, 100) for _ in range(500)])
    narrow = Narrow(backend, commit_bytes=70_000)
    recorder = Recorder(narrow)
    assert await copy_one(Narrow(source, read_bytes=5000), recorder) is Fate.COPIED
    assert narrow.stagings > 5
    assert len(recorder.commits) == 1
    assert await answers(Store(backend)) == await answers(Store(source))


class Few(Forwarding):
    """Takes seven items at a time."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.capabilities = msgspec.structs.replace(backend.capabilities, max_commit_items=7)
        self.staged: list[int] = []

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self.staged.append(len(puts))
        await super().stage(key, incarnation, stage, puts)


async def test_many_small_items_are_staged_within_the_limit_of_items(
    source: Backend, backend: Backend
) -> None:
    await Store(source).session("s").cells.update({f"c{n}": n for n in range(100)})
    few = Few(backend)
    assert await copy_one(source, few) is Fate.COPIED
    assert (len(few.staged), max(few.staged), sum(few.staged)) == (15, 7, 100)
    assert await same_items(source, backend)


async def test_an_item_that_the_target_does_not_take_fails_its_session_alone(
    source: Backend, backend: Backend
) -> None:
    await Store(source).session("a").append("small")
    await Store(source).session("b").append(noise(random.Random(4), 50_000))
    narrow = Narrow(backend, commit_bytes=10_000)
    reports = await copy(source, narrow)
    assert reports["a"].fate is Fate.COPIED
    assert reports["b"].fate is Fate.FAILED
    assert "the target takes 10000" in str(reports["b"].reason)
    assert await ids(Store(backend)) == ["a"]


# Digests


class Spoiling(Forwarding):
    """Stores something else than it was given."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        puts = tuple((item, value[:-1] + b"\0") for item, value in commit.puts)
        return await super().commit(key, msgspec.structs.replace(commit, puts=puts))


class Forgetting(Forwarding):
    """Drops a setting."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await super().commit(key, msgspec.structs.replace(commit, meta=None))


@pytest.mark.parametrize("broken", [Spoiling, Forgetting])
async def test_a_copy_that_reads_back_otherwise_fails_and_does_not_stay(
    source: Backend, backend: Backend, broken: type[Forwarding]
) -> None:
    await Store(source).session("s").append("precious")
    await Store(source).session("s").set(meta=b"precious")
    (failed,) = (await copy(source, broken(backend))).values()
    assert failed.fate is Fate.FAILED
    assert "differs" in str(failed.reason)
    assert await ids(Store(backend)) == []
    assert await copy_one(source, backend) is Fate.COPIED


async def test_verifying_finds_what_differs_and_overwriting_mends_it(
    source: Backend, backend: Backend
) -> None:
    await Store(source).session("s").append(1)
    here = await read_head(source, KEY)
    await write(
        backend,
        KEY,
        id=copy_id(here, 1),
        new_incarnation=here.incarnation,
        expect=Expect.ABSENT,
        puts=((b"c", b"not this"),),
    )
    assert await copy_one(source, backend) is Fate.PRESENT
    (refused,) = (await copy(source, backend, verify=True)).values()
    assert refused.fate is Fate.REFUSED
    assert "differs" in str(refused.reason)
    assert await copy_one(source, backend, verify=True, overwrite=True) is Fate.REPLACED
    assert await Store(backend).session("s").entries() == [1]
    assert await copy_one(source, backend, verify=True) is Fate.PRESENT


async def test_a_commit_at_a_copy_makes_it_an_ordinary_session(
    source: Backend, backend: Backend
) -> None:
    await Store(source).session("s").append(1)
    await copy(source, backend)
    head = await read_head(backend, KEY)
    assert is_copy(head)
    await write(backend, KEY, expect=at(head))
    assert not is_copy(await read_head(backend, KEY))
    with pytest.raises(Conflict):
        await write(backend, KEY, expect=at(head))


class Away(Forwarding):
    """Is not there."""

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        raise Unavailable("nobody answers", lasting=True)


async def test_a_store_that_is_away_ends_the_copy(source: Backend, backend: Backend) -> None:
    for n in range(20):
        await Store(source).session(f"s{n}").append(1)
    with pytest.raises(Unavailable, match="nobody answers"):
        await copy(source, Away(backend))
