"""Copying in tests, and all that a session answers."""

import random
from collections.abc import Sequence
from typing import Any

from perdure import Cells, Document, Log, Order, Session, Store
from perdure.backend import Backend
from perdure.copying import Copied, Fate, copy_sessions
from perdure.testing.shorthand import read_values
from perdure.types import SessionKey

KEY = SessionKey("default", "session", "s")


async def copy(
    source: Store | Backend,
    target: Store | Backend,
    *,
    overwrite: bool = False,
    verify: bool = False,
    deadline: float = 5.0,
    tenants: Sequence[str] | None = None,
) -> dict[str, Copied]:
    """Copy everything; what is reported, by session id. Ids are unlike in all tenants."""
    reports: list[Copied] = []
    await copy_sessions(
        source if isinstance(source, Store) else Store(source),
        target if isinstance(target, Store) else Store(target),
        overwrite=overwrite,
        verify=verify,
        deadline=deadline,
        tenants=tenants,
        report=reports.append,
    )
    found = {copied.key.id: copied for copied in reports}
    assert len(found) == len(reports)
    return found


async def fates(
    source: Backend, target: Backend, *, overwrite: bool = False, verify: bool = False
) -> dict[str, str]:
    """Copy everything; what became of each session."""
    return {
        id: copied.fate.value
        for id, copied in (
            await copy(source, target, overwrite=overwrite, verify=verify)
        ).items()
    }


async def copy_one(
    source: Backend, target: Backend, *, overwrite: bool = False, verify: bool = False
) -> Fate:
    """Copy a store of one session."""
    (copied,) = (await copy(source, target, overwrite=overwrite, verify=verify)).values()
    return copied.fate


async def answers(store: Store, key: SessionKey = KEY) -> dict[str, Any]:
    """What a new handle is told of a session; nothing if there is none."""
    session = store.tenant(key.tenant).kind(key.kind).session(key.id)
    entries, cells, document = await session.read(Log(), Cells(), Document())
    head = entries.head
    if head is None:
        return {}
    return {
        "entries": list(entries),
        "positions": list(entries.positions),
        "last": list(await session.entries(last=3)),
        "cells": cells,
        "document": None if document is None else [document.value],
        "lineage": await session.lineage(),
        "incarnation": head.incarnation,
        "meta": head.meta,
        "labels": sorted(head.labels),
        "created_at": head.created_at,
        "updated_at": head.updated_at,
        "expires_at": head.expires_at,
    }


async def everything(
    store: Store, tenants: Sequence[str] | None = None
) -> dict[SessionKey, dict[str, Any]]:
    """What all sessions answer, and by id and label where they are listed."""
    found: dict[SessionKey, dict[str, Any]] = {}
    for tenant in [name async for name in store.tenants()] if tenants is None else tenants:
        scope = store.tenant(tenant)
        async for kind in scope.kinds():
            async for entry in scope.kind(kind).list():
                said = await answers(store, entry.key)
                said["version"] = entry.head.version
                for label in entry.head.labels:
                    ids = [e.key.id async for e in scope.kind(kind).list(label=label)]
                    assert entry.key.id in ids
                found[entry.key] = said
    return found


async def ids(store: Store, order: Order = Order.ID) -> list[str]:
    """The sessions of the usual tenant and kind."""
    return [entry.key.id async for entry in store.list(order=order)]


async def same_items(one: Backend, other: Backend, key: SessionKey = KEY) -> bool:
    """Whether both have the session, item by item the same."""
    here, there = (await one.read(key)).head, (await other.read(key)).head
    assert here is not None
    assert there is not None
    same_head = (here.version, here.incarnation) == (there.version, there.incarnation)
    return same_head and await read_values(one, key) == await read_values(other, key)


def noise(chance: random.Random, size: int) -> str:
    """Text that compression does not make much shorter than ``size`` / 2."""
    return chance.randbytes(size // 2).hex()


async def change(store: Store, key: SessionKey, chance: random.Random) -> None:
    """Do something to a session, or bring it into being."""
    scope = store.tenant(key.tenant).kind(key.kind)
    session = scope.session(key.id)
    match chance.randrange(11):
        case 0 | 1 | 2:
            size = chance.choice([3, 300, 70_000])
            await session.append(
                *({"n": n, "text": noise(chance, size)} for n in range(chance.randrange(1, 4)))
            )
        case 3:
            await session.cells.update(
                {f"c{chance.randrange(30)}": chance.random() for _ in range(5)}
            )
        case 4:
            await session.cells.delete(f"c{chance.randrange(30)}")
        case 5:
            await scope.save(key.id, [noise(chance, 100)] * chance.choice([0, 1, 2000]))
        case 6:
            await session.set(
                meta=chance.choice([b"", b"m" * 4096]),
                labels=tuple(chance.sample(["a", "b", "é", "d"], chance.randrange(4))),
            )
        case 7:
            await session.set(expires_in=chance.choice([3600, 86_400]))
        case 8:
            await session.pop()
        case 9:
            entries = await session.entries()
            if len(entries) > 2:
                await session.truncate(before=entries.positions[1])
        case _:
            if await session.head() is not None:
                fork = f"fork-{chance.randbytes(4).hex()}"
                await session.fork(fork)


async def large(backend: Backend) -> Session:
    """A session of many pages, if they are narrow."""
    chance = random.Random(5)
    session = Store(backend).session("s")
    for n in range(30):
        await session.append(n, noise(chance, 600))
        await session.cells.put(f"c{n:02}", noise(chance, 100))
    return session
