"""Which store, tenant and kind of session a command is about."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from perdure import Store

DEFAULT_TENANT = "default"
DEFAULT_KIND = "session"

DEADLINE = 12.0
"""Seconds. Less than a store's own: somebody is waiting."""


class Target(msgspec.Struct, frozen=True):
    """The store that a command works on; ``None`` stands for what is usual."""

    url: str | None = None
    tenant: str | None = None
    kind: str | None = None

    @property
    def is_named(self) -> bool:
        """Whether the user named a store at all, here or in ``PERDURE_URL``."""
        return self.url is not None or bool(os.environ.get("PERDURE_URL"))

    @property
    def is_volatile(self) -> bool:
        """Whether the store is in this process only: nothing it holds lasts, and it has no
        address. Raises as :meth:`store` does."""
        from perdure.backend import Durability
        from perdure.uri import parse

        url = self.url or os.environ.get("PERDURE_URL")
        if not url or self.store().backend.capabilities.durability is not Durability.NONE:
            return False
        place = parse(url)
        return place.host is None and not place.path

    def store(self) -> "Store":
        """The store, not connected yet. Raises ``BackendNotFound``, ``InvalidURL``."""
        from perdure import Store

        return Store(
            self.url,
            tenant=DEFAULT_TENANT if self.tenant is None else self.tenant,
            kind=DEFAULT_KIND if self.kind is None else self.kind,
            deadline=DEADLINE,
        )

    def run(self, work: "Callable[[Store], Awaitable[int]]") -> int:
        """Do ``work`` on the store, close it, and return what ``work`` does: an exit code."""

        async def main() -> int:
            async with self.store() as store:
                return await work(store)

        return asyncio.run(main())
