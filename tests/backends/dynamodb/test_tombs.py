"""What commits to a living session delete goes physically, and nothing else goes with it."""

from random import Random

import pytest

from perdure.testing.shorthand import at, new_commit, new_id, read_head, read_values, write
from perdure.types import Append, KeyRange, Restored, SessionKey, append_key

from perdure_dynamodb import tombs
from perdure_dynamodb.backend import DynamoDBBackend
from tests.backends.dynamodb.conftest import Visit
from tests.backends.dynamodb.raw import Raw, check_lapses
from tests.backends.dynamodb.visitors import until_done

KEY = SessionKey.of("acme", "session", "chat-7")
LOG = b"log/"


async def test_a_deleted_part_does_not_come_back(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    made = await write(backend, KEY)
    stage = new_id()
    await backend.stage(KEY, made.incarnation, stage, ((b"part/1", b"1"),))
    await write(backend, KEY, stages=(stage,))
    await visit().commit_and_die(KEY, new_commit(deletes=(b"part/1",)))
    await visit().sweep_all()
    assert raw.items(KEY) == {}
    await backend.stage(KEY, made.incarnation, stage, ((b"part/1", b"1"),))
    for _ in range(3):
        await write(backend, KEY)
        assert await read_values(backend, KEY) == {}
    check_lapses(raw, KEY)


DELETIONS = (
    KeyRange(append_key(LOG, 2, 1), append_key(LOG, 2, 2)),
    KeyRange(append_key(LOG, 4, 1), append_key(LOG, 6, 0)),
    KeyRange(b"", append_key(LOG, 1, 1)),
    KeyRange(append_key(LOG, 12, 1), append_key(LOG, 12, 2)),
    KeyRange(append_key(LOG, 12, 1), append_key(LOG, 101, 0)),
    KeyRange(append_key(LOG, 100, 0)[:-5], append_key(LOG, 101, 1)),
    KeyRange(append_key(LOG, 101, 0)),
    KeyRange(b"item/05", b"item/07"),
    KeyRange(b"item/11"),
    KeyRange(b"a", b"log"),
)
"""Of twelve turns of two values, and others of version 100 and 101."""


@pytest.mark.parametrize("gone", [*((one,) for one in DELETIONS), DELETIONS[:5], DELETIONS])
async def test_deleted_items_go_and_others_stay(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, gone: tuple[KeyRange, ...]
) -> None:
    for n in range(12):
        await write(
            backend,
            KEY,
            appends=(Append(LOG, (b"%d" % n, b"%d+" % n)),),
            puts=((b"item/%02d" % n, b"1"),),
        )
    head = await read_head(backend, KEY)
    restored = Restored(version=100, created_at=head.created_at, updated_at=head.updated_at)
    await write(
        backend,
        KEY,
        expect=at(head),
        restored=restored,
        appends=(Append(LOG, (b"100",)),),
    )
    await write(backend, KEY, appends=(Append(LOG, (b"101",)),))
    before = await read_values(backend, KEY)
    expected = {
        key: value
        for key, value in before.items()
        if not any(
            target.start <= key and (target.stop is None or key < target.stop)
            for target in gone
        )
    }
    made = await visit().commit_and_die(KEY, new_commit(deletes=gone))
    assert raw.items(KEY) == before, "hidden so far"
    assert await read_values(backend, KEY) == expected
    sweeper = visit()
    sweeper.client.page = 3
    await until_done(sweeper, 2)
    assert raw.items(KEY) == expected
    assert await read_values(backend, KEY) == expected
    assert await read_head(backend, KEY) == made.head


async def test_purges_that_know_of_different_deletions_do_them_all(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    await write(backend, KEY, appends=(Append(LOG, (b"0", b"1", b"2")),))
    first, second = visit(), visit()
    await first.commit_and_die(KEY, new_commit(deletes=(append_key(LOG, 1, 0),)))
    early = await second.chain.newest(KEY)
    await second.commit_and_die(KEY, new_commit(deletes=(append_key(LOG, 1, 1),)))
    purger, other = visit(), visit()
    late = await purger.chain.newest(KEY)
    assert early is not None
    assert late is not None

    async def purge_early() -> None:
        await tombs.purge(other.table, KEY, early)

    purger.client.interludes["UpdateItem"] = purge_early
    await tombs.purge(purger.table, KEY, late)
    assert raw.items(KEY) == {append_key(LOG, 1, 2): b"2"}
    await tombs.purge(other.table, KEY, early)
    assert raw.items(KEY) == {append_key(LOG, 1, 2): b"2"}


async def test_what_is_written_anew_is_not_taken_for_what_was_deleted(
    backend: DynamoDBBackend, visit: Visit, raw: Raw
) -> None:
    await write(backend, KEY, puts=((b"a", b"old"), (b"b", b"old")))
    dying, sweeper = visit(), visit()
    await dying.commit_and_die(KEY, new_commit(deletes=(KeyRange(b""),), puts=((b"a", b"1"),)))

    async def overtake() -> None:
        await write(backend, KEY, puts=((b"b", b"2"),))

    sweeper.client.interludes["DeleteItem"] = overtake
    await sweeper.sweep_all()
    assert raw.items(KEY) == {b"a": b"1", b"b": b"2"}
    assert await read_values(backend, KEY) == {b"a": b"1", b"b": b"2"}


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_left_is_what_is_there(
    backend: DynamoDBBackend, visit: Visit, raw: Raw, seed: int
) -> None:
    chance = Random(seed)
    incarnation = (await write(backend, KEY)).incarnation
    there: dict[bytes, bytes] = {}

    def some_key() -> bytes:
        choice = chance.choice(sorted(there) or [LOG])
        return chance.choice((choice, choice + b"\0", choice[:-1], LOG, b"item/", b"part/"))

    async def restore() -> None:
        head = await read_head(backend, KEY)
        version = head.version + chance.randrange(1, 50)
        restored = Restored(
            version=version, created_at=head.created_at, updated_at=head.updated_at
        )
        await write(backend, KEY, expect=at(head), restored=restored)

    async def append() -> None:
        values = tuple(b"%d" % chance.randrange(100) for _ in range(chance.randrange(1, 4)))
        made = await write(backend, KEY, appends=(Append(LOG, values),))
        for ordinal, value in enumerate(values):
            there[append_key(LOG, made.version, ordinal)] = value

    async def put() -> None:
        items = {b"item/%d" % chance.randrange(9): b"%d" % chance.randrange(100)}
        await write(backend, KEY, puts=tuple(items.items()))
        there.update(items)

    async def stage() -> None:
        id = new_id()
        items = {b"part/" + id[:4]: b"1", b"part/" + id[4:8]: b"2"}
        await backend.stage(KEY, incarnation, id, tuple(items.items()))
        await write(backend, KEY, stages=(id,))
        there.update(items)

    async def delete() -> None:
        start, stop = sorted((some_key(), some_key()))
        commit = new_commit(deletes=(KeyRange(start, stop), some_key()))
        if chance.random() < 0.5:
            await visit().commit_and_die(KEY, commit)
        else:
            await backend.commit(KEY, commit)
        for target in commit.deletes:
            first, end = (
                (target, target + b"\0")
                if isinstance(target, bytes)
                else (target.start, target.stop or b"")
            )
            for key in [key for key in there if first <= key < end]:
                del there[key]

    for _ in range(40):
        step = chance.choice((restore, append, append, append, put, put, stage, delete, delete))
        await step()
        assert await read_values(backend, KEY) == there
    assert await read_values(backend, KEY) == dict(sorted(there.items()))
    await until_done(visit(), 3)
    assert raw.items(KEY) == there
    assert await read_values(backend, KEY) == there
    check_lapses(raw, KEY)
