"""Backends whose lists, by label or recency or while others write, are not what is there."""

import msgspec

from perdure.types import (
    Commit,
    Committed,
    Head,
    HeadEntry,
    ListQuery,
    Order,
    Page,
    Read,
    SessionKey,
    Snapshot,
)

from perdure_memory.sessions import Stage
from tests.backends.memory.durable import DurableMemory
from tests.mutants.catalogue import caught_by


@caught_by("test_what_keeps_a_label_is_paged_once_while_others_gain_and_lose_it")
class PagesLabelsByOffset(DurableMemory):
    """With a label, a cursor says how many sessions were shown, not which."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        if query.label is None:
            return await super().list(tenant, kind, query)
        shown = int(query.cursor) if query.cursor is not None else 0
        everything = msgspec.structs.replace(query, cursor=None, limit=1 << 30)
        found = (await super().list(tenant, kind, everything)).items
        end = shown + query.limit
        return Page(found[shown:end], str(end) if len(found) > end else None)


@caught_by("test_deleting_page_by_page_leaves_none")
class LosesItsPlaceWithTheSession(DurableMemory):
    """A cursor names a session, and there is no going on once that one is gone."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        last: dict[str, SessionKey] = getattr(self, "_last", {})
        if query.cursor is not None:
            before = last.get(query.cursor)
            if before is None or (await self.read(before)).head is None:
                return Page(())
        page = await super().list(tenant, kind, query)
        if page.cursor is not None:
            self._last = {**last, page.cursor: page.items[-1].key}
        return page


@caught_by("test_a_label_and_a_prefix_narrow_together")
class IgnoresPrefixesOfLabels(DurableMemory):
    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        if query.label is not None:
            query = msgspec.structs.replace(query, prefix="")
        return await super().list(tenant, kind, query)


@caught_by("test_recency_among_those_with_a_label_is_last_committed_first")
class OrdersLabelsByCreation(DurableMemory):
    """Puts a session into the list of a label when it is made, and leaves it in its place."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        if query.label is None or query.order is not Order.RECENCY:
            return await super().list(tenant, kind, query)
        shown = int(query.cursor) if query.cursor is not None else 0
        everything = msgspec.structs.replace(query, cursor=None, limit=1 << 30)
        found = (await super().list(tenant, kind, everything)).items
        made = sorted(found, key=lambda entry: -entry.head.created_at)
        end = shown + query.limit
        return Page(tuple(made[shown:end]), str(end) if len(made) > end else None)


@caught_by("test_entries_show_key_and_head")
class ListsTheFirstHead(DurableMemory):
    """A list shows sessions as they were made."""

    _made: dict[tuple[SessionKey, bytes], Head]

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        self._made = getattr(self, "_made", {})
        if made.head is not None:
            self._made.setdefault((key, made.incarnation), made.head)
        return made

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        page = await super().list(tenant, kind, query)
        made = getattr(self, "_made", {})
        return Page(
            tuple(
                HeadEntry(entry.key, made.get((entry.key, entry.head.incarnation), entry.head))
                for entry in page.items
            ),
            page.cursor,
        )


@caught_by("test_names_go_on_though_those_before_are_gone")
class PagesKindsByOffset(DurableMemory):
    """A cursor says how many kinds were shown of those that have sessions."""

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        shown = int(cursor) if cursor is not None else 0
        names = sorted(
            {
                key.kind
                for key, session in self._sessions.items()
                if key.tenant == tenant and session.head is not None
            }
        )
        end = shown + limit
        return Page(tuple(names[shown:end]), str(end) if len(names) > end else None)


@caught_by(
    "test_a_session_made_of_stages_puts_and_appends_is_listed_with_all_it_carries",
    "test_a_commit_adopts_the_stages_it_names",
)
class AdoptsOneStage(DurableMemory):
    """Of several stages that a commit names, the first is adopted."""

    def _take_stages(
        self, key: SessionKey, incarnation: bytes, ids: tuple[bytes, ...]
    ) -> list[Stage]:
        return list(super()._take_stages(key, incarnation, ids))[:1]


@caught_by("test_a_session_made_of_stages_puts_and_appends_is_listed_with_all_it_carries")
class CreatesWithoutLabels(DurableMemory):
    """A session that is made of stages gets no labels."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        if commit.stages and (await self.read(key)).head is None:
            commit = msgspec.structs.replace(commit, labels=None)
        return await super().commit(key, commit)


class FirstExpiry(DurableMemory):
    """Base: knows when sessions were to expire at first."""

    _first: dict[tuple[SessionKey, bytes], int]

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        made = await super().commit(key, commit)
        self._first = getattr(self, "_first", {})
        if made.head is not None and made.head.expires_at is not None:
            self._first.setdefault((key, made.incarnation), made.head.expires_at)
        return made

    def first(self, key: SessionKey, head: Head) -> int | None:
        return getattr(self, "_first", {}).get((key, head.incarnation))


@caught_by(
    "test_what_lives_longer_or_shorter_than_it_first_should_is_listed_so_long",
    "test_extending_in_time_keeps_the_session_alive",
)
class ExpiresAsItWasMadeTo(FirstExpiry):
    """Hands the expiry to the engine when the session is made, and not again."""

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        session = self._sessions.get(key)
        if session is not None and session.head is not None:
            first = self.first(key, session.head)
            if first is not None and first <= self._clock():
                self._bury(key, session, self._clock(), None)
        return await super().read(key, *reads)


@caught_by("test_what_lives_longer_or_shorter_than_it_first_should_is_listed_so_long")
class ListsByTheFirstExpiry(FirstExpiry):
    """An index of what expires when is written with the session, and not again."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        page = await super().list(tenant, kind, query)
        now = self._clock()
        return Page(
            tuple(
                entry
                for entry in page.items
                if (first := self.first(entry.key, entry.head)) is None or first > now
            ),
            page.cursor,
        )


@caught_by("test_a_refused_commit_does_not_extend_life", "test_absent_requires_none")
class ConflictsExtendLife(DurableMemory):
    """Sets the expiry before it finds that the commit must be refused."""

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        session = self._sessions.get(key)
        if session is not None and session.head is not None and commit.expires_in is not None:
            expires_at = self._clock() + commit.expires_in
            session.head = msgspec.structs.replace(session.head, expires_at=expires_at)
        return await super().commit(key, commit)
