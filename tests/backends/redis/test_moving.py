"""A slot that is moved key by key: sessions on two nodes, and their index on one of them."""

import asyncio
from collections.abc import Iterator

import hiredis
import pytest

from perdure.errors import Unavailable
from perdure.testing.shorthand import (
    list_ids,
    new_commit,
    new_id,
    read_head,
    read_values,
    resent,
    write,
)
from perdure.types import Append, Expect, Restored, SessionKey

from perdure_redis.keys import Names
from perdure_redis.router import SLOT_OF_BUCKET
from tests.backends.redis.nodes import Move, owner_of
from tests.backends.redis.opened import opened
from tests.services.cluster import Cluster, Node

BUCKET = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.start(tmp_path_factory.mktemp("pair"), primaries=2) as cluster:
        yield cluster


def sessions(count: int) -> list[SessionKey]:
    """Sessions that share the bucket."""
    names = Names("any")
    numbered = (SessionKey("acme", "session", f"{n:05}") for n in range(100_000))
    found = (key for key in numbered if names.session(key)[0] == BUCKET)
    return [next(found) for _ in range(count)]


@pytest.mark.parametrize("index_first", [True, False])
async def test_turns_go_on_while_a_slot_is_moved(pair: Cluster, index_first: bool) -> None:
    source = pair.nodes[owner_of(pair, BUCKET)]
    target = pair.nodes[1 - owner_of(pair, BUCKET)]
    if (
        source.call("CLUSTER", "COUNTKEYSINSLOT", SLOT_OF_BUCKET[BUCKET]) == 0
        and not index_first
    ):
        source, target = target, source  # the test before has moved it
    keys = sessions(12)
    new, present = keys.pop(), keys
    async with opened(pair.url, cluster=True) as (backend, raw):
        for key in present:
            await write(backend, key, labels=("l",), appends=(Append(b"log", (b"1",)),))
        move = Move(SLOT_OF_BUCKET[BUCKET], source, target)
        move.begin()
        half = [raw.name(key) for key in present[:6]]
        for name in (raw.index(new), *half) if index_first else half:
            source.call("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)

        # Turns, reads and lists do not mind where a session is.
        for key in present:
            made = await write(backend, key, appends=(Append(b"log", (b"2",)),))
            assert made.version == 2
            assert list((await read_values(backend, key)).values()) == [b"1", b"2"]
        ids = [key.id for key in present]
        assert await list_ids(backend, new) == ids
        assert await list_ids(backend, new, label="l") == ids

        # What changes the index is done where both are, or not at all.
        apart = present[8] if index_first else present[2]
        before = await read_values(backend, apart)
        with pytest.raises(Unavailable, match="being moved"):
            await write(backend, apart, labels=("m",), puts=((b"a", b"1"),))
        with pytest.raises(Unavailable, match="being moved"):
            await backend.delete(apart, id=new_id())
        assert await read_values(backend, apart) == before
        together = present[2] if index_first else present[8]
        await write(backend, together, labels=("l", "m"))
        if index_first:
            await write(backend, new)
        else:
            with pytest.raises(Unavailable, match="being moved"):
                await write(backend, new)
        await backend.sweep()

        while move.some(100):
            pass
        move.end()
        await write(backend, new, labels=("l",))
        await write(backend, apart, labels=("l", "m"))
        assert await list_ids(backend, new, label="l") == sorted([*ids, new.id])
        assert await list_ids(backend, new, label="m") == sorted([apart.id, together.id])
        expected = [member for key in (*present, new) for member in raw.index_of(key)]
        assert sorted(raw.indexes()) == sorted(expected)


@pytest.mark.parametrize("items", [1, 1500])
async def test_sessions_end_and_begin_while_their_slot_is_moved(
    pair: Cluster, items: int
) -> None:
    """A key that is emptied counts as moved at once, and takes no more."""
    source = pair.nodes[owner_of(pair, BUCKET)]
    target = pair.nodes[1 - owner_of(pair, BUCKET)]
    if served(source).startswith(b"MOVED"):
        source, target = target, source
    keys = sessions(5)
    deleted, expired, restored, staged, swept = keys
    async with opened(pair.url, cluster=True) as (backend, raw):
        commits = {key: new_commit(puts=((b"a", b"1"),)) for key in keys[:3]}
        for key, commit in commits.items():
            made = await backend.commit(key, commit)
            for first in range(0, items, 1000):
                numbers = range(first, min(items, first + 1000))
                await write(backend, key, puts=tuple((b"n%d" % n, b"") for n in numbers))
            await backend.stage(key, made.incarnation, new_id(), ((b"part", b"1"),))
        await write(backend, expired, expires_in=100)
        await backend.delete(restored, id=new_id())
        incarnation, stage = new_id(), new_id()
        await backend.stage(staged, incarnation, stage, ())
        await write(backend, swept, expires_in=100)
        await asyncio.sleep(0.15)
        move = Move(SLOT_OF_BUCKET[BUCKET], source, target)
        move.begin()

        id = new_id()
        assert await backend.delete(deleted, id=id)
        assert await backend.delete(deleted, id=id)
        await write(backend, expired, expect=Expect.ABSENT, puts=((b"b", b"2"),))
        await write(
            backend,
            restored,
            expect=Expect.ABSENT,
            new_incarnation=commits[restored].new_incarnation,
            restored=Restored(9, 1, 2),
        )
        await backend.stage(staged, incarnation, stage, ((b"part", b"2"),))
        await write(backend, staged, new_incarnation=incarnation, stages=(stage,))
        await backend.sweep()

        while move.some(100):
            pass
        move.end()
        assert (await backend.commit(deleted, resent(commits[deleted]))).replayed
        assert (await backend.read(deleted)).head is None
        assert (await backend.commit(expired, resent(commits[expired]))).replayed
        assert await read_values(backend, expired) == {b"b": b"2"}
        assert (await read_head(backend, restored)).version == 9
        assert await read_values(backend, staged) == {b"part": b"2"}
        assert (await backend.read(swept)).head is None
        expected = [member for key in keys for member in raw.index_of(key)]
        found = [member for member in raw.indexes() if member[:1] != b"u"]
        assert sorted(found) == sorted(expected)


def served(node: Node) -> bytes:
    """What a node says to a command for the bucket."""
    try:
        node.call("EXISTS", f"any:{{{BUCKET}}}")
    except hiredis.ReplyError as error:
        return str(error).encode()
    return b"served"
