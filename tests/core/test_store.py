"""The store: where sessions are, and the whole-value contract."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    BackendNotFound,
    Conflict,
    InvalidKey,
    InvalidURL,
    InvalidValue,
    Order,
    Store,
    StoreClosed,
    TooLarge,
)
from perdure.testing import TestClock

from perdure_memory.backend import MemoryBackend


async def test_save_load_delete(store: Store) -> None:
    assert await store.load("s") is None
    assert await store.delete("s") is False
    data = {"messages": [{"role": "user", "content": "hi"}], "files": {"a": b"\0\xff"}}
    await store.save("s", data)
    assert await store.load("s") == data
    await store.save("s", None)
    assert await store.load("s") is None
    assert await store.delete("s") is True
    assert await store.session("s").head() is None


@pytest.mark.parametrize("size", [0, 1, 256 * 1024 - 6, 256 * 1024, 3_000_000])
async def test_documents_of_all_sizes_replace_one_another_whole(
    store: Store, size: int
) -> None:
    big = os.urandom(size // 2).hex() + "x" * (size % 2)
    await store.save("s", {"a": [1] * 1000})
    await store.save("s", big)
    assert await store.load("s") == big
    await store.save("s", [1])
    assert await store.load("s") == [1]


async def test_the_last_save_wins_unless_a_version_is_expected(store: Store) -> None:
    first = await store.save("s", 1, expect=0)
    with pytest.raises(Conflict):
        await store.save("s", 2, expect=0)
    second = await store.save("s", 2, expect=first)
    await store.session("s").append("the log is another matter")
    with pytest.raises(Conflict):
        await store.save("s", 3, expect=first)
    assert await store.load("s") == 2
    await store.save("s", 3, expect=second)
    await store.save("s", 4)
    assert await store.load("s") == 4


async def test_a_value_that_cannot_be_stored_leaves_what_was_there(store: Store) -> None:
    await store.save("s", "good")
    with pytest.raises(InvalidValue) as caught:
        await store.save("s", {"messages": [{"content": {1}}]})
    assert caught.value.path == "data.messages[0].content"
    with pytest.raises(TooLarge):
        await store.save("s", "x" * (65 * 1024 * 1024))
    assert await store.load("s") == "good"


async def test_tenants_and_kinds_are_apart(store: Store) -> None:
    scopes = [store, store.tenant("acme"), store.kind("job"), store.tenant("acme").kind("job")]
    for n, scope in enumerate(scopes):
        await scope.save("s", n)
    assert [await scope.load("s") for scope in scopes] == [0, 1, 2, 3]
    assert await store.tenant("acme").delete("s")
    assert [await scope.load("s") for scope in scopes] == [0, None, 2, 3]
    assert [name async for name in store.tenants()] == ["acme", "default"]
    assert [name async for name in store.tenant("acme").kinds()] == ["job", "session"]
    assert [entry.key.kind async for entry in store.kind("job").list()] == ["job"]


async def test_lists_are_paged_through(store: Store, clock: TestClock) -> None:
    for n in range(230):
        clock.advance(100_000)
        await store.session(f"chat-{n:03}").set(labels=("even",) if n % 2 == 0 else ())
    await store.save("other", 1)
    assert [e.key.id async for e in store.list(prefix="chat-")] == [
        f"chat-{n:03}" for n in range(230)
    ]
    assert len([e async for e in store.list(label="even")]) == 115
    recent = [e.key.id async for e in store.list(order=Order.RECENCY)]
    assert (len(recent), set(recent[:2])) == (231, {"other", "chat-229"})


async def test_expired_sessions_are_gone_and_swept(store: Store, clock: TestClock) -> None:
    session = store.session("s")
    await session.append("a")
    await session.set(expires_in=5)
    clock.advance(4_999)
    assert await store.session("s").entries() == ["a"]
    clock.advance(1)
    assert await store.session("s").entries() == []
    assert [e async for e in store.list()] == []
    await store.sweep()
    assert await store.sweep() == 0
    await store.session("s").append("b")
    assert await store.session("s").entries() == ["b"]


async def test_describe_says_where_and_how_durable(store: Store) -> None:
    description = await store.describe()
    assert description.backend in ("memory", "sqlite")
    assert description.location
    assert description.durability


def test_making_a_store_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_URL", raising=False)
    Store().session("s")
    Store("sqlite:///below/sessions.db")
    Store("nosuch://host")
    assert list(tmp_path.iterdir()) == []


async def test_without_a_url_it_is_a_file_that_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_URL", raising=False)
    async with Store() as store:
        await store.save("s", 1)
    assert (tmp_path / ".perdure" / "sessions.db").exists()
    async with Store() as store:
        assert await store.load("s") == 1


async def test_the_environment_chooses_and_the_argument_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_URL", "memory://")
    async with Store() as store:
        assert (await store.describe()).backend == "memory"
    async with Store(f"sqlite:///{tmp_path}/s.db") as store:
        assert (await store.describe()).backend == "sqlite"


def test_where_files_do_not_last_a_url_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERDURE_URL", raising=False)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    with pytest.raises(InvalidURL, match="AWS Lambda"):
        Store()
    Store("memory://")


@pytest.mark.parametrize("url", ["", "nothing", "://", "sqlite", "redis//host", "a b://c"])
def test_what_is_not_a_url_is_refused_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERDURE_URL", raising=False)
    if not url:
        pytest.skip("no URL is the default")
    with pytest.raises(InvalidURL):
        Store(url)


async def test_an_unknown_scheme_says_what_there_is() -> None:
    with pytest.raises(BackendNotFound, match=r"no backend for nosql://.*sqlite://"):
        await Store("nosql://localhost").load("s")


@pytest.mark.parametrize("bad", ["", "a\0b", "\ud800", "x" * 513, "é" * 257, 7, None], ids=repr)
async def test_an_id_that_cannot_name_anything_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(InvalidKey):
        store.session(bad)
    with pytest.raises(InvalidKey):
        store.tenant(bad)
    with pytest.raises(InvalidKey):
        store.kind(bad)
    with pytest.raises(InvalidKey):
        await store.save(bad, 1)


async def test_a_closed_store_says_so_and_closing_twice_is_fine(store: Store) -> None:
    session = store.session("s")
    await session.append("a")
    await store.aclose()
    await store.aclose()
    for use in (session.append("b"), session.entries(), store.load("s"), store.delete("s")):
        with pytest.raises(StoreClosed):
            await use


async def test_operations_under_way_when_a_store_closes_end(store: Store) -> None:
    sessions = [store.session(f"s{n}") for n in range(20)]
    writing = [asyncio.ensure_future(s.append("a")) for s in sessions]
    await asyncio.sleep(0)
    await store.aclose()
    for result in await asyncio.gather(*writing, return_exceptions=True):
        assert isinstance(result, str | StoreClosed)


async def test_a_store_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/s.db")

    def in_a_loop_of_its_own(n: int) -> list[int]:
        async def turn() -> list[int]:
            session = store.session("s")
            await session.append(n)
            return await session.entries()

        return asyncio.run(turn())

    for n in range(3):
        assert await asyncio.to_thread(in_a_loop_of_its_own, n) == list(range(n + 1))
    await store.aclose()


async def test_the_same_is_stored_whatever_the_backend(store: Store) -> None:
    """What one backend returns, every other does: the codec is above them."""
    value: dict[str, Any] = {
        "i": 2**63,
        "big": 10**40,
        "f": -0.0,
        "n": None,
        "e": [],
        "d": {},
        "z": {"b": 1, "a": 2},
    }
    await store.session("s").append(value)
    reference = Store(MemoryBackend())
    await reference.session("s").append(value)
    mine, other = await store.session("s").entries(), await reference.session("s").entries()
    assert repr(mine) == repr(other) == repr([value])
