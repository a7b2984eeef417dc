"""Backends that do not know what they have done before, or think that they have."""

from collections.abc import Callable

import msgspec

from perdure.backend import REMEMBERED_COMMITS
from perdure.errors import Conflict, SessionDeleted
from perdure.types import At, Commit, Committed, Expect, SessionKey

from perdure_memory.sessions import Session
from tests.backends.memory.durable import Disk, DurableMemory
from tests.mutants.catalogue import caught_by


def forget(session: Session | None) -> None:
    """Make a key forget the ids of all commits, and that it has."""
    for life in session.lives if session is not None else ():
        facts = enumerate(life.commits.values())
        life.commits = {b"forgotten %d" % n: fact for n, fact in facts}


@caught_by("test_the_same_id_with_other_content_is_refused")
class ForgetsTheDigest(DurableMemory):
    """Takes any commit with a known id for a repeat."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await super().commit(key, msgspec.structs.replace(commit, digest=b"constant"))


@caught_by(
    "test_a_repeat_returns_the_first_result",
    "test_one_commit_sent_many_times_at_once_is_applied_once",
)
class ForgetsIds(DurableMemory):
    """Applies whatever it is sent."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        forget(self._sessions.get(key))
        return await super().commit(key, commit)


@caught_by("test_a_repeat_after_a_restart", "test_a_lost_reply_after_a_restart")
class ForgetsIdsOnRestart(DurableMemory):
    """Keeps the ids in the process."""

    def __init__(self, disk: Disk, *, clock: Callable[[], int]) -> None:
        super().__init__(disk, clock=clock)
        for session in disk.sessions.values():
            forget(session)


@caught_by(
    "test_a_repeat_after_sixty_commits_of_others",
    "test_sixty_four_commits_after_the_base_are_remembered",
    "test_a_lost_reply_after_sixty_commits_of_others",
)
class RemembersEightIds(DurableMemory):
    """Forgets ids after eight commits, and knows that it does."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        for life in self._sessions[key].lives:
            while len(life.commits) > 8:
                del life.commits[next(iter(life.commits))]
                life.forgot = True
        return made


@caught_by(
    "test_a_repeat_that_is_too_old_is_never_applied_again",
)
class ForgetsWithoutKnowing(DurableMemory):
    """Remembers enough ids, but applies a commit again that is older than that."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await super().commit(key, msgspec.structs.replace(commit, resend=False))


@caught_by("test_a_resend_of_what_never_arrived_is_applied")
class NeverSettles(DurableMemory):
    """Says of any resend it does not know that it cannot tell."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        for life in session.lives if session is not None else ():
            life.forgot = True
        return await super().commit(key, msgspec.structs.replace(commit, base=-1))


@caught_by(
    "test_a_repeat_is_recognised_before_anything_else_is_judged",
    "test_a_conditional_commit_does_not_conflict_with_itself",
)
class JudgesBeforeItRecognises(DurableMemory):
    """Looks at what a commit expects before it looks at its id."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        head = (await self.read(key)).head
        if commit.expect is Expect.ABSENT and head is not None:
            raise Conflict("it exists", head=head)
        if (
            isinstance(commit.expect, At)
            and head is not None
            and commit.expect != At(head.version, head.tip)
        ):
            raise Conflict("it has changed", head=head)
        return await super().commit(key, commit)


@caught_by("test_a_repeat_returns_its_version_not_the_current_one")
class RepeatsTheCurrentVersion(DurableMemory):
    """A repeat returns the version that the session has now."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        if made.replayed and made.head is not None:
            return msgspec.structs.replace(made, version=made.head.version)
        return made


@caught_by(
    "test_a_repeat_after_the_session_was_deleted",
    "test_a_repeat_after_the_session_was_made_again",
    "test_a_lost_reply_after_a_deletion",
)
class DeletionForgetsIds(DurableMemory):
    """A late retry resurrects a deleted session: the tombstone holds no ids of commits."""

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        session = self._sessions.get(key)
        deleted = await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        if session is not None and session.head is None:
            forget(session)
        return deleted


@caught_by("test_a_repeat_after_expiry_is_recognised")
class ExpiryForgetsIds(DurableMemory):
    """A retry after expiry makes the session again: nothing stays of one that expired."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        head = session.head if session is not None else None
        expires_at = head.expires_at if head is not None else None
        if session is not None and expires_at is not None and expires_at <= self._clock():
            forget(session)
        return await super().commit(key, commit)


@caught_by("test_a_tombstone_lasts_its_time_swept_or_not")
class SweepsTombstonesTooEarly(DurableMemory):
    async def sweep(self, *, limit: int = 1000) -> int:
        gone = [key for key, session in self._sessions.items() if session.head is None]
        for key in gone:
            del self._sessions[key]
        return await super().sweep(limit=limit) + len(gone)


