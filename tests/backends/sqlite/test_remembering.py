"""The ids of commits and deletions, across everything that happens to a session."""

import pytest

from perdure.backend import REMEMBERED_COMMITS, TOMBSTONE_MS
from perdure.errors import OutcomeUnknown
from perdure.testing import TestClock
from perdure.testing.shorthand import new_commit, new_id, read_head, resent, write, write_times
from perdure.types import SessionKey

from perdure_sqlite.backend import SqliteBackend
from tests.backends.sqlite.conftest import Connect


async def test_sixty_four_commits_are_remembered_by_another_backend(
    backend: SqliteBackend, connect: Connect, key: SessionKey
) -> None:
    made = await write(backend, key)
    commits = [
        new_commit(base=n + 1, incarnation=made.incarnation) for n in range(REMEMBERED_COMMITS)
    ]
    results = [await backend.commit(key, commit) for commit in commits]
    await backend.aclose()
    backend = connect()
    for commit, result in zip(commits, results, strict=True):
        again = await backend.commit(key, resent(commit))
        assert (again.replayed, again.version) == (True, result.version)
    await write(backend, key)
    with pytest.raises(OutcomeUnknown) as caught:
        await backend.commit(key, resent(commits[0]))
    assert caught.value.forgotten
    assert (await backend.commit(key, resent(commits[1]))).replayed
    assert (await read_head(backend, key)).version == REMEMBERED_COMMITS + 2


async def test_an_id_found_across_two_others_is_not_remembered(
    backend: SqliteBackend, key: SessionKey
) -> None:
    """The ids stand one behind the other in one value, where any 16 bytes might match."""
    one = new_commit(id=b"a" * 16, digest=b"b" * 8)
    two = new_commit(id=b"c" * 16, digest=b"d" * 8)
    between = new_commit(id=b"b" * 8 + b"c" * 8)
    for commit in (one, two, between):
        assert not (await backend.commit(key, commit)).replayed
    for commit in (one, two, between):
        assert (await backend.commit(key, commit)).replayed


async def test_a_deletion_is_remembered_however_long_the_successor_lives(
    connect: Connect, key: SessionKey
) -> None:
    clock = TestClock()
    backend = connect(clock=clock)
    late = new_commit()
    await backend.commit(key, late)
    deletion = new_id()
    assert await backend.delete(key, id=deletion)
    await write(backend, key)
    await write_times(backend, key, 3 * REMEMBERED_COMMITS)
    clock.advance(TOMBSTONE_MS)
    while await backend.sweep():
        pass
    assert await backend.delete(key, id=deletion)
    assert (await backend.commit(key, resent(late))).replayed
    assert (await read_head(backend, key)).version == 3 * REMEMBERED_COMMITS + 1


async def test_every_life_of_a_key_is_remembered(
    backend: SqliteBackend, key: SessionKey
) -> None:
    lives = [(new_commit(), new_id()) for _ in range(100)]
    for commit, deletion in lives:
        await backend.commit(key, commit)
        assert await backend.delete(key, id=deletion)
    made = await write(backend, key)
    for commit, deletion in lives:
        assert (await backend.commit(key, resent(commit))).replayed
        assert await backend.delete(key, id=deletion)
    assert await read_head(backend, key) == made.head


async def test_times_tell_whether_a_resend_without_a_version_can_be_judged(
    connect: Connect, key: SessionKey
) -> None:
    """64 commits reach back for 64 minutes here."""
    clock = TestClock()
    backend = connect(clock=clock)
    for _ in range(2 * REMEMBERED_COMMITS):
        await write(backend, key)
        clock.advance(60_000)
    await backend.delete(key, id=new_id())
    for _ in range(2 * REMEMBERED_COMMITS):
        await write(backend, key)
        clock.advance(60_000)
    with pytest.raises(OutcomeUnknown):
        await backend.commit(key, resent(new_commit()))
    with pytest.raises(OutcomeUnknown):
        await backend.commit(key, resent(new_commit(seen=clock() - 65 * 60_000)))
    # The first life's ids have their own times: they reach back further still.
    made = await backend.commit(key, resent(new_commit(seen=clock() - 62 * 60_000)))
    assert (made.replayed, made.version) == (False, 2 * REMEMBERED_COMMITS + 1)


async def test_what_is_remembered_does_not_grow_for_ever(
    connect: Connect, key: SessionKey
) -> None:
    clock = TestClock()
    backend = connect(clock=clock)

    def remembered() -> int:
        db = backend._readers.acquire()
        (count,) = db.execute("SELECT count(*) FROM remembered").fetchone()
        backend._readers.release(db)
        return count

    for _ in range(20):
        await write_times(backend, key, REMEMBERED_COMMITS + 5)
        assert await backend.delete(key, id=new_id())
        clock.advance(TOMBSTONE_MS // 2 + 1)
        assert remembered() <= 3 * (REMEMBERED_COMMITS + 1)
    clock.advance(TOMBSTONE_MS)
    while await backend.sweep():
        pass
    assert remembered() == 0


async def test_a_commit_id_of_another_length_is_refused_and_changes_nothing(
    backend: SqliteBackend, key: SessionKey
) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        await write(backend, key, id=b"short")
    with pytest.raises(ValueError, match="digest 8"):
        await write(backend, key, digest=b"a digest")
        await write(backend, key, digest=b"not a digest")
    assert (await read_head(backend, key)).version == 1
