"""Every session of a store, or of the tenant and kind that were asked for."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from perdure import Store
from perdure.types import SessionKey

from perdure_cli.target import Target


async def walk(
    store: Store, target: Target, *, label: str | None = None
) -> AsyncGenerator[SessionKey, None]:
    """The keys of all sessions, by tenant, kind and id; of one tenant or kind if ``target``
    names it, and with ``label`` only of those that carry it."""
    async with aclosing(_tenants(store, target)) as tenants:
        async for tenant in tenants:
            async with aclosing(_kinds(store, tenant, target)) as kinds:
                async for kind in kinds:
                    scope = store.tenant(tenant).kind(kind)
                    async with aclosing(scope.list(label=label)) as entries:
                        async for entry in entries:
                            yield entry.key


async def _tenants(store: Store, target: Target) -> AsyncGenerator[str, None]:
    if target.tenant is not None:
        yield target.tenant
        return
    async for tenant in store.tenants():
        yield tenant


async def _kinds(store: Store, tenant: str, target: Target) -> AsyncGenerator[str, None]:
    if target.kind is not None:
        yield target.kind
        return
    async for kind in store.tenant(tenant).kinds():
        yield kind
