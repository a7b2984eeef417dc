"""Erasing a tenant, and deleting a session with its forks: nothing stays, nothing else goes."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from perdure import Conflict, InvalidKey, Session, SessionDeleted, Store, Unavailable
from perdure.backend import Backend
from perdure.testing.faults import Forwarding, LoseReplies
from perdure.types import At, Expect, HeadEntry, ListQuery, Page, SessionKey


async def ids(store: Store, tenant: str) -> list[str]:
    """What is there of a tenant, of every kind."""
    scope = store.tenant(tenant)
    return [
        f"{kind}/{entry.key.id}"
        async for kind in scope.kinds()
        async for entry in scope.kind(kind).list()
    ]


async def filled(store: Store) -> None:
    """Two tenants with sessions of three kinds; every third session has a label."""
    for tenant in ("acme", "other"):
        for kind in ("session", "job", "é"):
            for n in range(7):
                session = store.tenant(tenant).kind(kind).session(f"s{n}")
                await session.set(labels=("red",) if n % 3 == 0 else ("blue", "re"))


async def test_erasing_leaves_nothing_of_the_tenant_and_all_of_others(store: Store) -> None:
    await filled(store)
    before = await ids(store, "other")
    advanced: list[int] = []
    assert await store.tenant("acme").erase(advance=advanced.append) == 21
    assert sum(advanced) == 21
    assert await ids(store, "acme") == []
    assert await ids(store, "other") == before
    assert len(before) == 21
    assert await store.tenant("acme").erase() == 0
    assert await store.tenant("nobody").erase() == 0


async def test_erasing_by_label_takes_those_that_carry_it(store: Store) -> None:
    await filled(store)
    assert await store.tenant("acme").kind("job").erase(label="red") == 9
    left = await ids(store, "acme")
    assert len(left) == 12
    assert {id.split("/")[1] for id in left} == {"s1", "s2", "s4", "s5"}
    assert await store.tenant("acme").erase(label="r") == 0
    for nonsense in ("", "x" * 129, "a\0"):
        with pytest.raises(InvalidKey):
            await store.tenant("acme").erase(label=nonsense)


async def test_what_was_erased_is_not_brought_back_by_a_handle_that_saw_it(
    store: Store,
) -> None:
    session = store.tenant("acme").session("s")
    await session.append("a")
    assert await store.tenant("acme").erase() == 1
    with pytest.raises(SessionDeleted):
        await session.append("b")
    assert await ids(store, "acme") == []


class Slow(Forwarding):
    """Lets others act between a list and what is done about it; counts what is under way."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.before_delete: Callable[[SessionKey], Awaitable[object]] | None = None
        self.deletions = self.under_way = self.most = 0
        self.begun = asyncio.Event()
        self.fails_at: int | None = None

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        if self.before_delete is not None:
            await self.before_delete(key)
        self.deletions += 1
        if self.fails_at is not None and self.deletions >= self.fails_at:
            raise Unavailable("on purpose", lasting=True)
        self.under_way += 1
        self.begun.set()
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            return await super().delete(key, id=id, expect=expect, incarnation=incarnation)
        finally:
            self.under_way -= 1


async def test_erasing_goes_on_after_an_interruption_where_it_was(backend: Backend) -> None:
    slow = Slow(backend)
    store = Store(slow, deadline=5)
    await filled(store)
    slow.fails_at = 21
    with pytest.raises(Unavailable):
        await store.tenant("acme").erase()
    remaining = len(await ids(store, "acme"))
    assert 0 < remaining < 21
    slow.fails_at = None
    assert await store.tenant("acme").erase() == remaining
    assert 2 <= slow.most <= 16


async def test_erasing_that_was_cancelled_leaves_nothing_running(backend: Backend) -> None:
    slow = Slow(backend)
    store = Store(slow, deadline=5)
    await filled(store)
    erasing = asyncio.create_task(store.tenant("acme").erase())
    await slow.begun.wait()
    erasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await erasing
    assert slow.under_way == 0
    await store.tenant("acme").erase()
    assert await ids(store, "acme") == []


