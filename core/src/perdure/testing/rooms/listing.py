"""Lists: every session once, nobody else's, in order, page by page."""

import asyncio

import pytest

from perdure.backend import Backend
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Room, let_pass
from perdure.testing.shorthand import list_ids, list_pages, new_id, read_head, write
from perdure.types import HeadEntry, ListQuery, Order, Page, SessionKey

UNORDERLY = (
    *("a", "A", "aa", "a b", "a\t", "b", "0", "10", "9", "é", "e\u0301", "z", "~"),
    # In UTF-16 the last two of these would come before the other two.
    *("\ue000", "\uffff", "\U00010000", "\U0001f600"),
)


def sibling(key: SessionKey, id: str) -> SessionKey:
    return SessionKey(key.tenant, key.kind, id)


async def create(backend: Backend, key: SessionKey, *ids: str) -> None:
    for id in ids:
        await write(backend, sibling(key, id))


class Listing(Room):
    async def test_nothing_is_an_empty_last_page(
        self, backend: Backend, key: SessionKey
    ) -> None:
        for order in Order:
            page = await backend.list(key.tenant, key.kind, ListQuery(order=order))
            assert page.items == ()
            assert page.cursor is None

    async def test_entries_show_key_and_head(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        await create(backend, key, "x", "y")
        await write(backend, sibling(key, "y"), puts=((b"a", b"1"),), meta=b"m", labels=("l",))
        await let_pass(harness, backend.capabilities.list_lag)
        expected = [
            HeadEntry(sibling(key, id), await read_head(backend, sibling(key, id)))
            for id in ("x", "y")
        ]
        assert await list_pages(backend, key) == [expected]

    async def test_ids_order_as_utf8_bytes(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        await create(backend, key, *UNORDERLY)
        await let_pass(harness, backend.capabilities.list_lag)
        expected = sorted(UNORDERLY, key=str.encode)
        assert await list_ids(backend, key) == expected
        assert await list_ids(backend, key, limit=4) == expected

    async def test_paging_shows_every_session_once(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        ids = [f"{n:02}" for n in range(23)]
        await create(backend, key, *reversed(ids))
        await let_pass(harness, backend.capabilities.list_lag)
        for limit in (1, 2, 7, 22, 23, 24):
            pages = await list_pages(backend, key, limit=limit)
            assert [entry.key.id for page in pages for entry in page] == ids, limit
            assert all(len(page) <= limit for page in pages)
            assert len(pages) <= len(ids) // limit + 2, "pages are filled"

    async def test_a_prefix_is_matched_literally(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        ids = [
            "a",
            "a%",
            "a%b",
            "a_",
            "a*",
            "a?",
            "a[b]",
            "a\\",
            "ab",
            "aé",
            "a\uffff",
            "A",
            "b",
        ]
        await create(backend, key, *ids)
        await let_pass(harness, backend.capabilities.list_lag)
        for prefix in (*ids, "", "a%b%", "é", "c", "a\U0001f600"):
            for limit in (3, 100):
                found = await list_ids(backend, key, prefix=prefix, limit=limit)
                expected = sorted(id for id in ids if id.startswith(prefix))
                assert found == expected, prefix

    async def test_tenants_and_kinds_are_listed_apart(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        near = [
            SessionKey(key.tenant, "session", "mine"),
            SessionKey(key.tenant, "sessions", "other kind"),
            SessionKey(key.tenant, "sessio", "shorter kind"),
            SessionKey(key.tenant + "x", "session", "longer tenant"),
            SessionKey(key.tenant[:-1], "session", "shorter tenant"),
            SessionKey(key.tenant.upper(), "session", "shouted tenant"),
        ]
        for other in near:
            await write(backend, other, labels=("l",))
        await let_pass(harness, backend.capabilities.list_lag)
        for other in near:
            for order in Order:
                assert await list_ids(backend, other, order=order) == [other.id]
            assert await list_ids(backend, other, label="l") == [other.id]

    async def test_a_label_lists_those_that_carry_it_now(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        labelled = {"a": ("red",), "b": ("red", "blue"), "c": ("blue",), "d": (), "e": ("re",)}
        for id, labels in labelled.items():
            await write(backend, sibling(key, id), labels=labels)
        await let_pass(harness, backend.capabilities.list_lag)
        assert await list_ids(backend, key, label="red") == ["a", "b"]
        assert await list_ids(backend, key, label="blue") == ["b", "c"]
        assert await list_ids(backend, key, label="RED") == []
        await write(backend, sibling(key, "a"), labels=("blue",))
        await write(backend, sibling(key, "b"), labels=())
        await write(backend, sibling(key, "c"), puts=((b"a", b"1"),))
        await write(backend, sibling(key, "d"), labels=("red", "r'd", "%"))
        await let_pass(harness, backend.capabilities.list_lag)
        assert await list_ids(backend, key, label="red") == ["d"]
        assert await list_ids(backend, key, label="blue", limit=1) == ["a", "c"]
        assert await list_ids(backend, key, label="r'd") == ["d"]
        assert await list_ids(backend, key, label="%") == ["d"]
        assert await list_ids(backend, key) == ["a", "b", "c", "d", "e"]
        recent = await list_ids(backend, key, label="blue", order=Order.RECENCY)
        assert sorted(recent) == ["a", "c"]

    async def test_a_label_and_a_prefix_narrow_together(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        for id, labels in {"a1": ("l",), "a2": (), "a3": ("l",), "b1": ("l",)}.items():
            await write(backend, sibling(key, id), labels=labels)
        await let_pass(harness, backend.capabilities.list_lag)
        assert await list_ids(backend, key, label="l", prefix="a") == ["a1", "a3"]

    async def test_deleted_sessions_leave_every_list(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        for id in ("a", "b", "c"):
            await write(backend, sibling(key, id), labels=("l",))
        await backend.delete(sibling(key, "b"), id=new_id())
        await let_pass(harness, backend.capabilities.list_lag)
        assert await list_ids(backend, key, limit=1) == ["a", "c"]
        assert await list_ids(backend, key, label="l") == ["a", "c"]
        recent = await list_ids(backend, key, order=Order.RECENCY)
        assert sorted(recent) == ["a", "c"]
        await write(backend, sibling(key, "b"))
        await let_pass(harness, backend.capabilities.list_lag)
        assert await list_ids(backend, key) == ["a", "b", "c"]
        assert await list_ids(backend, key, label="l") == ["a", "c"]

    async def test_expired_sessions_are_passed_over(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        for n in range(12):
            await write(
                backend, sibling(key, f"{n:02}"), expires_in=200 if n % 3 else 1_000_000
            )
        await let_pass(harness, 200 + max(backend.capabilities.list_lag, 1))
        for limit in (1, 3, 100):
            found = await list_ids(backend, key, limit=limit)
            assert found == ["00", "03", "06", "09"]

    async def test_recency_is_last_committed_first(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        lag = max(backend.capabilities.recency_lag, backend.capabilities.list_lag)
        step = lag + 10
        for id in ("a", "b", "c", "d"):
            await create(backend, key, id)
            await let_pass(harness, step)
        await write(backend, sibling(key, "b"), puts=((b"a", b"1"),))
        await let_pass(harness, step)
        expected = ["b", "d", "c", "a"]
        for limit in (1, 3, 100):
            found = await list_ids(backend, key, order=Order.RECENCY, limit=limit)
            assert found == expected, limit

    async def test_recency_shows_every_session_once_among_equals(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        ids = [f"{n:02}" for n in range(11)]
        await create(backend, key, *ids)
        lag = max(backend.capabilities.recency_lag, backend.capabilities.list_lag)
        await let_pass(harness, lag)
        for limit in (1, 4, 100):
            found = await list_ids(backend, key, order=Order.RECENCY, limit=limit)
            assert sorted(found) == ids, limit

    async def test_what_stays_is_paged_once_while_others_come_and_go(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        staying = [f"{n:03}" for n in range(0, 60, 3)]
        await create(backend, key, *staying)
        await let_pass(harness, backend.capabilities.list_lag)
        done = asyncio.Event()

        async def churn() -> None:
            n = 0
            while not done.is_set():
                id = f"{n % 60:03}"
                if id in staying:
                    await write(backend, sibling(key, id), puts=((b"n", b"%d" % n),))
                elif (await backend.read(sibling(key, id))).head is None:
                    await write(backend, sibling(key, id))
                else:
                    await backend.delete(sibling(key, id), id=new_id())
                n += 1
                await asyncio.sleep(0)

        churning = asyncio.create_task(churn())
        try:
            for _ in range(8):
                found: list[str] = []
                cursor: str | None = None
                while True:
                    query = ListQuery(limit=3, cursor=cursor)
                    page = await backend.list(key.tenant, key.kind, query)
                    found += [entry.key.id for entry in page.items]
                    cursor = page.cursor
                    if cursor is None:
                        break
                    await asyncio.sleep(0.001)
                assert [id for id in found if id in staying] == staying
                assert found == sorted(set(found)), "in order, nothing twice"
        finally:
            done.set()
            await churning

    async def test_a_cursor_outlives_the_session_it_points_at(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        await create(backend, key, "a", "b", "c", "d")
        await let_pass(harness, backend.capabilities.list_lag)
        page = await backend.list(key.tenant, key.kind, ListQuery(limit=2))
        await backend.delete(sibling(key, "b"), id=new_id())
        await backend.delete(sibling(key, "c"), id=new_id())
        rest = ListQuery(limit=2, cursor=page.cursor)
        page = await backend.list(key.tenant, key.kind, rest)
        assert [entry.key.id for entry in page.items] == ["d"]

    async def test_tenants_are_listed_once_in_order(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        mine = [key.tenant + end for end in ("", "x", "%", "'", "\uffff", "\U00010000")]
        for tenant in mine:
            for kind in ("session", "other"):
                await write(backend, SessionKey(tenant, kind, "s"))
        await let_pass(harness, backend.capabilities.list_lag)
        for limit in (2, 100):
            found: list[str] = []
            cursor: str | None = None
            while True:
                page = await backend.tenants(cursor=cursor, limit=limit)
                assert len(page.items) <= limit
                found += page.items
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == sorted(found, key=str.encode)
            assert [tenant for tenant in found if tenant in mine] == sorted(
                mine, key=str.encode
            )

    async def test_kinds_of_a_tenant_are_listed_once_in_order(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        mine = ["session", "session2", "s", "%", "'", "é", "\uffff", "\U00010000"]
        for kind in mine:
            for id in ("a", "b"):
                await write(backend, SessionKey(key.tenant, kind, id))
        await write(backend, SessionKey(key.tenant + "x", "elsewhere", "a"))
        await let_pass(harness, backend.capabilities.list_lag)
        for limit in (1, 3, 100):
            found: list[str] = []
            cursor: str | None = None
            while True:
                page = await backend.kinds(key.tenant, cursor=cursor, limit=limit)
                assert len(page.items) <= limit
                found += page.items
                cursor = page.cursor
                if cursor is None:
                    break
            assert found == sorted(mine, key=str.encode)
        assert await backend.kinds(key.tenant + "y") == Page(())

    async def test_describe_says_where_the_data_is(self, backend: Backend) -> None:
        description = await backend.describe()
        assert description.backend
        assert description.location
        assert description.durability

    @pytest.mark.parametrize("order", list(Order))
    async def test_a_session_made_again_is_listed_once(
        self, harness: Harness, backend: Backend, key: SessionKey, order: Order
    ) -> None:
        for _ in range(3):
            await write(backend, key, labels=("l",))
            await backend.delete(key, id=new_id())
        await write(backend, key, labels=("l",))
        lag = max(backend.capabilities.recency_lag, backend.capabilities.list_lag)
        await let_pass(harness, lag)
        assert await list_ids(backend, key, order=order) == [key.id]
        assert await list_ids(backend, key, order=order, label="l") == [key.id]
