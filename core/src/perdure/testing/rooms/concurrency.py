"""Many at once: nothing lost, nothing doubled, nothing half done, no mixture ever seen."""

import asyncio
import random
from collections import Counter

from perdure.backend import Backend
from perdure.errors import Conflict, StageMissing
from perdure.testing.harness import Harness
from perdure.testing.history import violations
from perdure.testing.recorder import AnyCall, Recorder
from perdure.testing.rooms.room import Connect, Room
from perdure.testing.shorthand import (
    at,
    new_commit,
    new_id,
    read_head,
    read_items,
    resent,
    write,
)
from perdure.types import (
    Append,
    Commit,
    Condition,
    Expect,
    Get,
    KeyRange,
    Scan,
    SessionKey,
)

WRITERS = 8
EACH = 12


async def clients(harness: Harness, connect: Connect, count: int) -> list[Backend]:
    """So many backends; all the same one where there is but one."""
    return [await connect() for _ in range(count if harness.shared else 1)]


async def increment(backend: Backend, key: SessionKey) -> None:
    """Add one to a counter by compare and set on the whole session."""
    while True:
        snapshot = await backend.read(key, Get(b"n"))
        assert snapshot.head is not None
        n = int(snapshot.rows[0].items[0].value)
        try:
            await write(backend, key, expect=at(snapshot.head), puts=((b"n", b"%d" % (n + 1)),))
        except Conflict:
            continue
        return


async def increment_item(backend: Backend, key: SessionKey) -> None:
    """Add one to a counter on condition that this item is as it was read."""
    while True:
        (item,) = (await backend.read(key, Get(b"n"))).rows[0].items
        puts = ((b"n", b"%d" % (int(item.value) + 1)),)
        try:
            await write(backend, key, conditions=(Condition(b"n", item.version),), puts=puts)
        except Conflict:
            continue
        return


