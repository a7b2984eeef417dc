"""Lists read page by page while sessions come, go and change: what stays is met, once."""

import asyncio

from perdure.backend import Backend
from perdure.testing.harness import Harness
from perdure.testing.rooms.room import Room, let_pass, sibling
from perdure.testing.shorthand import (
    list_ids,
    new_commit,
    new_id,
    read_items,
    read_values,
    write,
)
from perdure.types import Append, Expect, Item, ListQuery, Order, SessionKey, append_key


async def delete(backend: Backend, key: SessionKey) -> None:
    await backend.delete(key, id=new_id())


class Paging(Room):
    async def test_what_keeps_a_label_is_paged_once_while_others_gain_and_lose_it(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        names = [f"{n:03}" for n in range(45)]
        staying = names[::3]
        for n, name in enumerate(names):
            await write(backend, sibling(key, name), labels=("l", "m") if n % 3 < 2 else ("m",))
        await let_pass(harness, backend.capabilities.list_lag)
        done = asyncio.Event()

        async def churn() -> None:
            n = 0
            while not done.is_set():
                other = sibling(key, names[n % 45])
                if other.id in staying:
                    await write(backend, other, puts=((b"n", b"%d" % n),))
                elif n % 7 == 0:
                    await delete(backend, other)
                else:
                    await write(backend, other, labels=("l",) if n % 2 else ("m",))
                n += 1
                await asyncio.sleep(0)

        churning = asyncio.create_task(churn())
        try:
            for _ in range(5):
                found: list[str] = []
                cursor: str | None = None
                while True:
                    query = ListQuery(label="l", limit=3, cursor=cursor)
                    page = await backend.list(key.tenant, key.kind, query)
                    found += [entry.key.id for entry in page.items]
                    cursor = page.cursor
                    if cursor is None:
                        break
                    await asyncio.sleep(0.001)
                assert [name for name in found if name in staying] == staying
                assert found == sorted(set(found)), "in order, nothing twice"
        finally:
            done.set()
            await churning

    async def test_deleting_page_by_page_leaves_none(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        for n in range(14):
            await write(backend, sibling(key, f"{n:02}"), labels=("l",) if n % 2 else ())
        await let_pass(harness, backend.capabilities.list_lag)
        for label in ("l", None):
            cursor: str | None = None
            while True:
                query = ListQuery(limit=3, cursor=cursor, label=label)
                page = await backend.list(key.tenant, key.kind, query)
                for entry in page.items:
                    assert await backend.delete(
                        entry.key, id=new_id(), incarnation=entry.head.incarnation
                    )
                cursor = page.cursor
                if cursor is None:
                    break
            left = await list_ids(backend, key)
            assert left == ([f"{n:02}" for n in range(0, 14, 2)] if label else [])

    async def test_recency_among_those_with_a_label_is_last_committed_first(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        lag = max(backend.capabilities.recency_lag, backend.capabilities.list_lag)
        for name in ("b", "x", "a", "y", "c"):
            labels = ("l", "m") if name in "abc" else ("m",)
            await write(backend, sibling(key, name), labels=labels)
            await let_pass(harness, lag + 10)
        await write(backend, sibling(key, "b"), puts=((b"a", b"1"),))
        await let_pass(harness, lag + 10)
        for limit in (1, 2, 100):
            found = await list_ids(backend, key, order=Order.RECENCY, label="l", limit=limit)
            assert found == ["b", "c", "a"], limit

    async def test_names_go_on_though_those_before_are_gone(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        kinds = ["a", "b", "c", "d", "e"]
        for kind in kinds:
            await write(backend, SessionKey(key.tenant, kind, "s"))
        await let_pass(harness, backend.capabilities.list_lag)
        page = await backend.kinds(key.tenant, limit=2)
        assert page.items == ("a", "b")
        for kind in ("a", "b", "c"):
            await delete(backend, SessionKey(key.tenant, kind, "s"))
        await let_pass(harness, backend.capabilities.list_lag)
        found: list[str] = []
        cursor = page.cursor
        while cursor is not None:
            page = await backend.kinds(key.tenant, limit=2, cursor=cursor)
            found += page.items
            cursor = page.cursor
        assert found in (["c", "d", "e"], ["d", "e"]), "those that lately were may be shown"

    async def test_a_session_made_of_stages_puts_and_appends_is_listed_with_all_it_carries(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        """As a copy of another is made: at once, where nothing may be."""
        commit = new_commit(
            expect=Expect.ABSENT,
            stages=(new_id(), new_id()),
            puts=((b"f", b"lineage"),),
            appends=(Append(b"l\0", (b"1", b"2")), Append(b"lb\0", (b"3",))),
            meta=b"meta",
            labels=("l", "m"),
            expires_in=1_000_000,
        )
        for n, stage in enumerate(commit.stages):
            parts = tuple((b"b%d/%d" % (n, part), b"part") for part in range(3))
            await backend.stage(key, commit.new_incarnation, stage, parts)
        made = await backend.commit(key, commit)
        assert made.head is not None
        assert (made.version, made.incarnation) == (1, commit.new_incarnation)
        rows = [
            Item(append_key(b"l\0", 1, 0), b"1", 1),
            Item(append_key(b"l\0", 1, 1), b"2", 1),
            Item(append_key(b"lb\0", 1, 0), b"3", 1),
        ]
        parts = [Item(b"b%d/%d" % (n, m), b"part", 1) for n in range(2) for m in range(3)]
        assert await read_items(backend, key) == [*parts, Item(b"f", b"lineage", 1), *rows]
        await let_pass(harness, backend.capabilities.list_lag)
        query = ListQuery(label="m")
        (entry,) = (await backend.list(key.tenant, key.kind, query)).items
        assert (entry.key, entry.head) == (key, made.head)
        assert entry.head.expires_at is not None

    async def test_what_lives_longer_or_shorter_than_it_first_should_is_listed_so_long(
        self, harness: Harness, backend: Backend, key: SessionKey
    ) -> None:
        life = 600
        longer, shorter = sibling(key, "longer"), sibling(key, "shorter")
        for each, first, then in ((longer, life, 20 * life), (shorter, 20 * life, life)):
            made = await write(backend, each, labels=("l",), expires_in=first)
            head = made.head
            assert head is not None
            await write(backend, each, incarnation=made.incarnation, expires_in=then)
        limits = backend.capabilities
        await let_pass(harness, life + max(limits.list_lag, limits.clock_error))
        for swept in (False, True):
            for order in Order:
                for label in (None, "l"):
                    found = await list_ids(backend, key, order=order, label=label)
                    assert found == ["longer"]
            assert (await backend.read(shorter)).head is None
            assert (await backend.read(longer)).head is not None
            if not swept:
                while await backend.sweep():
                    pass
        assert await read_values(backend, longer) == {}