@caught_by("test_ids_used_by_deletions_are_used")
class ReusesIdsOfDeletions(DurableMemory):
    """A commit may come under the id of a deletion."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        if session is not None:
            for life in session.lives:
                if life.deletion == commit.id:
                    life.deletion = None
        return await super().commit(key, commit)


@caught_by(
    "test_a_repeated_delete_is_true_and_spares_the_successor",
    "test_a_lost_reply_of_a_deletion",
)
class RetriedDeleteKillsTheSuccessor(DurableMemory):
    """Does not look at a deletion's id."""

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        session = self._sessions.get(key)
        if session is not None:
            for life in session.lives:
                if life.deletion == id:
                    life.deletion = None
        return await super().delete(key, id=id, expect=expect, incarnation=incarnation)


@caught_by("test_a_late_write_does_not_resurrect")
class ResurrectsOnLateWrite(DurableMemory):
    """A commit that names an incarnation creates the session where it is absent."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if (await self.read(key)).head is None:
            commit = msgspec.structs.replace(commit, incarnation=None)
        return await super().commit(key, commit)


@caught_by("test_a_late_write_does_not_reach_the_successor")
class WritesToTheSuccessor(DurableMemory):
    """Takes whatever incarnation is there for the one that a commit names."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        try:
            return await super().commit(key, commit)
        except SessionDeleted as error:
            if error.head is None:
                raise
            commit = msgspec.structs.replace(commit, incarnation=error.head.incarnation)
            return await super().commit(key, commit)


@caught_by("test_a_session_made_again_begins_anew")
class ReusesTheIncarnation(DurableMemory):
    """A session that is made again gets the incarnation of the one before."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        if session is not None and session.head is None and session.lives:
            former = session.lives[-1].incarnation
            commit = msgspec.structs.replace(commit, new_incarnation=former)
        return await super().commit(key, commit)


@caught_by("test_a_session_made_again_begins_anew")
class CountsOnAfterDeletion(DurableMemory):
    """A session that is made again continues with the versions of the one before."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        last: dict[SessionKey, int] = getattr(self, "last", {})
        former = last.get(key, 0) if (await self.read(key)).head is None else 0
        made = await super().commit(key, commit)
        session = self._sessions[key]
        self.last = last | {key: made.version}
        if not former or session.head is None or made.replayed:
            return made
        session.head = msgspec.structs.replace(session.head, version=former + 1)
        return msgspec.structs.replace(made, version=former + 1, head=session.head)


@caught_by("test_each_incarnation_has_its_last_commits_remembered")
class OneMemoryForAllIncarnations(DurableMemory):
    """Remembers the last commits of a key, whichever incarnation they were made in."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        lives = self._sessions[key].lives
        while sum(len(life.commits) for life in lives) > 2 * REMEMBERED_COMMITS:
            oldest = next(life for life in lives if len(life.commits) > 1)
            del oldest.commits[next(iter(oldest.commits))]
            oldest.forgot = True
        return made


@caught_by("test_a_resend_to_a_former_incarnation_is_not_taken_for_new")
class DeniesFormerCommits(DurableMemory):
    """Says of any commit to a former incarnation it does not know that it was not applied."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        head = (await self.read(key)).head
        if head is None or head.incarnation != commit.incarnation:
            commit = msgspec.structs.replace(commit, resend=False)
        return await super().commit(key, commit)


@caught_by("test_a_resend_by_one_who_had_seen_the_time_is_not_applied_again")
class TrustsWhatWasSeen(DurableMemory):
    """Takes a resend that says ``seen`` for one that can be judged, whatever was forgotten."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        resend = commit.resend and commit.seen is None
        return await super().commit(key, msgspec.structs.replace(commit, resend=resend))


@caught_by("test_a_deletion_under_the_id_of_a_commit_is_refused")
class DeletesUnderTheIdOfACommit(DurableMemory):
    """Looks for a deletion's id among those of deletions only."""

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        session = self._sessions.get(key)
        lives = session.lives if session is not None else ()
        if any(id in life.commits for life in lives):
            id = id[::-1]
        return await super().delete(key, id=id, expect=expect, incarnation=incarnation)


@caught_by("test_a_first_sending_overtaken_by_its_resend_is_not_applied_again")
class TakesLateSendingsForNew(DurableMemory):
    """Thinks that what does not say that it was sent before was not."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if key in self._sessions:
            self._sessions[key].resent_at = 0
        return await super().commit(key, commit)
