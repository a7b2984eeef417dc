"""Twins of :mod:`perdure.session`, written by ``python -m tests.core.sync.generate``."""

from collections.abc import Generator
from datetime import datetime
from typing import Any, Generic, overload

from perdure import fork as forking
from perdure import session as asynchronous
from perdure.background import Background
from perdure.derived import Resumed
from perdure.exporting import Record
from perdure.log import Entries, Entry
from perdure.position import Position
from perdure.request import Request
from perdure.schema import T
from perdure.session import A, B, C, D
from perdure.sync.attachments import Attachments
from perdure.sync.cellmap import CellMap
from perdure.sync.stream import Stream
from perdure.sync.turn import Turn
from perdure.types import Commit, Committed, Head, SessionKey


class Session(Generic[T]):
    """A handle on one session: its log, its cells, its settings. Made by ``store.session``.

    Making one does no I/O; the session need not exist, and its first write creates it. A
    handle keeps what it has read and asks only for what is new. Its writes name the session
    that it has seen: if that one was deleted, they raise ``SessionDeleted`` rather than bring
    it back; a read shows the handle what is there now, and it goes on from that.

    ``T`` is what the entries are: anything that can be stored, unless ``store.session`` was
    given a type.

    Every method raises ``Unavailable`` or, where it writes, ``OutcomeUnknown`` when the
    backend does not answer within the store's deadline, and ``StoreClosed``.
    """

    __slots__ = ("_background", "_session")

    def __init__(self, of: asynchronous.Session[T], background: Background) -> None:
        self._session = of
        self._background = background

    @property
    def cells(self) -> CellMap:
        """The session's ordered map of named values."""
        return CellMap(self._session.cells, self._background)

    @property
    def attachments(self) -> Attachments:
        """The session's files: immutable bytes named by their digest."""
        return Attachments(self._session.attachments, self._background)

    def __repr__(self) -> str:
        return repr(self._session)

    @property
    def key(self) -> SessionKey:
        """What the session is called."""
        return self._session.key

    def head(self) -> Head | None:
        """The session's head now; ``None`` if there is no such session."""
        return self._background.run(self._session.head())

    def append(self, *entries: T, key: str | None = None) -> Position:
        """Add entries to the end of the log, all in one commit; the position of the last.

        One round trip. Creates the session if it is absent. Never conflicts: entries of other
        writers may come before them, none between them. Appends that this process makes to
        one session at once share commits, in the order in which they were called. Raises
        ``InvalidValue`` (with the path of the value at fault), ``TooLarge``,
        ``SessionDeleted``.

        ``key``: a name of what causes this, of up to 400 UTF-8 bytes, such as a message id.
        However often, from wherever and even at once it is appended under that name within 24
        hours by the backend's clock, it is applied once, and the position is always the one
        that it got, whatever was removed since. Other entries under the same name raise
        ``CommitIdReused``. The name is free again when its session is deleted.
        """
        return self._background.run(self._session.append(*entries, key=key))

    def entries(
        self,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
    ) -> Entries[T]:
        """Entries of the log, oldest first; all, or as :class:`perdure.Log` says.

        One round trip, and on a handle that has read them before only for what is new.
        Empty where there is no session.
        """
        return self._background.run(
            self._session.entries(last=last, limit=limit, after=after, before=before)
        )

    def pop(self) -> T | None:
        """Remove the last entry of the log and return it; ``None`` if there is none.

        Two writers that pop at once get different entries.
        """
        return self._background.run(self._session.pop())

    def truncate(
        self, *, after: Position | None = None, before: Position | None = None
    ) -> None:
        """Remove the entries behind ``after``, or those before ``before``; that one stays.

        What other writers append meanwhile goes or stays by its position. Does nothing where
        there is no session.
        """
        self._background.run(self._session.truncate(after=after, before=before))

    def clear(self) -> None:
        """Remove every entry of the log, and what is derived from it; cells, document and
        other streams stay. Nothing to do where there is no session."""
        self._background.run(self._session.clear())

    def watch(self, *, after: Position | None = None) -> Generator[Entry[T], None, None]:
        """Entries as they are appended, by anyone in any process, for ever::

            for entry in session.watch(after=perdure.START): ...

        ``after``: begin behind this position; ``None``: behind what is there now. Waits for
        the session if it does not exist yet; raises ``SessionDeleted`` when it goes. Entries
        removed before they were seen are not yielded.
        """
        return self._background.iterate(self._session.watch(after=after))

    def stream(self, name: str) -> Stream[T]:
        """Another stream of entries within the session, which need not exist. No I/O.

        ``name``: up to 480 UTF-8 bytes. Raises ``InvalidKey``.
        """
        return Stream(self._session.stream(name), self._background)

    def streams(self) -> list[str]:
        """The names of the streams that hold entries, in UTF-8 byte order; the log itself,
        which has none, is left out.

        A round trip for each stream that is longer than 16 KiB, fewer for short ones.
        """
        return self._background.run(self._session.streams())

    def derive(self, name: str, value: Any, *, at: Position, stream: str = "") -> None:
        """Keep a value that was worked out from the log, or a stream, up to the entry ``at``:
        a summary, say. :meth:`resume` reads it, with the entries after it.

        One round trip. Replaces what had this name. A cache: it counts as absent once the
        entry at its position is cut off, goes when the log is cleared, and is not forked.
        Raises ``InvalidValue``, ``TooLarge``, ``InvalidKey``, ``SessionDeleted``.
        """
        self._background.run(self._session.derive(name, value, at=at, stream=stream))

    def resume(self, name: str, *, stream: str = "") -> Resumed[Any]:
        """The value derived under a name, and the entries after what it reflects; all entries
        if there is none. One round trip."""
        return self._background.run(self._session.resume(name, stream=stream))

    def save(self, data: Any, *, expect: int | None = None) -> int:
        """Store ``data`` as the session's document, whole, and return its version.

        Replaces what was saved before, at once for every reader; of two that save at the same
        time the last one wins, unless ``expect`` names the version that must be there (0:
        none), else ``Conflict``. The log and the cells stay as they are.

        One round trip, which carries only what is new compared with the document that this
        store has saved or loaded last; two for one of more than 512 KiB that it has not. What
        exceeds the backend's limit for a commit is staged before. Raises ``InvalidValue``,
        ``TooLarge`` for more than 64 MiB, ``SessionDeleted``.
        """
        return self._background.run(self._session.save(data, expect=expect))

    @overload
    def load(self) -> Any | None: ...
    @overload
    def load(self, *, type: type[A]) -> A | None: ...
    @overload
    def load(self, *, type: Any) -> Any | None: ...
    def load(self, *, type: Any = Any) -> Any | None:
        """The document last saved, as a ``type`` if given; ``None`` if there is none.

        One round trip. Raises ``Corrupt`` if it is not what was saved, and ``InvalidValue`` if
        it does not fit the type.
        """
        return self._background.run(self._session.load(type=type))

    @overload
    def read(self, a: Request[A], /) -> tuple[A]: ...
    @overload
    def read(self, a: Request[A], b: Request[B], /) -> tuple[A, B]: ...
    @overload
    def read(self, a: Request[A], b: Request[B], c: Request[C], /) -> tuple[A, B, C]: ...
    @overload
    def read(
        self, a: Request[A], b: Request[B], c: Request[C], d: Request[D], /
    ) -> tuple[A, B, C, D]: ...
    @overload
    def read(self, *requests: Request[Any]) -> tuple[Any, ...]: ...
    def read(self, *requests: Request[Any]) -> tuple[Any, ...]:
        """Several things as of one version, in one round trip::

        history, step = session.read(Log(last=20), Cell("step"))
        """
        return self._background.run(self._session.read(*requests))

    def turn(
        self, *, exclusive: bool = False, wait: float | None = None, lease: float = 30.0
    ) -> Turn[T]:
        """Read, work, and commit once: ``with session.turn() as turn:``.

        ``exclusive``: no other exclusive turn on this session works at the same time, in any
        process. Entering it takes a lease, which creates the session if it is absent, and
        raises ``LeaseHeld`` if another turn has it. ``wait``: for up to so many seconds, behind
        those who wait already; ``None``: not at all. ``lease``: the seconds after which another
        one may take over from a process that has died or stands still. It is renewed while
        the turn lasts, however long.

        Entering it is one or two round trips, ending it one. Raises ``InvalidKey`` for times
        that cannot be; see :class:`perdure.Turn` for what a turn raises at its end.
        """
        return Turn(
            self._session.turn(exclusive=exclusive, wait=wait, lease=lease), self._background
        )

    def set(
        self,
        *,
        meta: bytes | None = None,
        labels: tuple[str, ...] | None = None,
        expires_in: float | None = None,
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> Head:
        """Set what is given, in one commit that creates the session if it is absent.

        ``meta``: up to 4 KiB for the application, shown in lists. ``labels``: up to 4.
        ``expires_in``: seconds from now by the backend's clock. Raises ``TooLarge``,
        ``InvalidKey``, ``SessionDeleted``.
        """
        return self._background.run(
            self._session.set(
                meta=meta,
                labels=labels,
                expires_in=expires_in,
                expires_at=expires_at,
                never_expires=never_expires,
            )
        )

    def sweep(self) -> int:
        """Remove what has no use any more in this session; how many things it removed.

        Cells and idempotency keys that have lapsed, and attachments that were put more than a
        day ago and whose digest stands nowhere in the session: in no entry, cell, derived
        value, label or name of a cell or stream, not in meta and not in the document. Only if
        nobody changed the session meanwhile. One round trip, and a commit if there is anything
        to remove; reads all of the session, in pages of a MiB, if it has an attachment of that
        age.
        """
        return self._background.run(self._session.sweep())

    def delete(self, *, forks: bool = False) -> bool:
        """Delete the session with all it holds; whether there was one.

        A handle that has seen a session deletes that one, never its successor.

        With ``forks``, what was forked from it goes too, what was forked from that, and so
        on; first, so that after an interruption the next call finds the rest. Every fork whose
        making was acknowledged before the call is deleted, unless its own parent was gone by
        then: deleted alone, or expired. Nothing else is: another session under a fork's id
        stays. One round trip without ``forks``; with them two for each generation and one for
        each fork besides.
        """
        return self._background.run(self._session.delete(forks=forks))

    def fork(self, id: str, *, at: Position | None = None) -> "Session[T]":
        """Copy the session under another id, with the log up to and including ``at``.

        Other streams, cells, document, meta, labels and expiry are copied as they are now;
        what is derived, leases and idempotency keys are not. The copy is one commit, knows its
        :meth:`lineage`, and shares nothing with its parent: deleting either leaves the other.
        Positions in the copy are its own. The parent notes the fork for
        :meth:`delete`, by a commit of its own before: three round trips. Raises ``Conflict``
        if ``id`` is taken or there is nothing to copy, ``InvalidKey`` for a position that is
        not there.
        """
        return Session(self._background.run(self._session.fork(id, at=at)), self._background)

    def lineage(self) -> forking.Lineage | None:
        """What the session was forked from; ``None`` if it was not."""
        return self._background.run(self._session.lineage())

    def export(self) -> Generator[Record, None, None]:
        """All that is stored of it, as plain records in bounded memory; nothing where there is
        no session. See :mod:`perdure.exporting`."""
        return self._background.iterate(self._session.export())

    def resend(self, commit: Commit) -> Committed:
        """Settle an ``OutcomeUnknown``: apply its ``commit`` if it was not, at most once.

        Raises what the commit is refused with, or ``OutcomeUnknown`` again.
        """
        return self._background.run(self._session.resend(commit))
