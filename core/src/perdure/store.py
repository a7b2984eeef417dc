"""The store: where sessions are."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self

from perdure.backend import Backend, Description
from perdure.client import Client
from perdure.encryption.keys import KeyRing, key_ring
from perdure.errors import InvalidURL
from perdure.events import OnEvent
from perdure.expiry import idle_milliseconds
from perdure.listing import names
from perdure.operations import OnScope
from perdure.retry import retrying
from perdure.scope import Scope
from perdure.sweeping import sweep_sessions
from perdure.uri import parse

DEFAULT_URL = "sqlite:///.perdure/sessions.db"
"""Durable by default: a file below the working directory."""

URL_VARIABLE = "PERDURE_URL"

EPHEMERAL_HOSTS = {
    "AWS_LAMBDA_FUNCTION_NAME": "AWS Lambda",
    "FUNCTIONS_WORKER_RUNTIME": "Azure Functions",
    "K_SERVICE": "Cloud Run",
    "VERCEL": "Vercel",
}
"""Variables that these runtimes document to set, and whose local files do not last."""


class Store(Scope):
    """Sessions in one backend.

    ``url`` names it, as in ``"sqlite:///sessions.db"`` or ``"memory://"``; a ``Backend`` will
    do too. Without one it is ``$PERDURE_URL``, else a SQLite file ``.perdure/sessions.db``.
    Making a store does no I/O, so that it can be a module's global; it connects at first use,
    or at ``async with store:``, which also closes it.

    ``tenant`` and ``kind`` are those of the store's own scope. ``deadline``: seconds after
    which an operation that the backend does not answer is given up.

    ``idle_expiry``: seconds after which a session expires that nobody has written to; never
    earlier, by the backend's clock, and at most a sixteenth later. What creates a session sets
    its expiry with the same commit, and looks first whether it is there, unless the handle has
    read it; after that one write in each sixteenth of the time makes a second round trip to
    extend it. What is set with ``Session.set`` counts: a session that never expires goes on
    so (as those do that were made without), and an expiry that is farther away than
    ``idle_expiry`` stays; a nearer one is extended by the next write.

    ``keys``: what is stored is encrypted with them (a :class:`perdure.KeyRing`, or its text).
    Without any it is those in ``$PERDURE_ENCRYPTION_KEYS``, if that is set. Raises
    ``InvalidKeys``.

    ``on_event`` is called with a :class:`perdure.Event` whenever an operation is over, in the
    task that has made it and before it goes on: it should be quick. What it raises is logged
    once, under ``perdure``.

    Raises ``InvalidURL`` for a URL that cannot be understood, or where there is none and a
    local file would not last; ``BackendNotFound`` at first use.
    """

    def __init__(
        self,
        url: str | Backend | None = None,
        *,
        tenant: str = "default",
        kind: str = "session",
        deadline: float = 30.0,
        idle_expiry: float | None = None,
        keys: KeyRing | str | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        try:
            ring = key_ring(keys)
        finally:
            del keys  # a text of them would show in tracebacks
        _check(url, deadline)
        if url is None:
            url = _usual_url()
        client = Client(url, deadline=deadline, on_event=on_event, keys=ring)
        if idle_expiry is not None:
            client.idle = idle_milliseconds(idle_expiry)
        super().__init__(client, tenant, kind)

    @OnScope._operation("open")
    async def __aenter__(self) -> Self:
        await self._client.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @OnScope._operation("close")
    async def aclose(self) -> None:
        """Close the backend. Later use of the store and its handles raises ``StoreClosed``."""
        await self._client.aclose()

    @property
    def backend(self) -> Backend:
        """The backend behind this store. Raises ``BackendNotFound``."""
        return self._client.backend

    @OnScope._operation("describe")
    async def describe(self) -> Description:
        """Which backend this is, where it keeps its data, and how durable it is."""
        return await retrying(self.backend.describe, self._client.deadline)

    @OnScope._generator("tenants")
    async def tenants(self) -> AsyncGenerator[str, None]:
        """All tenants that have or lately had a session, in UTF-8 byte order, read page by
        page: ``async for tenant in store.tenants():``"""
        async for tenant in names(
            self._client, lambda cursor: self.backend.tenants(cursor=cursor)
        ):
            yield tenant

    @OnScope._operation("sweep")
    async def sweep(self, advance: Callable[[int], object] = int) -> int:
        """Remove what has no use any more, of all tenants; how many things it removed.

        First what nobody can see, as the backend does it (expired sessions, forgotten uploads
        and the like), then in each session what :meth:`Session.sweep` removes. Costs a round
        trip per session and more for those with attachments, 16 at a time; run it daily, say.
        ``advance`` is called with the number of things removed since it was called last.
        """
        total = 0
        while removed := await retrying(self.backend.sweep, self._client.deadline):
            total += removed
            advance(removed)
        async with aclosing(self.tenants()) as tenants:
            return total + await sweep_sessions(self._client, tenants, advance)


def _check(url: object, deadline: object) -> None:
    """Refuse what cannot name a store, before it is used in some request much later."""
    if not (isinstance(deadline, int | float) and deadline > 0):
        raise ValueError(f"deadline must be a number of seconds above 0, not {deadline!r}")
    if isinstance(url, str):
        parse(url)
    elif url is not None and not isinstance(url, Backend):
        raise InvalidURL(
            f"a store is named by a URL or a Backend, not by a {type(url).__name__}; a file is "
            "sqlite:///relative.db or sqlite:////absolute.db"
        )


def _usual_url() -> str:
    url = os.environ.get(URL_VARIABLE)
    if url:
        try:
            parse(url)
        except InvalidURL as error:
            raise InvalidURL(f"{URL_VARIABLE}: {error}") from None
        return url
    for variable, host in EPHEMERAL_HOSTS.items():
        if os.environ.get(variable):
            raise InvalidURL(
                f"no store URL, and a local file does not last on {host}: pass "
                f"Store(url) or set {URL_VARIABLE}"
            )
    return DEFAULT_URL
