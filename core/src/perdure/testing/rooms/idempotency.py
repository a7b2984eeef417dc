"""A commit sent twice is applied once, whatever happened in between."""

import msgspec
import pytest

from perdure.backend import REMEMBERED_COMMITS, Backend
from perdure.errors import CommitIdReused, Conflict, Outcome, OutcomeUnknown, SessionDeleted
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Connect, Room
from perdure.testing.shorthand import (
    at,
    new_commit,
    new_id,
    other_content,
    read_head,
    read_items,
    read_values,
    resent,
    write,
    write_times,
)
from perdure.types import Append, At, Commit, Committed, Condition, Expect, Get, SessionKey


async def replays(
    backend: Backend, key: SessionKey, commit: Commit, first: Committed
) -> Committed:
    """Assert that sending ``commit`` again repeats its first result and changes nothing."""
    before = (await backend.read(key)).head, await read_items(backend, key)
    again = await backend.commit(key, commit)
    assert again.replayed
    assert (again.version, again.incarnation) == (first.version, first.incarnation)
    assert again.head == before[0], "a replay shows the session as it is now"
    assert ((await backend.read(key)).head, await read_items(backend, key)) == before
    return again


async def unchanged_unknown(backend: Backend, key: SessionKey, commit: Commit) -> None:
    """Assert that a commit too old to tell is either a replay or refused as unknown."""
    before = (await backend.read(key)).head, await read_items(backend, key)
    try:
        again = await backend.commit(key, commit)
    except OutcomeUnknown as error:
        assert error.outcome is Outcome.UNKNOWN
        assert error.commit == commit
        assert error.forgotten
    else:
        assert again.replayed
    assert ((await backend.read(key)).head, await read_items(backend, key)) == before