class Concurrency(Room):
    async def test_concurrent_appends_are_all_there_once_and_in_order(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        calls: list[AnyCall] = []
        backends = [
            Recorder(backend, calls.append) for backend in await clients(harness, connect, 3)
        ]

        async def writer(name: int) -> None:
            for number in range(EACH):
                log = (Append(b"log", (b"%d/%d" % (name, number),)),)
                await write(backends[name % len(backends)], key, appends=log)

        await asyncio.gather(*(writer(name) for name in range(WRITERS)))
        head = await read_head(backends[0], key)
        assert head.version == WRITERS * EACH
        assert violations(calls, await read_items(backends[0], key), head) == []

    async def test_of_two_creators_one_wins(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        backends = await clients(harness, connect, 4)

        async def create(name: int, session: SessionKey) -> int | None:
            commit = new_commit(expect=Expect.ABSENT, puts=((b"who", b"%d" % name),))
            try:
                await backends[name % len(backends)].commit(session, commit)
            except Conflict:
                return None
            return name

        for n in range(10):
            session = SessionKey(key.tenant, key.kind, str(n))
            made = await asyncio.gather(*(create(name, session) for name in range(4)))
            winners = [name for name in made if name is not None]
            assert len(winners) == 1
            (item,) = await read_items(backends[0], session)
            assert item.value == b"%d" % winners[0]
            assert (await read_head(backends[0], session)).version == 1

    async def test_compare_and_set_on_the_version_loses_no_increment(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        backends = await clients(harness, connect, 3)
        await write(backends[0], key, puts=((b"n", b"0"),))

        async def worker(backend: Backend) -> None:
            for _ in range(5):
                await increment(backend, key)

        await asyncio.gather(*(worker(backends[n % len(backends)]) for n in range(6)))
        (item,) = await read_items(backends[0], key)
        assert item.value == b"30"
        assert (await read_head(backends[0], key)).version == 31

    async def test_compare_and_set_on_an_item_loses_no_increment(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        backends = await clients(harness, connect, 3)
        await write(backends[0], key, puts=((b"n", b"0"),))

        async def worker(backend: Backend) -> None:
            for _ in range(5):
                await increment_item(backend, key)

        async def bystander(backend: Backend) -> None:
            for n in range(10):
                await write(backend, key, puts=((b"other", b"%d" % n),))

        await asyncio.gather(
            *(worker(backends[n % len(backends)]) for n in range(6)), bystander(backends[0])
        )
        values = {item.key: item.value for item in await read_items(backends[0], key)}
        assert values == {b"n": b"30", b"other": b"9"}
        assert (await read_head(backends[0], key)).version == 41

    async def test_who_loses_the_lease_meanwhile_writes_nothing(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        """Holders take the lease from one another, and write while they think they have it."""
        backends = await clients(harness, connect, 3)
        taken: list[int] = []

        async def hold(backend: Backend) -> None:
            for _ in range(6):
                (rows,) = (await backend.read(key, Get(b"lease"))).rows
                seen = Condition(b"lease", rows.items[0].version if rows.items else 0)
                puts = ((b"lease", b"taken"),)
                try:
                    made = await write(backend, key, conditions=(seen,), puts=puts)
                except Conflict:
                    continue
                taken.append(made.version)
                fence = Condition(b"lease", made.version)
                work = (Append(b"log", (b"%d" % made.version,)),)
                for _ in range(3):
                    try:
                        await write(backend, key, conditions=(fence,), appends=work)
                    except Conflict:
                        break

        await asyncio.gather(*(hold(backends[n % len(backends)]) for n in range(6)))
        written = [item for item in await read_items(backends[0], key) if item.key != b"lease"]
        held = [max(at for at in taken if at < item.version) for item in written]
        assert [int(item.value) for item in written] == held

    async def test_a_range_deleted_among_appends_takes_all_before_it_and_none_after(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        backends = await clients(harness, connect, 3)
        appended: list[int] = []
        deleted: list[int] = []

        async def append(backend: Backend) -> None:
            for _ in range(EACH):
                log = (Append(b"log", (b"1", b"2")),)
                appended.append((await write(backend, key, appends=log)).version)
                await asyncio.sleep(0)

        async def delete(backend: Backend) -> None:
            for _ in range(EACH):
                range_ = KeyRange(b"log", b"loh")
                deleted.append((await write(backend, key, deletes=(range_,))).version)
                (rows,) = (await backend.read(key, Scan())).rows
                assert all(item.version > deleted[-1] for item in rows.items)

        await asyncio.gather(
            *(append(backends[n % len(backends)]) for n in range(WRITERS)), delete(backends[-1])
        )
        left = [item.version for item in await read_items(backends[0], key)]
        kept = sorted(version for version in appended if version > max(deleted))
        assert left == [version for version in kept for _ in range(2)]
        assert (await read_head(backends[0], key)).last_delete == max(deleted)

    async def test_of_those_that_adopt_a_stage_at_once_one_does(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        backends = await clients(harness, connect, 3)
        incarnation = (await write(backends[0], key)).incarnation

        async def adopt(name: int, stage: bytes) -> int | None:
            puts = ((b"index", b"%d" % name),)
            backend = backends[name % len(backends)]
            try:
                return (await write(backend, key, stages=(stage,), puts=puts)).version
            except StageMissing:
                return None

        for n in range(10):
            stage = new_id()
            parts = tuple((b"part/%d" % part, b"%d" % n) for part in range(3))
            await backends[n % len(backends)].stage(key, incarnation, stage, parts)
            made = await asyncio.gather(*(adopt(name, stage) for name in range(4)))
            (version,) = [each for each in made if each is not None]
            index, *adopted = await read_items(backends[0], key)
            assert [(item.key, item.value) for item in adopted] == list(parts)
            assert {item.version for item in (index, *adopted)} == {version}
            assert index.value == b"%d" % made.index(version)

    async def test_one_commit_sent_many_times_at_once_is_applied_once(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        backends = await clients(harness, connect, 3)
        for round in range(1, 11):
            commit = new_commit(base=round - 1, appends=(Append(b"log", (b"%d" % round,)),))
            made = await asyncio.gather(
                *(backend.commit(key, commit) for backend in backends),
                *(backend.commit(key, resent(commit)) for backend in backends),
            )
            assert [result.replayed for result in made].count(False) == 1
            assert {result.version for result in made} == {round}
        values = [item.value for item in await read_items(backends[0], key)]
        assert values == [b"%d" % round for round in range(1, 11)]

    async def test_a_snapshot_never_mixes_versions(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        """Each commit writes its version into items far apart; a read must show one of them."""
        backends = await clients(harness, connect, 2)
        writer, reader = backends[0], backends[-1]
        filling = tuple((b"m%03d" % n, b"x" * 50) for n in range(60))
        pair = ((b"a", b"1"), (b"z", b"1"))
        await write(
            writer, key, puts=(*pair, *filling[: writer.capabilities.max_commit_items - 3])
        )
        done = asyncio.Event()

        async def keep_writing() -> None:
            version = 2
            while not done.is_set():
                value = b"%d" % version
                puts = ((b"a", value), (b"z", value))
                made = await write(writer, key, puts=puts, appends=(Append(b"log", (value,)),))
                assert made.version == version
                version += 1
                await asyncio.sleep(0)

        writing = asyncio.create_task(keep_writing())
        try:
            for _ in range(60):
                tail = Scan(b"log", b"loh", limit=1, reverse=True)
                reads = (Get(b"a"), Get(b"z"), Scan(), tail)
                snapshot = await reader.read(key, *reads)
                assert snapshot.head is not None
                first, last, everything, newest = snapshot.rows
                items = [*first.items, *last.items]
                items += [item for item in everything.items if item.key in (b"a", b"z")]
                if snapshot.head.version > 1:
                    items += newest.items
                seen = {(item.version, int(item.value)) for item in items}
                version = snapshot.head.version
                assert seen == {(version, version)}, f"head at {version}, items {seen}"
                await asyncio.sleep(0)
        finally:
            done.set()
            await writing

    async def test_deleting_while_others_write_leaves_no_mixture(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        """Every incarnation holds exactly what was acknowledged in it."""
        backends = await clients(harness, connect, 3)
        acknowledged: Counter[bytes] = Counter()

        async def writer(backend: Backend, name: int) -> None:
            for n in range(25):
                value = b"%d/%d" % (name, n)
                made = await write(backend, key, appends=(Append(b"log", (value,)),))
                acknowledged[made.incarnation] += 1
                await asyncio.sleep(0)

        async def deleter(backend: Backend) -> None:
            for _ in range(10):
                snapshot = await backend.read(key, Scan())
                if snapshot.head is not None and await backend.delete(
                    key, id=new_id(), incarnation=snapshot.head.incarnation
                ):
                    assert len(snapshot.rows[0].items) == snapshot.head.version
                await asyncio.sleep(0.002)

        await asyncio.gather(
            *(writer(backends[name % len(backends)], name) for name in range(4)),
            deleter(backends[-1]),
        )
        snapshot = await backends[0].read(key)
        if snapshot.head is not None:
            head = snapshot.head
            items = await read_items(backends[0], key)
            assert head.version == len(items) == acknowledged[head.incarnation]
            assert [item.version for item in items] == list(range(1, head.version + 1))
        assert acknowledged.total() == 100

    async def test_a_cancelled_commit_is_whole_or_not_done(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        chance = random.Random(7)
        commits: list[Commit] = []
        for n in range(60):
            value = b"%d" % n
            puts = ((b"a", value), (b"z", value))
            commit = new_commit(puts=puts, appends=(Append(b"log", (value,)),))
            commits.append(commit)
            task = asyncio.create_task(backend.commit(key, commit))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.002)
            task.cancel()
            await asyncio.wait([task])
        # Whatever was still under way then is settled by sending it again.
        for n, commit in enumerate(commits[-5:], start=len(commits) - 5):
            await backend.commit(key, resent(commit))
            commits[n] = commit
        items = await read_items(backend, key)
        entries = [item for item in items if item.key.startswith(b"log")]
        head = await read_head(backend, key)
        assert [item.version for item in entries] == list(range(2, head.version + 1))
        assert len({item.value for item in entries}) == len(entries), "one of them doubled"
        pair = {(item.version, item.value) for item in items if item.key in (b"a", b"z")}
        assert pair == {(head.version, entries[-1].value)}

    async def test_a_backend_serves_after_a_storm_of_cancelled_reads(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key, puts=((b"a", b"1"),))
        for n in range(40):
            reading = [asyncio.create_task(backend.read(key, Scan())) for _ in range(4)]
            for _ in range(n % 4):
                await asyncio.sleep(0)
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
        assert [item.value for item in await read_items(backend, key)] == [b"1"]
