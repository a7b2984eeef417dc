"""The store: where sessions are, and the whole-value contract of save, load and delete."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from perdure.backend import Backend, Description
from perdure.client import Client
from perdure.document import Document, save_document
from perdure.errors import InvalidURL, Unsupported
from perdure.handle import Handle
from perdure.retry import retrying
from perdure.schema import ANY, Schema
from perdure.session import Session
from perdure.types import (
    MAX_LABEL_BYTES,
    HeadEntry,
    ListQuery,
    Order,
    Page,
    SessionKey,
    check_identifier,
)
from perdure.uri import parse

T = TypeVar("T")

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


class Scope:
    """The sessions of one tenant and kind. All scopes of a store share its backend."""

    def __init__(self, client: Client, tenant: str, kind: str) -> None:
        self._client = client
        self._tenant = check_identifier("tenant", tenant)
        self._kind = check_identifier("kind", kind)

    def tenant(self, tenant: str) -> "Scope":
        """The same kind of sessions of another tenant. Raises ``InvalidKey``."""
        return Scope(self._client, tenant, self._kind)

    def kind(self, kind: str) -> "Scope":
        """The same tenant's sessions of another kind. Raises ``InvalidKey``."""
        return Scope(self._client, self._tenant, kind)

    def key(self, id: str) -> SessionKey:
        """The full key of a session in this scope. Raises ``InvalidKey``."""
        return SessionKey(self._tenant, self._kind, check_identifier("session id", id))

    async def kinds(self) -> list[str]:
        """The kinds of sessions that this tenant has or lately had, in UTF-8 byte order."""
        backend = self._client.backend
        return await _all_pages(
            lambda cursor: backend.kinds(self._tenant, cursor=cursor), self._client.deadline
        )

    @overload
    def session(self, id: str) -> Session[Any]: ...
    @overload
    def session(
        self, id: str, *, type: type[T], migrate: Callable[[Any], Any] | None = None
    ) -> Session[T]: ...
    @overload
    def session(  # a union is no type[T]: annotate what it is assigned to
        self, id: str, *, type: Any, migrate: Callable[[Any], Any] | None = None
    ) -> Session[Any]: ...
    def session(
        self, id: str, *, type: Any = Any, migrate: Callable[[Any], Any] | None = None
    ) -> Session[Any]:
        """A handle on a session, which need not exist. No I/O. Raises ``InvalidKey``.

        With a ``type`` its entries are decoded to that, as msgspec does: a Struct, a
        dataclass, a TypedDict, ... What does not fit is refused with ``InvalidValue`` before
        it is written, and when it is read. ``migrate`` brings what was stored under an earlier
        type into its form: it is given each entry as plain values, new ones too, and what it
        returns is decoded to the type.
        """
        schema = ANY if type is Any and migrate is None else Schema[Any](type, migrate)
        return Session(self._client, self.key(id), schema)

    async def save(self, id: str, data: Any, *, expect: int | None = None) -> int:
        """Store ``data`` as the session's document, whole, and return its version.

        Replaces what was saved before; of two that save at once the last one wins, unless
        ``expect`` names the version that must be there (0: none), else ``Conflict``. The
        session's log and cells stay as they are. One round trip for a document within the
        backend's limit for a commit; two if it is much shorter than the one before.
        Raises ``InvalidValue``, ``TooLarge``.
        """
        return await save_document(Handle(self._client, self.key(id)), data, expect)

    async def load(self, id: str) -> Any | None:
        """The document last saved; ``None`` if there is none."""
        _, (document,) = await Handle(self._client, self.key(id)).read([Document()])
        return None if document is None else document.value

    async def delete(self, id: str) -> bool:
        """Delete the session with all it holds; whether there was one."""
        return await self.session(id).delete()

    async def list(
        self, *, prefix: str = "", label: str | None = None, order: Order = Order.ID
    ) -> AsyncGenerator[HeadEntry, None]:
        """The scope's sessions, read page by page: ``async for entry in store.list():``

        By id, or with ``Order.RECENCY`` last committed first; ``prefix`` goes with ids.
        """
        if prefix:
            check_identifier("prefix", prefix)
            if order is not Order.ID:
                raise Unsupported("a prefix goes with Order.ID only")
        if label is not None:
            check_identifier("label", label, MAX_LABEL_BYTES)
        query = ListQuery(order=order, prefix=prefix, label=label)
        while True:
            page = await self._page(query)
            for entry in page.items:
                yield entry
            if page.cursor is None:
                return
            query = ListQuery(order=order, prefix=prefix, label=label, cursor=page.cursor)

    async def _page(self, query: ListQuery):
        backend = self._client.backend
        return await retrying(
            lambda: backend.list(self._tenant, self._kind, query), self._client.deadline
        )


class Store(Scope):
    """Sessions in one backend.

    ``url`` names it, as in ``"sqlite:///sessions.db"`` or ``"memory://"``; a ``Backend`` will
    do too. Without one it is ``$PERDURE_URL``, else a SQLite file ``.perdure/sessions.db``.
    Making a store does no I/O, so that it can be a module's global; it connects at first use,
    or at ``async with store:``, which also closes it.

    ``tenant`` and ``kind`` are those of the store's own scope. ``deadline``: seconds after
    which an operation that the backend does not answer is given up.

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
    ) -> None:
        _check(url, deadline)
        if url is None:
            url = _usual_url()
        super().__init__(Client(url, deadline=deadline), tenant, kind)

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

    async def aclose(self) -> None:
        """Close the backend. Later use of the store and its handles raises ``StoreClosed``."""
        await self._client.aclose()

    @property
    def backend(self) -> Backend:
        """The backend behind this store. Raises ``BackendNotFound``."""
        return self._client.backend

    async def describe(self) -> Description:
        """Which backend this is, where it keeps its data, and how durable it is."""
        return await retrying(self.backend.describe, self._client.deadline)

    async def tenants(self) -> list[str]:
        """All tenants that have or lately had a session, in UTF-8 byte order."""
        backend = self.backend
        return await _all_pages(
            lambda cursor: backend.tenants(cursor=cursor), self._client.deadline
        )

    async def sweep(self) -> int:
        """Remove what nobody can see any more (expired sessions and the like); how many."""
        total = 0
        while True:
            removed = await retrying(self.backend.sweep, self._client.deadline)
            total += removed
            if not removed:
                return total


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


async def _all_pages(
    page_from: Callable[[str | None], Awaitable[Page[str]]], deadline: float
) -> list[str]:
    names: list[str] = []
    cursor: str | None = None
    while True:
        page = await retrying(lambda cursor=cursor: page_from(cursor), deadline)
        names += page.items
        if page.cursor is None:
            return names
        cursor = page.cursor


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
