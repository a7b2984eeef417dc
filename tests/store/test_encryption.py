"""Encrypted stores on every backend: what leans on stages, conditions, ranges, returning."""

import asyncio
import os

import pytest

from perdure import Derived, Document, KeyRing, Log, Store, Undecryptable
from perdure.encryption import as_stored
from perdure.encryption.rotation import rotate
from perdure.types import Scan, SessionKey

OLD, NEW = KeyRing.generate("old"), KeyRing.generate("new")


def sealed(store: Store, keys: str) -> Store:
    tenant = store.key("s").tenant
    return Store(store.backend, tenant=tenant, keys=keys, deadline=20)


async def stored(store: Store, key: SessionKey) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    start, more = b"", True
    while more:
        (rows,) = (await as_stored(store.backend).read(key, Scan(start))).rows
        found |= {item.key: item.value for item in rows.items}
        more = rows.more
        start = max(found, default=b"") + b"\0"
    return found


async def test_all_that_a_session_holds_is_sealed_read_and_sealed_anew(
    any_store: Store,
) -> None:
    session = sealed(any_store, OLD).session("s")
    noise = [os.urandom(40_000).hex() for _ in range(30)]
    position = await session.append("first")
    await session.append(*noise)  # more than some backends take at once
    await session.stream("sub").append(*range(10))
    await session.append("keyed", key="webhook")
    assert (
        await session.append("keyed", key="webhook") == (await session.entries()).positions[-1]
    )
    await session.derive("summary", "so far", at=position)
    await session.cells.update({"a": 1, "b": [2]})
    await session.save({"pages": noise})
    attachment = await session.attachments.put(bytes(range(256)) * 3000)

    async def check(keys: str) -> None:
        store = sealed(any_store, keys)
        session = store.session("s")
        entries, document, resumed = await session.read(Log(), Document(), Derived("summary"))
        assert entries == ["first", *noise, "keyed"]
        assert document is not None
        assert document.value == {"pages": noise}
        assert (resumed.value, len(resumed.entries)) == ("so far", 31)
        assert await session.stream("sub").entries() == list(range(10))
        assert await session.cells.scan() == {"a": 1, "b": [2]}
        assert await session.attachments.read(attachment.digest) == bytes(range(256)) * 3000

    await check(OLD)
    for value in (await stored(any_store, session.key)).values():
        assert value[1] & 0x20
        assert noise[0][:20].encode() not in value
    with pytest.raises(Undecryptable, match="'old'"):
        await sealed(any_store, NEW).session("s").entries()
    both = sealed(any_store, f"{NEW},{OLD}")
    outcomes: list[bool] = []
    tenant = any_store.key("s").tenant
    await rotate(both, tenants=[tenant], report=lambda one: outcomes.append(one.done))
    assert outcomes == [True]
    await check(NEW)


async def test_writers_who_do_not_know_of_one_another_all_get_in(any_store: Store) -> None:
    async def write(number: int) -> None:
        session = sealed(any_store, OLD).session("s")
        for n in range(5):
            await session.append((number, n))
            await session.cells.put(f"{number}", n)

    await asyncio.gather(*(write(number) for number in range(4)))
    session = sealed(any_store, OLD).session("s")
    entries = await session.entries()
    assert sorted(entries) == [[w, n] for w in range(4) for n in range(5)]
    assert await session.cells.scan() == {f"{number}": 4 for number in range(4)}
    await session.pop()
    await session.truncate(before=entries.positions[3])
    await session.append("after")
    assert await sealed(any_store, OLD).session("s").entries() == [*entries[3:-1], "after"]


async def test_a_row_slipped_in_by_somebody_without_keys_stops_the_reader(
    any_store: Store,
) -> None:
    session = sealed(any_store, OLD).session("s")
    for n in range(10):
        await session.append(n)
    await any_store.session("s").append("forged")
    with pytest.raises(Undecryptable, match="in plain"):
        await sealed(any_store, OLD).session("s").entries()
    with pytest.raises(Undecryptable):
        await session.entries()
