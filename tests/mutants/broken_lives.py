"""Backends that are wrong about when a session is there."""

import msgspec

from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    HeadEntry,
    ListQuery,
    Page,
    SessionKey,
)

from perdure_memory.sessions import Session
from tests.backends.memory.durable import DurableMemory
from tests.mutants.catalogue import caught_by


@caught_by("test_only_the_expected_version_is_deleted")
class DeletesRegardless(DurableMemory):
    """Does not look at the version that a deletion expects."""

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        expect = Expect.PRESENT if isinstance(expect, At) else expect
        return await super().delete(key, id=id, expect=expect, incarnation=incarnation)


@caught_by("test_only_the_named_incarnation_is_deleted")
class DeletesAnyIncarnation(DurableMemory):
    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        return await super().delete(key, id=id, expect=expect)


@caught_by("test_deletion_leaves_nothing_in_the_database")
class LeavesStagesBehind(DurableMemory):
    """Deletes the session and forgets its staged parts."""

    def _bury(
        self, key: SessionKey, session: Session, now: int, deletion: bytes | None
    ) -> None:
        stages = dict(self._stages)
        super()._bury(key, session, now, deletion)
        self._stages.update(stages)


@caught_by(
    "test_parts_for_a_successor_wait_though_its_predecessor_is_deleted",
    "test_parts_for_a_successor_wait_though_its_predecessor_expires",
)
class TakesTheSuccessorsStages(DurableMemory):
    """With a session, removes what is staged under its key for any incarnation."""

    def _bury(
        self, key: SessionKey, session: Session, now: int, deletion: bytes | None
    ) -> None:
        super()._bury(key, session, now, deletion)
        for name in [name for name in self._stages if name[0] == key]:
            del self._stages[name]


@caught_by("test_deletion_leaves_nothing_in_the_database")
class KeepsDeletedItems(DurableMemory):
    """Hides what was deleted, and keeps it for good."""

    def _bury(
        self, key: SessionKey, session: Session, now: int, deletion: bytes | None
    ) -> None:
        items = dict(session.items)
        super()._bury(key, session, now, deletion)
        session.items = items


@caught_by("test_a_session_expires_to_the_millisecond")
class ExpiresEarly(DurableMemory):
    """A millisecond too soon."""

    def _present(self, key: SessionKey, now: int) -> Session | None:
        return super()._present(key, now + 1)


@caught_by("test_a_session_expires_to_the_millisecond")
class ExpiresLate(DurableMemory):
    """A millisecond too late."""

    def _present(self, key: SessionKey, now: int) -> Session | None:
        return super()._present(key, now - 1)


@caught_by("test_an_expired_session_is_absent_to_every_operation")
class ShowsTheExpiredUntilSwept(DurableMemory):
    def _present(self, key: SessionKey, now: int) -> Session | None:
        session = self._sessions.get(key)
        return session if session is not None and session.head is not None else None


@caught_by("test_expired_sessions_are_passed_over")
class ListsTheExpired(DurableMemory):
    """A list shows the expired until they are swept."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        clock = self._clock
        self._clock = int  # the beginning of time: nothing has expired
        try:
            return await super().list(tenant, kind, query)
        finally:
            self._clock = clock


@caught_by("test_expiry_stays_until_changed_or_taken_away")
class CannotTakeExpiryAway(DurableMemory):
    """Treats ``NEVER`` as if nothing had been said."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if commit.expires_at == 0:
            commit = msgspec.structs.replace(commit, expires_at=None)
        return await super().commit(key, commit)


@caught_by("test_expiry_stays_until_changed_or_taken_away")
class LosesExpiryWhenRewritten(DurableMemory):
    """A commit that says nothing of expiry takes it away."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if commit.expires_at is None and commit.expires_in is None:
            commit = msgspec.structs.replace(commit, expires_at=0)
        return await super().commit(key, commit)


@caught_by("test_sweeping_removes_the_expired_and_nothing_else")
class SweepsTheLiving(DurableMemory):
    """Sweeps what will expire, not what has."""

    async def sweep(self, *, limit: int = 1000) -> int:
        for key, session in list(self._sessions.items()):
            if session.head is not None and session.head.expires_at is not None:
                self._bury(key, session, self._clock(), None)
        return await super().sweep(limit=limit)


@caught_by("test_stages_wait_for_their_time_and_are_swept_after_it")
class SweepsStagesTooEarly(DurableMemory):
    async def sweep(self, *, limit: int = 1000) -> int:
        swept = len(self._stages)
        self._stages.clear()
        return await super().sweep(limit=limit) + swept


@caught_by("test_deletion_ends_it", "test_a_change_that_came_before_ends_it_at_once")
class WaitsThroughDeletion(DurableMemory):
    """Waits for a higher version, which a deleted session never has."""

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        while True:
            head = await super().wait(key, after=after, timeout=timeout)
            if head is not None or after is None:
                return head
            after = None


@caught_by("test_a_successor_at_the_same_version_is_a_change")
class WaitsForAVersion(DurableMemory):
    """Takes a successor at the same version for the session it knows."""

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        head = (await self.read(key)).head
        if head is not None and after is not None and head.version == after.version:
            after = head
        return await super().wait(key, after=after, timeout=timeout)