async def test_lost_replies_do_not_matter(backend: Backend) -> None:
    await filled(Store(backend))
    store = Store(LoseReplies(backend, on=range(0, 1000, 2)), deadline=10)
    assert await store.tenant("acme").erase() == 21
    assert await ids(store, "acme") == []


async def test_sessions_that_are_changed_meanwhile_go_all_the_same(backend: Backend) -> None:
    slow = Slow(backend)
    store = Store(slow, deadline=5)
    await filled(store)
    plain = Store(backend)

    async def write(key: SessionKey) -> None:
        await plain.tenant(key.tenant).kind(key.kind).session(key.id).append("late")

    slow.before_delete = write
    assert await store.tenant("acme").erase() == 21
    assert await ids(store, "acme") == []


async def test_a_session_made_meanwhile_is_found_by_another_look(backend: Backend) -> None:
    slow = Slow(backend)
    store = Store(slow, deadline=5)
    await filled(store)
    made = 0

    async def make(key: SessionKey) -> None:
        """Three that sort before what is being deleted."""
        nonlocal made
        if made < 3:
            made += 1
            await Store(backend).tenant("acme").kind("job").session(f"a{made}").append(1)

    slow.before_delete = make
    assert await store.tenant("acme").erase() == 24
    assert await ids(store, "acme") == []


async def test_erasing_ends_though_others_make_sessions_all_the_time(
    backend: Backend,
) -> None:
    slow = Slow(backend)
    store = Store(slow, deadline=5)
    await filled(store)
    made = 0

    async def make(key: SessionKey) -> None:
        nonlocal made
        made += 1
        await Store(backend).tenant("acme").kind("job").session(f"new{made:06}").append(1)

    slow.before_delete = make
    assert await store.tenant("acme").erase() >= 21
    assert all(id.startswith("job/new") for id in await ids(store, "acme"))


async def test_a_successor_without_the_label_is_left_alone(backend: Backend) -> None:
    slow = Slow(backend)
    store = Store(slow, deadline=5)
    await store.session("s").set(labels=("red",))
    plain = Store(backend).session("s")

    async def replace(key: SessionKey) -> None:
        slow.before_delete = None
        await plain.delete()
        await plain.append("new")

    slow.before_delete = replace
    assert await store.erase(label="red") == 0
    assert await store.session("s").entries() == ["new"]
    await store.session("s").set(labels=("red",))
    slow.before_delete = replace
    assert await store.erase() == 1, "without a label, whatever is there goes"
    assert await store.session("s").head() is None


class Lagging(Forwarding):
    """Lists show what is new only after a while, as the capability says."""

    LAG = 0.15

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        lag = int(self.LAG * 1000)
        self.capabilities = msgspec.structs.replace(backend.capabilities, list_lag=lag)
        self.hidden: set[str] = set()
        self.lists = 0

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        self.lists += 1
        page = await super().list(tenant, kind, query)
        shown = tuple(entry for entry in page.items if entry.key.id not in self.hidden)
        return Page(shown, page.cursor)


async def test_erasing_waits_until_lists_show_what_was_there(backend: Backend) -> None:
    lagging = Lagging(backend)
    store = Store(lagging, deadline=5)
    await filled(store)
    lagging.hidden = {"s3", "s4"}
    asyncio.get_running_loop().call_later(lagging.LAG, lagging.hidden.clear)
    assert await store.tenant("acme").erase() == 21
    assert await ids(store, "acme") == []
    assert lagging.lists < 60, "it does not look all the time"


# Deleting with forks


async def family(store: Store) -> Session:
    """A session with two forks; one of them has a fork, and that one another."""
    root = store.session("root")
    await root.append("a", "b")
    first = await root.fork("first")
    await root.fork("second")
    grandchild = await first.fork("grandchild")
    await grandchild.append("c")
    await grandchild.fork("great-grandchild")
    return root


async def left(store: Store) -> list[str]:
    return [entry.key.id async for entry in store.list()]


