"""Twins of :mod:`perdure.stream`, written by ``python -m tests.core.sync.generate``."""

from collections.abc import Generator
from typing import Generic

from perdure import stream as asynchronous
from perdure.background import Background
from perdure.log import Entries, Entry
from perdure.position import Position
from perdure.schema import T


class Stream(Generic[T]):
    """Ordered entries under a name, within a session: a sub-agent's, say, or a branch.

    Made by ``session.stream(name)``, without I/O. A stream exists while it holds entries. It
    is read, cut and watched by itself, and is part of its session: one head, one deletion.
    Raises what the methods of :class:`perdure.Session` do.
    """

    __slots__ = ("_background", "_stream")

    def __init__(self, of: asynchronous.Stream[T], background: Background) -> None:
        self._stream = of
        self._background = background

    def __repr__(self) -> str:
        return repr(self._stream)

    @property
    def name(self) -> str:
        """Its name; ``""`` is the session's log."""
        return self._stream.name

    def append(self, *entries: T, key: str | None = None) -> Position:
        """Add entries to its end, all in one commit; see :meth:`perdure.Session.append`."""
        return self._background.run(self._stream.append(*entries, key=key))

    def entries(
        self,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
    ) -> Entries[T]:
        """Its entries, oldest first; all, or as :class:`perdure.Log` says.

        One round trip, and on a handle that has read them before only for what is new.
        Empty where there is no session.
        """
        return self._background.run(
            self._stream.entries(last=last, limit=limit, after=after, before=before)
        )

    def pop(self) -> T | None:
        """Remove the last entry and return it; ``None`` if there is none.

        Two writers that pop at once get different entries.
        """
        return self._background.run(self._stream.pop())

    def truncate(
        self, *, after: Position | None = None, before: Position | None = None
    ) -> None:
        """Remove the entries behind ``after``, or those before ``before``; that one stays.

        What other writers append meanwhile goes or stays by its position. Does nothing where
        there is no session.
        """
        self._background.run(self._stream.truncate(after=after, before=before))

    def delete(self) -> None:
        """Remove all its entries, and what is derived from them; other streams, cells and the
        document stay. Does nothing where there is no session."""
        self._background.run(self._stream.delete())

    def watch(self, *, after: Position | None = None) -> Generator[Entry[T], None, None]:
        """Its entries as they are appended; see :meth:`perdure.Session.watch`."""
        return self._background.iterate(self._stream.watch(after=after))
