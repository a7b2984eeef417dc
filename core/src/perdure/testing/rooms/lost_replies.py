"""The reply of a write is lost after it was applied: sending it again settles the matter."""

import asyncio

import pytest

from perdure.backend import Backend
from perdure.errors import OutcomeUnknown
from perdure.testing.faults import Delay, DropRequests, LoseReplies
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Connect, Room
from perdure.testing.shorthand import (
    new_commit,
    new_id,
    read_head,
    read_items,
    resent,
    write,
    write_times,
)
from perdure.types import Append, At, Commit, Committed, Expect, SessionKey


async def send_until_answered(backend: Backend, key: SessionKey, commit: Commit) -> Committed:
    """What a store does: send, and while the outcome is unknown, send the same again."""
    while True:
        try:
            return await backend.commit(key, commit)
        except OutcomeUnknown as unknown:
            assert unknown.commit == commit
            assert not unknown.forgotten
            commit = resent(commit)


async def lose_reply(backend: Backend, key: SessionKey, commit: Commit) -> Commit:
    """Apply a commit, lose the reply, and return what is to be sent again."""
    with pytest.raises(OutcomeUnknown) as unknown:
        await LoseReplies(backend).commit(key, commit)
    assert unknown.value.commit == commit
    return resent(commit)


async def entries(backend: Backend, key: SessionKey) -> list[bytes]:
    return [
        item.value for item in await read_items(backend, key) if item.key.startswith(b"log")
    ]


class LostReplies(Room):
    async def test_a_commit_whose_replies_are_lost_is_applied_once(
        self, backend: Backend, key: SessionKey
    ) -> None:
        losing = LoseReplies(backend, on=range(5))
        commit = new_commit(appends=(Append(b"log", (b"once",)),))
        made = await send_until_answered(losing, key, commit)
        assert losing.faults == 5
        assert (made.version, made.replayed) == (1, True)
        assert await entries(backend, key) == [b"once"]

    async def test_a_conditional_commit_does_not_conflict_with_itself(
        self, backend: Backend, key: SessionKey
    ) -> None:
        losing = LoseReplies(backend, on=range(0, 1000, 2))
        expect: Expect | At = Expect.ABSENT
        incarnation: bytes | None = None
        for n in range(10):
            commit = new_commit(
                expect=expect,
                incarnation=incarnation,
                base=n,
                appends=(Append(b"log", (b"%d" % n,)),),
            )
            made = await send_until_answered(losing, key, commit)
            assert (made.version, made.replayed) == (n + 1, True)
            expect, incarnation = At(made.version, commit.id), made.incarnation
        assert await entries(backend, key) == [b"%d" % n for n in range(10)]

    async def test_a_request_that_never_arrived_is_applied_when_sent_again(
        self, backend: Backend, key: SessionKey
    ) -> None:
        dropping = DropRequests(backend, on=range(0, 1000, 2), known=False)
        for n in range(10):
            commit = new_commit(base=n, appends=(Append(b"log", (b"%d" % n,)),))
            made = await send_until_answered(dropping, key, commit)
            assert (made.version, made.replayed) == (n + 1, False)
        assert await entries(backend, key) == [b"%d" % n for n in range(10)]

    async def test_a_lost_reply_after_sixty_commits_of_others(
        self, backend: Backend, key: SessionKey
    ) -> None:
        first = await write(backend, key)
        commit = new_commit(
            base=1, incarnation=first.incarnation, appends=(Append(b"log", (b"once",)),)
        )
        again = await lose_reply(backend, key, commit)
        await write_times(backend, key, 60)
        made = await backend.commit(key, again)
        assert (made.version, made.replayed) == (2, True)
        assert await entries(backend, key) == [b"once"]

    async def test_a_lost_reply_after_a_deletion(
        self, backend: Backend, key: SessionKey
    ) -> None:
        again = await lose_reply(
            backend, key, new_commit(appends=(Append(b"log", (b"once",)),))
        )
        assert await backend.delete(key, id=new_id())
        made = await backend.commit(key, again)
        assert (made.version, made.replayed, made.head) == (1, True, None)
        assert (await backend.read(key)).head is None
        await write(backend, key, appends=(Append(b"log", (b"successor",)),))
        assert (await backend.commit(key, again)).replayed
        assert await entries(backend, key) == [b"successor"]

    async def test_a_lost_reply_after_a_restart(
        self, harness: Harness, connect: Connect, key: SessionKey
    ) -> None:
        if not harness.persistent:
            pytest.skip("nothing outlives this backend")
        backend = await connect()
        again = await lose_reply(
            backend, key, new_commit(appends=(Append(b"log", (b"once",)),))
        )
        await backend.aclose()
        backend = await connect()
        made = await backend.commit(key, again)
        assert (made.version, made.replayed) == (1, True)
        assert await entries(backend, key) == [b"once"]

    async def test_a_lost_reply_of_a_deletion(self, backend: Backend, key: SessionKey) -> None:
        await write(backend, key)
        id = new_id()
        with pytest.raises(OutcomeUnknown) as unknown:
            await LoseReplies(backend).delete(key, id=id)
        assert unknown.value.commit is None
        assert (await backend.read(key)).head is None
        assert await backend.delete(key, id=id)
        await write(backend, key, appends=(Append(b"log", (b"successor",)),))
        successor = await read_head(backend, key)
        assert await backend.delete(key, id=id)
        assert await read_head(backend, key) == successor

    async def test_a_lost_reply_of_an_adoption(self, backend: Backend, key: SessionKey) -> None:
        commit = new_commit(stages=(new_id(),), puts=((b"index", b"1"),))
        await backend.stage(key, commit.new_incarnation, commit.stages[0], ((b"part", b"2"),))
        again = await lose_reply(backend, key, commit)
        made = await backend.commit(key, again)
        assert (made.version, made.replayed) == (1, True)
        assert [item.value for item in await read_items(backend, key)] == [b"1", b"2"]

    async def test_a_caller_that_gave_up_settles_by_sending_again(
        self, backend: Backend, key: SessionKey
    ) -> None:
        for n, slow in enumerate((Delay(backend, before=5.0), Delay(backend, after=5.0))):
            commit = new_commit(base=n, appends=(Append(b"log", (b"%d" % n,)),))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await slow.commit(key, commit)
            made = await backend.commit(key, resent(commit))
            assert made.replayed is (slow.after > 0)
        assert await entries(backend, key) == [b"0", b"1"]