@pytest.mark.parametrize("warm", [True, False])
async def test_deleting_with_forks_takes_the_whole_lineage(store: Store, warm: bool) -> None:
    root = await family(store)
    await store.session("bystander").append("x")
    if warm:
        assert await root.delete(forks=True)
    else:
        assert await store.delete("root", forks=True)
    assert await left(store) == ["bystander"]
    assert not await store.delete("root", forks=True)


async def test_deleting_without_forks_leaves_them(store: Store) -> None:
    root = await family(store)
    assert await root.delete()
    assert await left(store) == ["first", "grandchild", "great-grandchild", "second"]


async def test_deleting_part_of_a_lineage_leaves_the_rest(store: Store) -> None:
    await family(store)
    assert await store.delete("first", forks=True)
    assert await left(store) == ["root", "second"]


async def test_another_session_under_a_forks_id_is_left_alone(store: Store) -> None:
    root = await family(store)
    await store.session("second").delete()
    await store.session("second").append("somebody else's")
    await store.session("first").delete()
    stranger = store.session("stranger")
    await stranger.append("x")
    await stranger.fork("first")
    assert await root.delete(forks=True)
    assert await left(store) == [
        "first",
        "grandchild",
        "great-grandchild",
        "second",
        "stranger",
    ], "the grandchild's own parent was deleted alone before"


async def test_forks_of_a_former_life_are_left_alone(store: Store) -> None:
    root = await family(store)
    await root.delete()
    again = store.session("root")
    await again.append("new")
    assert await again.delete(forks=True)
    assert await left(store) == ["first", "grandchild", "great-grandchild", "second"]


async def test_a_handle_of_a_former_life_deletes_nothing(store: Store) -> None:
    former = await family(store)
    await store.session("root").delete()
    await store.session("root").append("new")
    await store.session("root").fork("fork")
    assert not await former.delete(forks=True)
    assert {"root", "fork"} <= set(await left(store))


async def test_a_fork_made_under_the_same_id_again_is_found(store: Store) -> None:
    root = store.session("root")
    await root.append("a")
    for _ in range(3):
        await (await root.fork("fork")).delete()
    await root.fork("fork")
    await root.fork("f" * 512)
    assert await root.delete(forks=True)
    assert await left(store) == []


async def test_deleting_with_forks_goes_on_after_an_interruption(backend: Backend) -> None:
    for fails_at in range(1, 6):
        slow = Slow(backend)
        store = Store(slow, deadline=5)
        await family(store)
        slow.fails_at = fails_at
        with pytest.raises(Unavailable):
            await store.delete("root", forks=True)
        assert await store.session("root").head() is not None, "it goes last"
        slow.fails_at = None
        assert await store.delete("root", forks=True)
        assert await left(store) == []


async def test_a_fork_that_failed_leaves_nothing_that_matters(store: Store) -> None:
    root = store.session("root")
    await root.append("a")
    await store.session("taken").append("mine")
    with pytest.raises(Conflict):
        await root.fork("taken")
    assert await root.delete(forks=True)
    assert await left(store) == ["taken"]


async def test_many_forks_are_deleted_some_at_a_time(backend: Backend) -> None:
    slow = Slow(backend)
    store = Store(slow, deadline=5)
    root = store.session("root")
    await root.append("a")
    for n in range(40):
        await root.fork(f"fork-{n}")
    assert await store.delete("root", forks=True)
    assert await left(store) == []
    assert 2 <= slow.most <= 16


async def test_forks_made_before_the_call_go_whatever_is_forked_meanwhile(
    store: Store,
) -> None:
    root = store.session("root")
    await root.append("a")
    before = [await root.fork(f"fork-{n}") for n in range(10)]
    before += [await fork.fork(f"{fork.key.id}-fork") for fork in before[:5]]

    async def fork_on(n: int) -> None:
        """Until the parent is gone."""
        parent = store.session(before[n].key.id if n else "root")
        for m in range(1000):
            try:
                await parent.fork(f"late-{n}-{m}")
            except Conflict:
                return

    forking = [asyncio.create_task(fork_on(n)) for n in range(4)]
    assert await store.delete("root", forks=True)
    await asyncio.gather(*forking)
    for id in await left(store):
        assert id.startswith("late-")
        assert await store.session(id).entries() == ["a"], "whole, or not there"
