"""A scope: the sessions of one tenant and kind."""

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar, overload

from perdure import exporting
from perdure.client import Client
from perdure.erasure import erase
from perdure.expiry import idle_milliseconds
from perdure.exporting import Record
from perdure.listing import Listing, check_limit, names
from perdure.operations import OnScope
from perdure.reading import read_sessions
from perdure.request import Request
from perdure.schema import ANY, Schema
from perdure.session import Session
from perdure.types import (
    HeadEntry,
    Order,
    Page,
    SessionKey,
    check_identifier,
)

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class Scope(OnScope):
    """The sessions of one tenant and kind. All scopes of a store share its backend."""

    def __init__(self, client: Client, tenant: str, kind: str) -> None:
        self._client = client
        self._tenant = check_identifier("tenant", tenant)
        self._kind = check_identifier("kind", kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(tenant={self._tenant!r}, kind={self._kind!r})"

    def tenant(self, tenant: str) -> "Scope":
        """The same kind of sessions of another tenant. Raises ``InvalidKey``."""
        return Scope(self._client, tenant, self._kind)

    def kind(self, kind: str) -> "Scope":
        """The same tenant's sessions of another kind. Raises ``InvalidKey``."""
        return Scope(self._client, self._tenant, kind)

    def key(self, id: str) -> SessionKey:
        """The full key of a session in this scope. Raises ``InvalidKey``."""
        return SessionKey(self._tenant, self._kind, check_identifier("session id", id))

    # Sessions

    @overload
    def session(self, id: str, *, idle_expiry: float | None = None) -> Session[Any]: ...
    @overload
    def session(
        self,
        id: str,
        *,
        type: type[T],
        migrate: Callable[[Any], Any] | None = None,
        idle_expiry: float | None = None,
    ) -> Session[T]: ...
    @overload
    def session(  # a union is no type[T]: annotate what it is assigned to
        self,
        id: str,
        *,
        type: Any,
        migrate: Callable[[Any], Any] | None = None,
        idle_expiry: float | None = None,
    ) -> Session[Any]: ...
    def session(
        self,
        id: str,
        *,
        type: Any = Any,
        migrate: Callable[[Any], Any] | None = None,
        idle_expiry: float | None = None,
    ) -> Session[Any]:
        """A handle on a session, which need not exist. No I/O. Raises ``InvalidKey``.

        With a ``type`` its entries are decoded to that, as msgspec does: a Struct, a
        dataclass, a TypedDict, ... What does not fit is refused with ``InvalidValue`` before
        it is written, and when it is read. ``migrate`` brings what was stored under an earlier
        type into its form: it is given each entry as plain values, new ones too, and what it
        returns is decoded to the type.

        ``idle_expiry``: seconds, as of :class:`perdure.Store`, for what is written through
        this handle; ``None`` is the store's, 0 is none.
        """
        schema = ANY if type is Any and migrate is None else Schema[Any](type, migrate)
        idle = None if idle_expiry is None else idle_milliseconds(idle_expiry)
        return Session(self._client, self.key(id), schema, idle)

    async def save(self, id: str, data: Any, *, expect: int | None = None) -> int:
        """Store ``data`` as the session's document, whole, and return its version: see
        :meth:`perdure.Session.save`. Creates the session if it is absent.

        Raises ``Conflict`` if ``expect`` names another version than is there (0: none),
        ``InvalidValue``, ``TooLarge``.
        """
        return await self.session(id).save(data, expect=expect)

    @overload
    async def load(self, id: str) -> Any | None: ...
    @overload
    async def load(self, id: str, *, type: type[A]) -> A | None: ...
    @overload
    async def load(self, id: str, *, type: Any) -> Any | None: ...
    async def load(self, id: str, *, type: Any = Any) -> Any | None:
        """The document last saved, as a ``type`` if given; ``None`` if there is none. One round
        trip. Raises ``Corrupt``, ``InvalidValue``."""
        return await self.session(id).load(type=type)

    async def delete(self, id: str, *, forks: bool = False) -> bool:
        """Delete the session with all it holds; whether there was one. With ``forks``, those
        that were made of it too: see :meth:`perdure.Session.delete`."""
        return await self.session(id).delete(forks=forks)

    # Many sessions

    @OnScope._generator("list")
    async def list(
        self, *, prefix: str = "", label: str | None = None, order: Order = Order.ID
    ) -> AsyncGenerator[HeadEntry, None]:
        """The scope's sessions, read page by page: ``async for entry in store.list():``

        ``entry.key.id`` names a session; ``entry.head`` is its head, with ``meta`` and
        ``labels``. By id, or with ``Order.RECENCY`` last committed first; ``prefix`` goes with
        ids. Raises ``InvalidKey``, ``Unsupported``.
        """
        listing = self._listing(prefix, label, order)
        async for entry in listing.entries(self._client):
            yield entry

    @OnScope._operation("page")
    async def page(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        prefix: str = "",
        label: str | None = None,
        order: Order = Order.ID,
    ) -> Page[HeadEntry]:
        """One page of what :meth:`list` yields, for a web page or another API. One round trip.

        ``limit``: at most so many sessions, from 1 to 1000; a page that has fewer may still be
        followed by another. ``cursor``: that of the page before, made of letters, digits, ``-``
        and ``_``, so that it can go to a client and come back; ``None`` begins, and is that of
        the last page. It is not secret and not signed: it tells where the page before ended,
        and it selects nothing but sessions of this scope. One that is of no such list (another
        order, label, prefix, tenant or kind) raises ``InvalidKey``, as a bad limit does.
        """
        listing = self._listing(prefix, label, order)
        behind = listing.cursor(cursor)
        page = await listing.page(self._client, check_limit(limit), behind)
        return Page(page.items, listing.token(page.cursor))

    @overload
    async def read_many(self, ids: Iterable[str], a: Request[A], /) -> dict[str, tuple[A]]: ...
    @overload
    async def read_many(
        self, ids: Iterable[str], a: Request[A], b: Request[B], /
    ) -> dict[str, tuple[A, B]]: ...
    @overload
    async def read_many(
        self, ids: Iterable[str], a: Request[A], b: Request[B], c: Request[C], /
    ) -> dict[str, tuple[A, B, C]]: ...
    @overload
    async def read_many(
        self, ids: Iterable[str], /, *requests: Request[Any]
    ) -> dict[str, tuple[Any, ...]]: ...
    @OnScope._operation("read_many")
    async def read_many(
        self, ids: Iterable[str], /, *requests: Request[Any]
    ) -> dict[str, tuple[Any, ...]]:
        """The same things of several sessions, by id, in the order given::

            found = await store.read_many(ids, Log(last=1), Cell("title"))
            for id, (last, title) in found.items(): ...

        What :meth:`perdure.Session.read` answers for each, an absent session included. Each
        answer is of one version; those of different sessions are not of one moment. One round
        trip each, several at the same time. Raises what the first that fails raises.
        """
        keys = {id: self.key(id) for id in _texts(ids)}
        answers = await read_sessions(self._client, list(keys.values()), requests)
        return dict(zip(keys, answers, strict=True))

    @OnScope._generator("kinds")
    async def kinds(self) -> AsyncGenerator[str, None]:
        """The kinds of sessions that this tenant has or lately had, in UTF-8 byte order, read
        page by page."""
        client = self._client
        async for kind in names(
            client, lambda cursor: client.backend.kinds(self._tenant, cursor=cursor)
        ):
            yield kind

    @OnScope._operation("erase")
    async def erase(
        self, *, label: str | None = None, advance: Callable[[int], object] = int
    ) -> int:
        """Delete all sessions of this tenant, **of every kind**, for good; how many.

        With ``label``, only those that carry it. Gone when this returns is every session whose
        creation was acknowledged before the call, with a label those that had it by then,
        whatever others write meanwhile: a handle that has seen one cannot bring it back
        (``SessionDeleted``). One that is made during the call may go or stay; where nobody
        makes any, a last look at the list has shown none. Where lists lag
        (``Capabilities.list_lag``), it takes at least that long.

        ``advance`` is called with the number of sessions deleted since it was called last.
        Stopped at any moment, by an error, by cancellation or with the process, it has deleted
        a part; the next call deletes the rest. The tenant's name, and the sessions' ids with
        those of their last commits, are kept for a day against late retries; ``Store.sweep``
        removes them then. Raises ``InvalidKey``, ``Unavailable``, ``OutcomeUnknown``.
        """
        return await erase(self._client, self._tenant, label, advance)

    @OnScope._generator("export")
    async def export(self, *, label: str | None = None) -> AsyncGenerator[Record, None]:
        """All that is stored of this tenant's sessions, **of every kind**, as plain records.

        With ``label``, only of those that carry it. See :mod:`perdure.exporting` for the
        records, their order, and what they are as of; in bounded memory, page by page.
        """
        async for record in exporting.export(self._client, self._tenant, label):
            yield record

    def _listing(self, prefix: object, label: object, order: object) -> Listing:
        return Listing(self._tenant, self._kind, order=order, prefix=prefix, label=label)


def _texts(ids: Iterable[str]) -> Iterable[str]:
    if isinstance(ids, str):
        raise TypeError("read_many() reads several sessions: give it their ids in a list")
    return ids
