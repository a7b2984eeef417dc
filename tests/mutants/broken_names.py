"""Backends that confuse names, and lists that lose track."""

import json
import unicodedata

import msgspec

from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    HeadEntry,
    ListQuery,
    Order,
    Page,
    Read,
    SessionKey,
    Snapshot,
)

from tests.backends.memory.durable import DurableMemory
from tests.mutants.catalogue import caught_by


class Renaming(DurableMemory):
    """Base: keys with the same ``name`` are one session, that of the first of them."""

    _first: dict[object, SessionKey]

    def name(self, key: SessionKey) -> object:
        raise NotImplementedError

    def first(self, key: SessionKey) -> SessionKey:
        self._first = getattr(self, "_first", {})
        return self._first.setdefault(self.name(key), key)

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        return await super().read(self.first(key), *reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        return await super().commit(self.first(key), commit)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        return await super().delete(
            self.first(key), id=id, expect=expect, incarnation=incarnation
        )


@caught_by("test_parts_do_not_run_into_one_another")
class JoinsNamesByColon(Renaming):
    """Leaks between tenants whose names differ by a separator."""

    def name(self, key: SessionKey) -> object:
        return f"{key.tenant}:{key.kind}:{key.id}"


@caught_by("test_parts_do_not_run_into_one_another")
class JoinsNamesByNothing(Renaming):
    def name(self, key: SessionKey) -> object:
        return key.tenant + key.kind + key.id


@caught_by("test_hostile_session_ids")
class FoldsCase(Renaming):
    def name(self, key: SessionKey) -> object:
        return key.tenant, key.kind, key.id.casefold()


@caught_by("test_hostile_session_ids", "test_hostile_tenants", "test_hostile_kinds")
class NormalizesNames(Renaming):
    """As some file systems and databases do."""

    def name(self, key: SessionKey) -> object:
        return tuple(
            unicodedata.normalize("NFC", part) for part in msgspec.structs.astuple(key)
        )


@caught_by("test_hostile_session_ids")
class TrimsNames(Renaming):
    """As SQL's CHAR and some trimming of input do."""

    def name(self, key: SessionKey) -> object:
        return key.tenant, key.kind, key.id.rstrip()


@caught_by("test_hostile_session_ids")
class CutsLongNames(Renaming):
    """As a column of 255 characters does."""

    def name(self, key: SessionKey) -> object:
        return key.tenant, key.kind, key.id[:255]


@caught_by("test_parts_do_not_run_into_one_another", "test_hostile_kinds")
class IgnoresKinds(Renaming):
    def name(self, key: SessionKey) -> object:
        return key.tenant, key.id


@caught_by("test_what_stays_is_paged_once_while_others_come_and_go")
class PagesByOffset(DurableMemory):
    """A cursor says how many sessions were shown, not which."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        shown = int(query.cursor) if query.cursor is not None else 0
        everything = msgspec.structs.replace(query, cursor=None, limit=1 << 30)
        found = (await super().list(tenant, kind, everything)).items
        page = found[shown : shown + query.limit]
        more = len(found) > shown + query.limit
        return Page(page, str(shown + query.limit) if more else None)


@caught_by("test_paging_shows_every_session_once")
class OmitsBetweenPages(DurableMemory):
    """Takes the cursor for the first of the next page, and goes on behind it."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        page = await super().list(tenant, kind, query)
        if query.cursor is not None and query.order is Order.ID:
            return Page(page.items[1:], page.cursor)
        return page


@caught_by("test_paging_shows_every_session_once")
class RepeatsBetweenPages(DurableMemory):
    """Shows the last session of a page again on the next."""

    _last: HeadEntry | None = None

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        page = await super().list(tenant, kind, query)
        if query.cursor is not None and self._last is not None:
            page = Page((self._last, *page.items), page.cursor)
        self._last = page.items[-1] if page.items else None
        return page


@caught_by("test_recency_shows_every_session_once_among_equals")
class CursorOfTimeAlone(DurableMemory):
    """Recency goes on behind the time of the last shown, and so past others of that time."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        if query.order is Order.RECENCY and query.cursor is not None:
            rank, _ = json.loads(query.cursor)
            cursor = json.dumps((rank, "\U0010ffff"))
            query = msgspec.structs.replace(query, cursor=cursor)
        return await super().list(tenant, kind, query)


@caught_by("test_ids_order_as_utf8_bytes")
class OrdersAsUtf16(DurableMemory):
    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        page = await super().list(tenant, kind, query)
        if query.order is not Order.ID:
            return page
        items = sorted(page.items, key=lambda entry: entry.key.id.encode("utf-16-be"))
        return Page(tuple(items), page.cursor)


@caught_by("test_a_prefix_is_matched_literally")
class PrefixIsAPattern(DurableMemory):
    """Passes a prefix to LIKE as it is: ``%`` matches anything."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        prefix = query.prefix.partition("%")[0]
        return await super().list(tenant, kind, msgspec.structs.replace(query, prefix=prefix))


@caught_by("test_a_label_lists_those_that_carry_it_now")
class KeepsOldLabels(DurableMemory):
    """Does not take a session out of the lists of labels that it had."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        if query.label is None:
            return await super().list(tenant, kind, query)
        had: dict[SessionKey, set[str]] = getattr(self, "_had", {})
        everything = msgspec.structs.replace(query, label=None, limit=1 << 30, cursor=None)
        found = (await super().list(tenant, kind, everything)).items
        return Page(
            tuple(
                entry
                for entry in found
                if query.label in entry.head.labels or query.label in had.get(entry.key, ())
            )
        )

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self._had: dict[SessionKey, set[str]] = getattr(self, "_had", {})
        self._had.setdefault(key, set()).update(commit.labels or ())
        return await super().commit(key, commit)


@caught_by("test_deleted_sessions_leave_every_list", "test_a_deleted_session_is_absent_at_once")
class ListsTheDeleted(DurableMemory):
    """Shows sessions as they were when they were last committed."""

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        page = await super().list(tenant, kind, query)
        gone: dict[SessionKey, Head] = getattr(self, "_gone", {})
        there = {entry.key for entry in page.items}
        more = [
            HeadEntry(key, head)
            for key, head in gone.items()
            if key not in there and (key.tenant, key.kind) == (tenant, kind)
        ]
        return Page((*page.items, *more), page.cursor)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        head = (await self.read(key)).head
        if head is not None:
            self._gone: dict[SessionKey, Head] = getattr(self, "_gone", {})
            self._gone[key] = head
        return await super().delete(key, id=id, expect=expect, incarnation=incarnation)


@caught_by("test_kinds_of_a_tenant_are_listed_once_in_order")
class ListsTheKindsOfAll(DurableMemory):
    """Does not look whose kinds they are."""

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        names = {key.kind for key in self._sessions}
        rest = sorted(name for name in names if name > (cursor or ""))
        return Page(tuple(rest[:limit]), rest[limit - 1] if len(rest) > limit else None)