class Idempotency(Room):
    @pytest.mark.parametrize("as_resend", [False, True])
    async def test_a_repeat_returns_the_first_result(
        self, backend: Backend, key: SessionKey, as_resend: bool
    ) -> None:
        commit = new_commit(appends=(Append(b"log", (b"once",)),), puts=((b"a", b"1"),))
        first = await backend.commit(key, commit)
        for _ in range(3):
            await replays(backend, key, resent(commit) if as_resend else commit, first)

    async def test_a_repeat_returns_its_version_not_the_current_one(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"mine"),))
        first = await backend.commit(key, commit)
        await write(backend, key, puts=((b"a", b"theirs"),))
        await replays(backend, key, resent(commit), first)
        assert await read_values(backend, key) == {b"a": b"theirs"}

    async def test_a_repeat_answers_returning_from_the_present(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"mine"),), returning=(Get(b"a"),))
        first = await backend.commit(key, commit)
        await write(backend, key, puts=((b"a", b"theirs"),))
        again = await replays(backend, key, resent(commit), first)
        if backend.capabilities.returning:
            assert [[i.value for i in rows.items] for rows in again.rows] == [[b"theirs"]]

    @pytest.mark.parametrize("as_resend", [False, True])
    async def test_the_same_id_with_other_content_is_refused(
        self, backend: Backend, key: SessionKey, as_resend: bool
    ) -> None:
        commit = new_commit(puts=((b"a", b"1"),))
        await backend.commit(key, commit)
        await write(backend, key)
        before = await read_head(backend, key)
        other = other_content(msgspec.structs.replace(commit, puts=((b"a", b"2"),)))
        with pytest.raises(CommitIdReused) as caught:
            await backend.commit(key, resent(other) if as_resend else other)
        assert caught.value.outcome is Outcome.NOT_APPLIED
        assert await read_head(backend, key) == before
        assert await read_values(backend, key) == {b"a": b"1"}

    async def test_a_repeat_is_recognised_before_anything_else_is_judged(
        self, backend: Backend, key: SessionKey
    ) -> None:
        created = new_commit(expect=Expect.ABSENT, puts=((b"a", b"1"),))
        first = await backend.commit(key, created)
        assert first.head is not None
        changed = new_commit(
            expect=at(first.head),
            incarnation=first.incarnation,
            conditions=(Condition(b"a", 1), Condition(b"b", 0)),
            puts=((b"a", b"2"), (b"b", b"2")),
        )
        second = await backend.commit(key, changed)
        await write(backend, key)
        await replays(backend, key, created, first)
        await replays(backend, key, changed, second)
        impossible = msgspec.structs.replace(
            changed, incarnation=new_id(), expect=At(99, new_id()), stages=(new_id(),)
        )
        await replays(backend, key, impossible, second)
        with pytest.raises(CommitIdReused):
            await backend.commit(key, other_content(impossible))

    async def test_a_repeat_after_sixty_commits_of_others(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        commit = new_commit(base=1, puts=((b"a", b"1"),))
        first = await backend.commit(key, commit)
        await write_times(backend, key, 60)
        await replays(backend, key, resent(commit), first)
        with pytest.raises(CommitIdReused):
            await backend.commit(key, resent(other_content(commit)))

    async def test_sixty_four_commits_after_the_base_are_remembered(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        commits = [
            new_commit(base=1, incarnation=made.incarnation, appends=(Append(b"log", (b"x",)),))
            for _ in range(REMEMBERED_COMMITS)
        ]
        results = [await backend.commit(key, commit) for commit in commits]
        for commit, first in zip(commits, results, strict=True):
            await replays(backend, key, resent(commit), first)

    async def test_a_repeat_that_is_too_old_is_never_applied_again(
        self, backend: Backend, key: SessionKey
    ) -> None:
        anyone = new_commit(puts=((b"a", b"1"),))
        made = await backend.commit(key, anyone)
        named = new_commit(base=1, incarnation=made.incarnation, puts=((b"b", b"1"),))
        await backend.commit(key, named)
        for _ in range(3):
            await write_times(backend, key, REMEMBERED_COMMITS + 10)
            await unchanged_unknown(backend, key, resent(anyone))
            await unchanged_unknown(backend, key, resent(named))

    async def test_a_resend_by_one_who_had_seen_the_time_is_not_applied_again(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        """Not even where everything happened within one tick of the clock."""
        await write_times(backend, key, REMEMBERED_COMMITS)
        seen = (await backend.read(key)).now
        commit = new_commit(seen=seen, puts=((b"a", b"1"),))
        await backend.commit(key, commit)
        await write_times(backend, key, 3 * REMEMBERED_COMMITS)
        for pause in (0, 1, 50):
            await harness.advance(pause)
            await unchanged_unknown(backend, key, resent(commit))

    @pytest.mark.parametrize("named", [True, False])
    @pytest.mark.parametrize("timed", [True, False])
    @pytest.mark.parametrize("ended", [False, True])
    async def test_a_first_sending_overtaken_by_its_resend_is_not_applied_again(
        self, backend: Backend, key: SessionKey, named: bool, timed: bool, ended: bool
    ) -> None:
        """However late it arrives: the sender had given it up."""
        first = await write(backend, key)
        commit = new_commit(
            incarnation=first.incarnation if named else None,
            base=1 if named else 0,
            seen=first.now if timed else None,
            appends=(Append(b"log", (b"once",)),),
        )
        await backend.commit(key, resent(commit))
        await write_times(backend, key, 4 * REMEMBERED_COMMITS)
        if ended:
            await backend.delete(key, id=new_id())
        await unchanged_unknown(backend, key, commit)

    async def test_a_resend_long_ago_hinders_nobody(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        first = await write(backend, key)
        await backend.commit(key, resent(new_commit(seen=first.now)))
        await write_times(backend, key, 2 * REMEMBERED_COMMITS)
        await harness.advance(10)
        now = (await backend.read(key)).now
        for incarnation in (None, first.incarnation):
            made = await write(backend, key, incarnation=incarnation, base=0, seen=now)
            assert not made.replayed

    async def test_who_knows_all_that_happened_is_not_refused(
        self, backend: Backend, key: SessionKey
    ) -> None:
        """Whatever the time: nothing can have followed its first sending."""
        first = await write(backend, key)
        await backend.commit(key, resent(new_commit(seen=first.now)))
        await write_times(backend, key, 2 * REMEMBERED_COMMITS)

    async def test_a_resend_of_what_never_arrived_is_applied(
        self, backend: Backend, key: SessionKey
    ) -> None:
        creating = resent(new_commit(appends=(Append(b"log", (b"1",)),)))
        first = await backend.commit(key, creating)
        assert (first.version, first.replayed) == (1, False)
        await write_times(backend, key, 3 * REMEMBERED_COMMITS)
        head = await read_head(backend, key)
        lost = new_commit(
            base=head.version,
            incarnation=head.incarnation,
            appends=(Append(b"log", (b"2",)),),
        )
        await write_times(backend, key, REMEMBERED_COMMITS - 4)
        made = await backend.commit(key, resent(lost))
        assert (made.version, made.replayed) == (head.version + REMEMBERED_COMMITS - 3, False)
        await replays(backend, key, resent(lost), made)

    async def test_a_refused_commit_may_succeed_when_sent_again(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(expect=Expect.PRESENT, puts=((b"a", b"1"),))
        with pytest.raises(Conflict):
            await backend.commit(key, commit)
        await write(backend, key)
        made = await backend.commit(key, resent(commit))
        assert (made.version, made.replayed) == (2, False)

    async def test_a_repeat_after_the_session_was_deleted(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"1"),))
        first = await backend.commit(key, commit)
        assert await backend.delete(key, id=new_id())
        again = await replays(backend, key, resent(commit), first)
        assert again.head is None
        await replays(backend, key, commit, first)

    async def test_a_repeat_after_the_session_was_made_again(
        self, backend: Backend, key: SessionKey
    ) -> None:
        commit = new_commit(puts=((b"a", b"old"),))
        first = await backend.commit(key, commit)
        assert await backend.delete(key, id=new_id())
        await write(backend, key, puts=((b"a", b"new"),))
        await replays(backend, key, resent(commit), first)
        await write_times(backend, key, 3 * REMEMBERED_COMMITS)
        again = await replays(backend, key, resent(commit), first)
        assert again.head is not None
        assert again.head.incarnation != again.incarnation

    async def test_each_incarnation_has_its_last_commits_remembered(
        self, backend: Backend, key: SessionKey
    ) -> None:
        lives: list[list[tuple[Commit, Committed]]] = []
        for _ in range(3):
            made = await write(backend, key)
            incarnation = made.incarnation
            sent: list[tuple[Commit, Committed]] = []
            for n in range(1, REMEMBERED_COMMITS + 1):
                commit = new_commit(base=n, incarnation=incarnation, puts=((b"a", b"%d" % n),))
                sent.append((commit, await backend.commit(key, commit)))
            lives.append(sent)
            assert await backend.delete(key, id=new_id())
        for sent in lives:
            for commit, first in sent:
                await replays(backend, key, resent(commit), first)

    async def test_a_resend_to_a_former_incarnation_is_not_taken_for_new(
        self, backend: Backend, key: SessionKey
    ) -> None:
        made = await write(backend, key)
        early = new_commit(base=1, incarnation=made.incarnation, puts=((b"a", b"early"),))
        await backend.commit(key, early)
        await write_times(backend, key, 2 * REMEMBERED_COMMITS)
        head = await read_head(backend, key)
        late = new_commit(
            base=head.version, incarnation=made.incarnation, puts=((b"a", b"late"),)
        )
        never = new_commit(
            base=head.version, incarnation=made.incarnation, puts=((b"a", b"never"),)
        )
        last = await backend.commit(key, late)
        assert await backend.delete(key, id=new_id())
        for _ in range(3):
            # SessionDeleted would say that it had not been applied.
            await unchanged_unknown(backend, key, resent(early))
            await replays(backend, key, resent(late), last)
            with pytest.raises(SessionDeleted):
                await backend.commit(key, resent(never))
            await write_times(backend, key, REMEMBERED_COMMITS)

    async def test_ids_used_by_deletions_are_used(
        self, backend: Backend, key: SessionKey
    ) -> None:
        await write(backend, key)
        id = new_id()
        assert await backend.delete(key, id=id)
        with pytest.raises(CommitIdReused):
            await write(backend, key, id=id, puts=((b"a", b"1"),))
        assert (await backend.read(key)).head is None

    async def test_a_repeat_after_a_restart(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.persistent:
            pytest.skip("nothing outlives this backend")
        backend = await connect()
        commit = new_commit(puts=((b"a", b"1"),))
        first = await backend.commit(key, commit)
        await write_times(backend, key, 20)
        await backend.aclose()
        backend = await connect()
        await replays(backend, key, resent(commit), first)
        with pytest.raises(CommitIdReused):
            await backend.commit(key, resent(other_content(commit)))
        assert await backend.delete(key, id=new_id())
        await backend.aclose()
        backend = await connect()
        await replays(backend, key, resent(commit), first)

    async def test_a_repeat_through_another_client(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.shared:
            pytest.skip("one client only")
        commit = new_commit(puts=((b"a", b"1"),))
        first = await (await connect()).commit(key, commit)
        await replays(await connect(), key, resent(commit), first)
