"""What a store is connected to: the backend, made late, for whatever event loop and process."""

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator

from perdure.backend import Backend, Durability
from perdure.background import beginning, keep_for_ever
from perdure.counting import Counted
from perdure.encryption.keys import KeyRing
from perdure.errors import StoreClosed, Unsupported
from perdure.events import Observer, OnEvent
from perdure.loops import BackgroundBackend, at_end_of_loop, running_loop
from perdure.retry import retrying


class Connection:
    """Makes the backend at first use, and another one where that cannot serve."""

    def __init__(
        self,
        source: str | Backend,
        *,
        deadline: float,
        on_event: OnEvent | None,
        keys: KeyRing | None,
    ) -> None:
        self._source = source
        self.observer = Observer(on_event, source) if on_event is not None else None
        self._keys = keys
        self._backend = None if isinstance(source, str) else self._layered(source)
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one that a backend bound to a loop belongs to."""
        self._ending: AsyncGenerator[None, None] | None = None
        """Closes that backend when its loop ends."""
        self._background: BackgroundBackend | None = None
        """For calls from other loops, if the backend is bound to one."""
        self._closed = ""
        """Why it cannot be used any more, if so."""
        self.deadline = deadline
        _live.add(self)

    @property
    def backend(self) -> Backend:
        """The backend, for use in the running event loop.

        Raises ``BackendNotFound``, ``InvalidURL``, ``StoreClosed``, ``Unsupported``.
        """
        if self._closed:
            raise StoreClosed(self._closed)
        backend = self._backend
        if backend is None:
            with beginning:
                if self._backend is None:
                    self._backend = self._make()
                backend = self._backend
        if backend.capabilities.loop_bound:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # somebody looks at it and does not await anything
                return backend
            if loop is not self._loop:
                return self._elsewhere(backend, loop)
        return backend

    def _make(self) -> Backend:
        from perdure.plugins import open_backend  # finds plugins: not at import

        if not isinstance(self._source, str):
            raise Unsupported(
                "this backend belongs to the event loop that has used it first: give the "
                "store a URL, or each event loop a store of its own"
            )
        return self._layered(open_backend(self._source))

    def _layered(self, backend: Backend) -> Backend:
        """``backend``, with what it is asked counted if somebody wants to know, and its rows
        sealed if there are keys."""
        if self.observer is not None:
            backend = Counted(backend, self.observer)
        if self._keys is not None:
            from perdure.encryption.backend import EncryptedBackend  # loads cryptography

            backend = EncryptedBackend(backend, self._keys)
        return backend

    def _elsewhere(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> Backend:
        """The backend for a loop that may not be the one that this backend belongs to."""
        with beginning:
            if self._loop is None:
                self._loop = loop
                if isinstance(self._source, str):  # else others may use it too
                    self._ending = at_end_of_loop(backend.aclose)
            if self._loop is loop:
                return backend
            if self._background is None:
                self._background = BackgroundBackend(self._make)
            return self._background

    async def open(self) -> None:
        """Connect now. Raises ``Unavailable``, ``FormatTooNew``, ``Corrupt``.

        If that fails, nothing is left open, and it may be tried again.
        """
        backend = self.backend
        try:
            await retrying(backend.open, self.deadline)
        except BaseException:
            if isinstance(self._source, str):
                if backend is self._background:
                    self._background = None
                else:
                    self._backend = self._loop = self._ending = None
                await backend.aclose()
            raise

    async def aclose(self) -> None:
        """Close the backend, if it was ever opened by this process."""
        if not self._closed:
            self._closed = "this store was closed; make a new Store"
            if self._background is not None:
                await self._background.aclose()
            backend, loop = self._backend, self._loop
            if backend is None:
                return
            if loop is None or loop is running_loop():
                await backend.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(backend.aclose(), loop)
                await asyncio.wrap_future(closing)
            # Else it was closed with its loop.

    def leave_to_parent(self) -> None:
        """In a process that was forked: connections belong to the parent. This process gets
        its own, if it can: neither a backend that was given as such can be made again, nor
        what one holds in memory."""
        backend = self._backend
        if self._closed:
            return
        keep_for_ever((backend, self._loop, self._ending, self._background))
        self._loop = self._ending = self._background = None
        if backend is None:
            return
        facts = backend.capabilities
        if not isinstance(self._source, str):
            self._closed = (
                "this store's backend belongs to the process that this one was forked from; "
                "make a new one in this process, or give the store a URL"
            )
        elif facts.durability is Durability.NONE and not facts.loop_bound:  # no server has it
            self._closed = (
                "this store's sessions are in the memory of the process that this one was "
                "forked from; make a new Store in this process"
            )
        else:
            self._backend = None


_live: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for connection in list(_live):
        connection.leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
