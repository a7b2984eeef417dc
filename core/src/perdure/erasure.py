"""Deleting: sessions with what was forked from them, and all of a tenant."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple

from perdure.client import Client, new_id
from perdure.fork import LineageRequest, children
from perdure.listing import Listing, checked_label, names
from perdure.retry import retrying, send_delete
from perdure.types import HeadEntry, Order, SessionKey
from perdure.workers import for_each

AT_ONCE = 16
"""Sessions deleted at the same time."""

LOOKS = 10
"""How often the whole list is gone through, at most, because others make new sessions."""


class Session(NamedTuple):
    """One life of a session."""

    key: SessionKey
    incarnation: bytes


async def delete(client: Client, key: SessionKey, incarnation: bytes | None) -> bool:
    """Delete one session, or none but this incarnation of it; whether it was there."""
    backend, id = client.backend, new_id()
    return await send_delete(
        lambda: backend.delete(key, id=id, incarnation=incarnation), client.deadline
    )


async def delete_with_forks(client: Client, key: SessionKey, incarnation: bytes | None) -> bool:
    """Delete a session, what was forked from it, and so on; whether it was there itself.

    A session knows its forks and a fork its parent, incarnation and all, and both must agree:
    another session under a fork's name is left alone. Forks are deleted before what they were
    made from, so that whatever is left after an interruption is still found by the next call.
    """
    view, _ = await client.read(key, ())
    head = view.head
    if head is None or incarnation not in (None, head.incarnation):
        return False
    root = Session(key, head.incarnation)
    generations: list[list[Session]] = []
    youngest = [root]
    while youngest:
        generations.append(youngest)
        youngest = await _forks_of_all(client, youngest)

    async def delete_one(session: Session) -> None:
        await delete(client, session.key, session.incarnation)

    for generation in reversed(generations[1:]):
        await for_each(generation, delete_one, at_once=AT_ONCE)
    return await delete(client, root.key, root.incarnation)


async def _forks_of_all(client: Client, parents: list[Session]) -> list[Session]:
    forks: list[Session] = []

    async def look(parent: Session) -> None:
        forks.extend(await _forks(client, parent))

    await for_each(parents, look, at_once=AT_ONCE)
    return forks


async def _forks(client: Client, parent: Session) -> list[Session]:
    """The forks of a session that are there."""
    forks: list[Session] = []
    request = LineageRequest()
    for id in await children(client, parent.key, parent.incarnation):
        key = SessionKey(parent.key.tenant, parent.key.kind, id)
        view, (items,) = await client.read(key, (request,))
        lineage = request.answer(items, view)
        if (
            view.head is not None
            and lineage is not None
            and Session(lineage.parent, lineage.incarnation) == parent
        ):
            forks.append(Session(key, view.head.incarnation))
    return forks


async def erase(
    client: Client, tenant: str, label: str | None, advance: Callable[[int], object]
) -> int:
    """See :meth:`perdure.Scope.erase`."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await retrying(client.backend.open, client.deadline)  # its capabilities are known then
    # What was acknowledged before the call is in every list that is begun from then on.
    complete = begun + client.backend.capabilities.list_lag / 1000
    total = looks = 0
    while True:
        looks += loop.time() >= complete
        deleted = await _erase_listed(client, tenant, label, advance)
        total += deleted
        if looks and (not deleted or looks == LOOKS):
            return total
        if not deleted:
            await asyncio.sleep(max(0, complete - loop.time()))


async def _erase_listed(
    client: Client, tenant: str, label: str | None, advance: Callable[[int], object]
) -> int:
    """Delete what a list shows now; how many."""
    deleted = 0

    async def erase_one(entry: HeadEntry) -> None:
        nonlocal deleted
        # A successor need not carry the label. Without one, whatever is there has to go.
        incarnation = None if label is None else entry.head.incarnation
        if await delete(client, entry.key, incarnation):
            deleted += 1
            advance(1)

    async with aclosing(sessions(client, tenant, label)) as entries:
        await for_each(entries, erase_one, at_once=AT_ONCE)
    return deleted


async def sessions(
    client: Client, tenant: str, label: str | None
) -> AsyncGenerator[HeadEntry, None]:
    """A tenant's sessions of every kind, by kind and id. Raises ``InvalidKey``."""
    label = checked_label(label)
    kinds = names(client, lambda cursor: client.backend.kinds(tenant, cursor=cursor))
    async with aclosing(kinds):
        async for kind in kinds:
            listing = Listing(tenant, kind, order=Order.ID, prefix="", label=label)
            async with aclosing(listing.entries(client)) as entries:
                async for entry in entries:
                    yield entry
