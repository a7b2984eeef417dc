"""Scopes: pages of a list, reading several sessions, names of tenants and kinds."""

import asyncio
import base64
import string
from contextlib import suppress
from typing import Any, assert_type

import pytest

from perdure import (
    Cell,
    Document,
    Entries,
    HeadEntry,
    InvalidKey,
    Log,
    Order,
    Page,
    Scope,
    Store,
    Unavailable,
    Unsupported,
)
from perdure.backend import Backend
from perdure.client import Client
from perdure.exporting import Record
from perdure.listing import Listing
from perdure.testing import TestClock
from perdure.testing.faults import Forwarding
from perdure.types import Read, SessionKey, Snapshot

URL_SAFE = set(string.ascii_letters + string.digits + "-_")


async def pages(store: Store, limit: int, **how: Any) -> list[list[str]]:
    """The ids on every page."""
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await store.page(limit=limit, cursor=cursor, **how)
        found.append([entry.key.id for entry in page.items])
        cursor = page.cursor
        if cursor is None:
            return found
        assert set(cursor) <= URL_SAFE


async def test_pages_go_on_from_one_another_in_every_order(
    store: Store, clock: TestClock
) -> None:
    ids = [f"{n:02}/é\U0001f600" for n in range(11)]
    for id in reversed(ids):
        clock.advance(100_000)
        await store.session(id).set(labels=("even",) if int(id[:2]) % 2 == 0 else ("odd",))
    assert await pages(store, 4) == [ids[:4], ids[4:8], ids[8:]]
    assert await pages(store, 4, order=Order.RECENCY) == [ids[:4], ids[4:8], ids[8:]]
    assert await pages(store, 4, label="even") == [ids[:8:2], ids[8::2]]
    recent = await pages(store, 4, label="odd", order=Order.RECENCY)
    assert recent == [ids[1:9:2], ids[9::2]]
    assert await pages(store, 4, prefix="0") == [ids[:4], ids[4:8], ids[8:10]]
    assert await pages(store, 100) == [ids]
    assert await pages(store, 100, prefix="nothing") == [[]]


async def test_a_page_shows_what_a_list_of_sessions_is_for(store: Store) -> None:
    await store.session("s").set(meta=b'{"title":"Trip"}', labels=("a", "b"), expires_in=60)
    await store.session("s").append("entry")
    (entry,) = (await store.page()).items
    assert entry == HeadEntry(store.key("s"), entry.head)
    assert (entry.head.meta, entry.head.labels) == (b'{"title":"Trip"}', ("a", "b"))
    assert entry.head.version == 2
    assert entry.head.expires_at == entry.head.created_at + 60_000


async def test_a_cursor_fits_no_other_list(store: Store) -> None:
    for n in range(3):
        await store.session(f"s{n}").set(labels=("x", "y"))
    cursor = (await store.page(limit=1)).cursor
    assert cursor is not None
    others: list[tuple[Scope, dict[str, Any]]] = [
        (store, {"order": Order.RECENCY}),
        (store, {"label": "x"}),
        (store, {"prefix": "s"}),
        (store.tenant("other"), {}),
        (store.kind("other"), {}),
    ]
    for scope, how in others:
        with pytest.raises(InvalidKey, match="cursor"):
            await scope.page(limit=1, cursor=cursor, **how)
    assert [entry.key.id for entry in (await store.page(cursor=cursor)).items] == ["s1", "s2"]


@pytest.mark.parametrize(
    "cursor", ["", "a", "AAAA", "!!!!", "é", "A" * 10_000, "[0, 1]", 7, b"AAAA"], ids=repr
)
async def test_what_is_no_cursor_is_refused(store: Store, cursor: Any) -> None:
    for order in Order:
        with pytest.raises(InvalidKey, match="cursor"):
            await store.page(cursor=cursor, order=order)


async def test_a_cursor_that_was_changed_is_refused(store: Store) -> None:
    await store.session("a").append(1)
    await store.session("b").append(1)
    cursor = (await store.page(limit=1, order=Order.RECENCY)).cursor
    assert cursor is not None
    for changed in (cursor[1:], cursor[:3] + "A" + cursor[4:], "=" + cursor):
        with pytest.raises(InvalidKey):
            await store.page(cursor=changed, order=Order.RECENCY)


@pytest.mark.parametrize("order", Order)
async def test_a_cursor_changed_anywhere_is_refused(store: Store, order: Order) -> None:
    for n in range(3):
        await store.session(f"s{n}").append(n)
    cursor = (await store.page(limit=1, order=order)).cursor
    assert cursor is not None
    content = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for at in range(len(content)):
        other = content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]
        for changed in (other, content[:at], content + b"0"):
            with pytest.raises(InvalidKey, match="cursor"):
                token = base64.urlsafe_b64encode(changed).decode().rstrip("=")
                await store.page(order=order, cursor=token)


