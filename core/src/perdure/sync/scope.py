"""Twins of :mod:`perdure.scope`, written by ``python -m tests.core.sync.generate``."""

from collections.abc import Callable, Generator, Iterable
from typing import Any, overload

from perdure import scope as asynchronous
from perdure.background import Background
from perdure.exporting import Record
from perdure.request import Request
from perdure.scope import A, B, C, T
from perdure.sync.session import Session
from perdure.types import HeadEntry, Order, Page, SessionKey


class Scope:
    """The sessions of one tenant and kind. All scopes of a store share its backend."""

    __slots__ = ("_background", "_scope")

    def __init__(self, of: asynchronous.Scope, background: Background) -> None:
        self._scope = of
        self._background = background

    def __repr__(self) -> str:
        return repr(self._scope)

    def tenant(self, tenant: str) -> "Scope":
        """The same kind of sessions of another tenant. Raises ``InvalidKey``."""
        return Scope(self._scope.tenant(tenant), self._background)

    def kind(self, kind: str) -> "Scope":
        """The same tenant's sessions of another kind. Raises ``InvalidKey``."""
        return Scope(self._scope.kind(kind), self._background)

    def key(self, id: str) -> SessionKey:
        """The full key of a session in this scope. Raises ``InvalidKey``."""
        return self._scope.key(id)

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
    def session(
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
        return Session(
            self._scope.session(id, type=type, migrate=migrate, idle_expiry=idle_expiry),
            self._background,
        )

    def save(self, id: str, data: Any, *, expect: int | None = None) -> int:
        """Store ``data`` as the session's document, whole, and return its version: see
        :meth:`perdure.Session.save`. Creates the session if it is absent.

        Raises ``Conflict`` if ``expect`` names another version than is there (0: none),
        ``InvalidValue``, ``TooLarge``.
        """
        return self._background.run(self._scope.save(id, data, expect=expect))

    @overload
    def load(self, id: str) -> Any | None: ...
    @overload
    def load(self, id: str, *, type: type[A]) -> A | None: ...
    @overload
    def load(self, id: str, *, type: Any) -> Any | None: ...
    def load(self, id: str, *, type: Any = Any) -> Any | None:
        """The document last saved, as a ``type`` if given; ``None`` if there is none. One round
        trip. Raises ``Corrupt``, ``InvalidValue``."""
        return self._background.run(self._scope.load(id, type=type))

    def delete(self, id: str, *, forks: bool = False) -> bool:
        """Delete the session with all it holds; whether there was one. With ``forks``, those
        that were made of it too: see :meth:`perdure.Session.delete`."""
        return self._background.run(self._scope.delete(id, forks=forks))

    def list(
        self, *, prefix: str = "", label: str | None = None, order: Order = Order.ID
    ) -> Generator[HeadEntry, None, None]:
        """The scope's sessions, read page by page: ``for entry in store.list():``

        ``entry.key.id`` names a session; ``entry.head`` is its head, with ``meta`` and
        ``labels``. By id, or with ``Order.RECENCY`` last committed first; ``prefix`` goes with
        ids. Raises ``InvalidKey``, ``Unsupported``.
        """
        return self._background.iterate(
            self._scope.list(prefix=prefix, label=label, order=order)
        )

    def page(
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
        return self._background.run(
            self._scope.page(
                limit=limit, cursor=cursor, prefix=prefix, label=label, order=order
            )
        )

    @overload
    def read_many(self, ids: Iterable[str], a: Request[A], /) -> dict[str, tuple[A]]: ...
    @overload
    def read_many(
        self, ids: Iterable[str], a: Request[A], b: Request[B], /
    ) -> dict[str, tuple[A, B]]: ...
    @overload
    def read_many(
        self, ids: Iterable[str], a: Request[A], b: Request[B], c: Request[C], /
    ) -> dict[str, tuple[A, B, C]]: ...
    @overload
    def read_many(
        self, ids: Iterable[str], /, *requests: Request[Any]
    ) -> dict[str, tuple[Any, ...]]: ...
    def read_many(
        self, ids: Iterable[str], /, *requests: Request[Any]
    ) -> dict[str, tuple[Any, ...]]:
        """The same things of several sessions, by id, in the order given::

            found = store.read_many(ids, Log(last=1), Cell("title"))
            for id, (last, title) in found.items(): ...

        What :meth:`perdure.Session.read` answers for each, an absent session included. Each
        answer is of one version; those of different sessions are not of one moment. One round
        trip each, several at the same time. Raises what the first that fails raises.
        """
        return self._background.run(self._scope.read_many(ids, *requests))

    def kinds(self) -> Generator[str, None, None]:
        """The kinds of sessions that this tenant has or lately had, in UTF-8 byte order, read
        page by page."""
        return self._background.iterate(self._scope.kinds())

    def erase(self, *, label: str | None = None, advance: Callable[[int], object] = int) -> int:
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
        return self._background.run(self._scope.erase(label=label, advance=advance))

    def export(self, *, label: str | None = None) -> Generator[Record, None, None]:
        """All that is stored of this tenant's sessions, **of every kind**, as plain records.

        With ``label``, only of those that carry it. See :mod:`perdure.exporting` for the
        records, their order, and what they are as of; in bounded memory, page by page.
        """
        return self._background.iterate(self._scope.export(label=label))
