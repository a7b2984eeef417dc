"""Twins of :mod:`perdure.store`, written by ``python -m tests.core.sync.generate``."""

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Self

from perdure import store as asynchronous
from perdure.backend import Backend, Description
from perdure.background import Background
from perdure.encryption.keys import KeyRing
from perdure.events import OnEvent
from perdure.sync.scope import Scope


class Store(Scope):
    """Sessions in one backend.

    ``url`` names it, as in ``"sqlite:///sessions.db"`` or ``"memory://"``; a ``Backend`` will
    do too. Without one it is ``$PERDURE_URL``, else a SQLite file ``.perdure/sessions.db``.
    Making a store does no I/O, so that it can be a module's global; it connects at first use,
    or at ``with store:``, which also closes it.

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
        self._store = asynchronous.Store(
            url,
            tenant=tenant,
            kind=kind,
            deadline=deadline,
            idle_expiry=idle_expiry,
            keys=keys,
            on_event=on_event,
        )
        super().__init__(self._store, Background())

    def __enter__(self) -> Self:
        self._background.run(self._store.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the backend. Later use of the store and its handles raises ``StoreClosed``."""
        self._background.close(self._store.aclose())

    def describe(self) -> Description:
        """Which backend this is, where it keeps its data, and how durable it is."""
        return self._background.run(self._store.describe())

    def tenants(self) -> Generator[str, None, None]:
        """All tenants that have or lately had a session, in UTF-8 byte order, read page by
        page: ``for tenant in store.tenants():``"""
        return self._background.iterate(self._store.tenants())

    def sweep(self, advance: Callable[[int], object] = int) -> int:
        """Remove what has no use any more, of all tenants; how many things it removed.

        First what nobody can see, as the backend does it (expired sessions, forgotten uploads
        and the like), then in each session what :meth:`Session.sweep` removes. Costs a round
        trip per session and more for those with attachments, 16 at a time; run it daily, say.
        ``advance`` is called with the number of things removed since it was called last.
        """
        return self._background.run(self._store.sweep(advance))