async def test_not_even_a_forged_cursor_shows_what_is_before_the_prefix(
    backend: Backend,
) -> None:
    client = Client(backend, deadline=5)
    for id in ("a/1", "a/2", "b/1", "b/2"):
        await Scope(client, "t", "k").session(id).append(1)
    listing = Listing("t", "k", order=Order.ID, prefix="b/", label=None)
    everything = Listing("t", "k", order=Order.ID, prefix="", label=None)
    behind = (await everything.page(client, 1, None)).cursor
    shown: list[str] = []
    with suppress(InvalidKey):  # or nothing is shown
        page = await Scope(client, "t", "k").page(cursor=listing.token(behind), prefix="b/")
        shown = [entry.key.id for entry in page.items]
    assert [id for id in shown if not id.startswith("b/")] == []


@pytest.mark.parametrize("limit", [0, -1, 1001, 1.0, True, "10", None], ids=repr)
async def test_a_limit_that_is_none_is_refused(store: Store, limit: Any) -> None:
    with pytest.raises(InvalidKey, match="limit"):
        await store.page(limit=limit)


async def test_a_list_narrowed_by_nonsense_is_refused(store: Store) -> None:
    for how in (
        {"label": ""},
        {"label": "x" * 129},
        {"label": 7},
        {"prefix": "a\0"},
        {"prefix": None},
        {"order": "id"},
    ):
        arguments: dict[str, Any] = how
        with pytest.raises(InvalidKey):
            await store.page(**arguments)
        with pytest.raises(InvalidKey):
            await anext(store.list(**arguments))
    with pytest.raises(Unsupported):
        await store.page(prefix="a", order=Order.RECENCY)


async def test_several_sessions_are_read_at_once_each_as_by_itself(store: Store) -> None:
    for n in range(40):
        await store.session(f"s{n}").append(n, n + 1)
        await store.session(f"s{n}").cells.put("step", n)
    await store.save("s3", {"saved": True})
    ids = [f"s{n}" for n in range(40)] + ["absent"]
    found = await store.read_many(ids, Log(last=1), Cell("step", "none"), Document())
    assert list(found) == ids
    for n in range(40):
        last, step, document = found[f"s{n}"]
        assert (last, step) == ([n + 1], n)
        assert (document is not None) == (n == 3)
    assert found["absent"] == ([], "none", None)
    assert found["absent"][0].head is None
    assert await store.read_many([], Log()) == {}
    assert await store.read_many(iter(["s1", "s1"]), Cell("step")) == {"s1": (1,)}
    assert await store.tenant("other").read_many(["s1"], Cell("step")) == {"s1": (None,)}


async def test_type_checkers_know_what_is_read_and_listed(store: Store) -> None:
    await store.session("s").append("a")
    found = await store.read_many(["s"], Log(last=1), Cell("step"))
    assert_type(found, dict[str, tuple[Entries[Any], Any]])
    assert_type(await store.read_many(["s"], Log(type=str)), dict[str, tuple[Entries[str]]])
    assert_type(await store.page(), Page[HeadEntry])
    assert_type([record async for record in store.export()], list[Record])
    assert found == {"s": (["a"], None)}


async def test_reading_several_refuses_what_names_nothing_before_it_reads(
    store: Store,
) -> None:
    nonsense: Any = "s1"
    with pytest.raises(TypeError, match="ids"):
        await store.read_many(nonsense, Log())
    with pytest.raises(InvalidKey):
        await store.read_many(["s", ""], Log())
    with pytest.raises(TypeError):
        await store.read_many(["s"], nonsense)


class Crowded(Forwarding):
    """Counts the reads that are under way at the same time; the session ``bad`` is not read."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.under_way = self.most = self.ended = 0

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        if key.id == "bad":
            raise Unavailable("mend me", lasting=True)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.001)
            snapshot = await super().read(key, *reads)
            self.ended += 1
            return snapshot
        finally:
            self.under_way -= 1


async def test_reading_several_is_done_some_at_a_time_and_ends_with_the_first_error(
    backend: Backend,
) -> None:
    crowded = Crowded(backend)
    store = Store(crowded)
    ids = [f"s{n}" for n in range(100)]
    await store.read_many(ids, Log())
    assert 2 <= crowded.most <= 16
    crowded.ended = 0
    with pytest.raises(Unavailable, match="mend me"):
        await store.read_many([*ids[:20], "bad", *ids[20:]], Log())
    assert crowded.ended < 50
    assert crowded.under_way == 0, "nothing is left running"


async def test_tenants_and_kinds_are_read_page_by_page(store: Store) -> None:
    names = [f"{n:03}" for n in range(230)]
    for name in names:
        await store.tenant(name).session("s").append(1)
        await store.tenant("t").kind(name).session("s").append(1)
    assert [name async for name in store.tenants()] == [*names, "t"]
    assert [kind async for kind in store.tenant("t").kinds()] == names
    assert [kind async for kind in store.tenant("nobody").kinds()] == []
