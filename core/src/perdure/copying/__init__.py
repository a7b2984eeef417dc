"""Copying sessions from one store to another, faithfully and as often as one likes.

A copy has the key, incarnation and version of its source, its times and settings, and every
item byte for byte; only its items' stamps are all of that version. It appears on the target
whole, by one commit, whose id tells what it is a copy of (:mod:`perdure.copying.marks`). So a
later run knows what is there already, and an untouched copy from a session that somebody has
written to, and nothing else need be kept to go on after an interruption.

Rows that are encrypted are copied as they are, so no keys are needed, and none are used: the
copy opens with the keys of its source.

The source is only read. What is written to it meanwhile does no harm: each session is copied
as of one version.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from perdure.copying.copier import Copied, Copier, Fate
from perdure.encryption import as_stored
from perdure.store import Store
from perdure.types import SessionKey
from perdure.workers import for_each

__all__ = ["Copied", "Fate", "copy_sessions"]

IN_FLIGHT = 8
"""Sessions copied at the same time."""


async def copy_sessions(
    source: Store,
    target: Store,
    *,
    tenants: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    prefix: str = "",
    overwrite: bool = False,
    verify: bool = False,
    deadline: float = 30.0,
    report: Callable[[Copied], object],
    advance: Callable[[int], object] = int,
) -> None:
    """Copy sessions, a handful at a time, and read each copy back to compare digests.

    ``tenants``, ``kinds``: ``None`` for all there are. ``prefix``: only ids that start so.
    ``overwrite`` replaces what would be refused. ``verify`` also compares what is there
    already. ``report`` is called once per session as it is done, ``advance`` with the bytes
    read as they come. ``deadline``: seconds after which an operation that is not answered is
    given up.

    A session deleted at the source stays at the target; one deleted at the target is copied
    again. Stopped at any moment, by an error, by cancellation or with the process, a run is
    completed by the next.

    Raises ``ValueError`` if both stores are one, ``InvalidKey``, ``Unavailable`` and what else
    keeps a store from being used; what hinders one session only is reported.
    """
    here, there = as_stored(source.backend), as_stored(target.backend)
    if here is there:
        raise ValueError("a store cannot be copied to itself")
    copier = Copier(
        here,
        there,
        overwrite=overwrite,
        verify=verify,
        deadline=deadline,
        advance=advance,
    )

    async def copy(key: SessionKey) -> None:
        report(await copier.copy(key))

    async with aclosing(_keys(source, tenants, kinds, prefix)) as keys:
        await for_each(keys, copy, at_once=IN_FLIGHT)


async def _keys(
    source: Store,
    tenants: Sequence[str] | None,
    kinds: Sequence[str] | None,
    prefix: str,
) -> AsyncGenerator[SessionKey]:
    async with aclosing(source.tenants() if tenants is None else _once(tenants)) as these:
        async for tenant in these:
            scope = source.tenant(tenant)
            async with aclosing(scope.kinds() if kinds is None else _once(kinds)) as those:
                async for kind in those:
                    async with aclosing(scope.kind(kind).list(prefix=prefix)) as found:
                        async for entry in found:
                            yield entry.key


async def _once(names: Sequence[str]) -> AsyncGenerator[str, None]:
    for name in dict.fromkeys(names):
        yield name
