"""Deleting: sessions with what was forked from them, and all of a tenant."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from perdure.client import Client, new_id
from perdure.fork import LineageRequest, children
from perdure.listing import Listing, names
from perdure.retry import retrying, send_delete
from perdure.types import HeadEntry, Order, SessionKey
from perdure.workers import for_each

AT_ONCE = 16
"""Sessions deleted at the same time."""

LOOKS = 10
"""How often the whole list is gone through, at most, because others make new sessions."""


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
    generations = [[(key, head.incarnation)]]
    while generations[-1]:
        forks: list[tuple[SessionKey, bytes]] = []

        async def look(parent: tuple[SessionKey, bytes], forks=forks) -> None:
            forks.extend(await _forks(client, *parent))

        await for_each(generations[-1], look, at_once=AT_ONCE)
        generations.append(forks)
    deleted = False

    async def delete_one(session: tuple[SessionKey, bytes]) -> None:
        nonlocal deleted
        deleted = await delete(client, *session)

    for generation in reversed(generations):
        await for_each(generation, delete_one, at_once=AT_ONCE)
    return deleted


async def _forks(
    client: Client, parent: SessionKey, incarnation: bytes
) -> list[tuple[SessionKey, bytes]]:
    """The forks of a session that are there, each with its incarnation."""
    forks: list[tuple[SessionKey, bytes]] = []
    request = LineageRequest()
    for id in await children(client, parent, incarnation):
        key = SessionKey(parent.tenant, parent.kind, id)
        view, (items,) = await client.read(key, (request,))
        lineage = request.answer(items, view)
        if (
            view.head is not None
            and lineage is not None
            and (lineage.parent == parent and lineage.incarnation == incarnation)
        ):
            forks.append((key, view.head.incarnation))
    return forks


async def erase(
    client: Client, tenant: str, label: str | None, advance: Callable[[int], object]
) -> int:
    """See :meth:`perdure.Scope.erase`."""
    Listing(tenant, "-", order=Order.ID, prefix="", label=label)  # refuses a bad label now
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
    """A tenant's sessions of every kind, by kind and id."""
    kinds = names(client, lambda cursor: client.backend.kinds(tenant, cursor=cursor))
    async with aclosing(kinds):
        async for kind in kinds:
            listing = Listing(tenant, kind, order=Order.ID, prefix="", label=label)
            async with aclosing(listing.entries(client)) as entries:
                async for entry in entries:
                    yield entry
