"""A session: what users hold."""

import math
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar, overload

from perdure import fork as forking
from perdure.attachments import Attachments
from perdure.cellmap import CellMap
from perdure.client import Client
from perdure.derived import Derived, Resumed, derive
from perdure.document import load_document, save_document
from perdure.erasure import delete, delete_with_forks
from perdure.errors import Outcome, SessionDeleted
from perdure.exporting import Record, export_session
from perdure.handle import Handle
from perdure.lease_queue import LONGEST_LEASE, SHORTEST_LEASE, Leases, check_seconds
from perdure.log import Entries, Entry
from perdure.operations import OnSession
from perdure.position import Position
from perdure.request import Request, check_requests
from perdure.schema import Schema, T
from perdure.settings import settings
from perdure.stream import Stream, list_streams
from perdure.sweeping import sweep_session
from perdure.turn import Turn
from perdure.types import Commit, Committed, Head, SessionKey, check_identifier

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class Session(OnSession, Generic[T]):
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

    __slots__ = ("_handle", "_leases", "_log", "_schema", "attachments", "cells")

    def __init__(
        self, client: Client, key: SessionKey, schema: Schema[T], idle: int | None = None
    ) -> None:
        self._handle = Handle(client, key, idle)
        self._schema = schema
        self._leases: Leases | None = None
        self._log = Stream(self._handle, "", schema)
        self.cells = CellMap(self._handle)
        """The session's ordered map of named values."""
        self.attachments = Attachments(self._handle)
        """The session's files: immutable bytes named by their digest."""

    def __repr__(self) -> str:
        key = self.key
        return f"Session(tenant={key.tenant!r}, kind={key.kind!r}, id={key.id!r})"

    @property
    def key(self) -> SessionKey:
        """What the session is called."""
        return self._handle.key

    @OnSession._operation("head")
    async def head(self) -> Head | None:
        """The session's head now; ``None`` if there is no such session."""
        return (await self._handle.refresh()).head

    # The log

    async def append(self, *entries: T, key: str | None = None) -> Position:
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
        return await self._log.append(*entries, key=key)

    async def entries(
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
        return await self._log.entries(last=last, limit=limit, after=after, before=before)

    async def pop(self) -> T | None:
        """Remove the last entry of the log and return it; ``None`` if there is none.

        Two writers that pop at once get different entries.
        """
        return await self._log.pop()

    async def truncate(
        self, *, after: Position | None = None, before: Position | None = None
    ) -> None:
        """Remove the entries behind ``after``, or those before ``before``; that one stays.

        What other writers append meanwhile goes or stays by its position. Does nothing where
        there is no session.
        """
        await self._log.truncate(after=after, before=before)

    @OnSession._operation("clear")
    async def clear(self) -> None:
        """Remove every entry of the log, and what is derived from it; cells, document and
        other streams stay. Nothing to do where there is no session."""
        await self._log.delete()

    def watch(self, *, after: Position | None = None) -> AsyncGenerator[Entry[T], None]:
        """Entries as they are appended, by anyone in any process, for ever::

            async for entry in session.watch(after=perdure.START): ...

        ``after``: begin behind this position; ``None``: behind what is there now. Waits for
        the session if it does not exist yet; raises ``SessionDeleted`` when it goes. Entries
        removed before they were seen are not yielded.
        """
        return self._log.watch(after=after)

    # Other streams

    def stream(self, name: str) -> Stream[T]:
        """Another stream of entries within the session, which need not exist. No I/O.

        ``name``: up to 480 UTF-8 bytes. Raises ``InvalidKey``.
        """
        return Stream(self._handle, check_identifier("stream", name), self._schema)

    @OnSession._operation("streams")
    async def streams(self) -> list[str]:
        """The names of the streams that hold entries, in UTF-8 byte order; the log itself,
        which has none, is left out.

        A round trip for each stream that is longer than 16 KiB, fewer for short ones.
        """
        return await list_streams(self._handle)

    # Values derived from a stream

    @OnSession._operation("derive")
    async def derive(self, name: str, value: Any, *, at: Position, stream: str = "") -> None:
        """Keep a value that was worked out from the log, or a stream, up to the entry ``at``:
        a summary, say. :meth:`resume` reads it, with the entries after it.

        One round trip. Replaces what had this name. A cache: it counts as absent once the
        entry at its position is cut off, goes when the log is cleared, and is not forked.
        Raises ``InvalidValue``, ``TooLarge``, ``InvalidKey``, ``SessionDeleted``.
        """
        await derive(self._handle, name, value, at, stream)

    @OnSession._operation("resume")
    async def resume(self, name: str, *, stream: str = "") -> Resumed[Any]:
        """The value derived under a name, and the entries after what it reflects; all entries
        if there is none. One round trip."""
        (resumed,) = await self.read(Derived(name, stream=stream))
        return resumed

    # The document

    @OnSession._operation("save")
    async def save(self, data: Any, *, expect: int | None = None) -> int:
        """Store ``data`` as the session's document, whole, and return its version.

        Replaces what was saved before, at once for every reader; of two that save at the same
        time the last one wins, unless ``expect`` names the version that must be there (0:
        none), else ``Conflict``. The log and the cells stay as they are.

        One round trip, which carries only what is new compared with the document that this
        store has saved or loaded last; two for one of more than 512 KiB that it has not. What
        exceeds the backend's limit for a commit is staged before. Raises ``InvalidValue``,
        ``TooLarge`` for more than 64 MiB, ``SessionDeleted``.
        """
        return await save_document(self._handle, data, expect)

    @overload
    async def load(self) -> Any | None: ...
    @overload
    async def load(self, *, type: type[A]) -> A | None: ...
    @overload
    async def load(self, *, type: Any) -> Any | None: ...
    @OnSession._operation("load")
    async def load(self, *, type: Any = Any) -> Any | None:
        """The document last saved, as a ``type`` if given; ``None`` if there is none.

        One round trip. Raises ``Corrupt`` if it is not what was saved, and ``InvalidValue`` if
        it does not fit the type.
        """
        return await load_document(self._handle, type)

    # Several things at once

    @overload
    async def read(self, a: Request[A], /) -> tuple[A]: ...
    @overload
    async def read(self, a: Request[A], b: Request[B], /) -> tuple[A, B]: ...
    @overload
    async def read(self, a: Request[A], b: Request[B], c: Request[C], /) -> tuple[A, B, C]: ...
    @overload
    async def read(
        self, a: Request[A], b: Request[B], c: Request[C], d: Request[D], /
    ) -> tuple[A, B, C, D]: ...
    @overload
    async def read(self, *requests: Request[Any]) -> tuple[Any, ...]: ...
    @OnSession._operation("read")
    async def read(self, *requests: Request[Any]) -> tuple[Any, ...]:
        """Several things as of one version, in one round trip::

        history, step = await session.read(Log(last=20), Cell("step"))
        """
        check_requests(requests)
        _, answers = await self._handle.read(requests)
        return tuple(answers)

    def turn(
        self, *, exclusive: bool = False, wait: float | None = None, lease: float = 30.0
    ) -> Turn[T]:
        """Read, work, and commit once: ``async with session.turn() as turn:``.

        ``exclusive``: no other exclusive turn on this session works at the same time, in any
        process. Entering it takes a lease, which creates the session if it is absent, and
        raises ``LeaseHeld`` if another turn has it. ``wait``: for up to so many seconds, behind
        those who wait already; ``None``: not at all. ``lease``: the seconds after which another
        one may take over from a process that has died or stands still. It is renewed while
        the turn lasts, however long.

        Entering it is one or two round trips, ending it one. Raises ``InvalidKey`` for times
        that cannot be; see :class:`perdure.Turn` for what a turn raises at its end.
        """
        if not exclusive:
            return Turn(self._handle, self._schema)
        wait = check_seconds("wait", 0.0 if wait is None else wait, 0, math.inf)
        lease = check_seconds("lease", lease, SHORTEST_LEASE, LONGEST_LEASE)
        if self._leases is None:
            self._leases = Leases(self._handle)
        return Turn(self._handle, self._schema, partial(self._leases.acquire, wait, lease))

    @OnSession._operation("set")
    async def set(
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
        changes = settings(
            meta=meta,
            labels=labels,
            expires_in=expires_in,
            expires_at=expires_at,
            never_expires=never_expires,
        )
        result = await self._handle.commit(**changes)
        if result.head is None or result.head.incarnation != result.incarnation:
            gone = SessionDeleted(
                "the change was applied, and the session has gone since", head=result.head
            )
            gone.outcome = Outcome.APPLIED
            raise gone
        return result.head

    @OnSession._operation("sweep")
    async def sweep(self) -> int:
        """Remove what has no use any more in this session; how many things it removed.

        Cells and idempotency keys that have lapsed, and attachments that were put more than a
        day ago and whose digest stands nowhere in the session: in no entry, cell, derived
        value, label or name of a cell or stream, not in meta and not in the document. Only if
        nobody changed the session meanwhile. One round trip, and a commit if there is anything
        to remove; reads all of the session, in pages of a MiB, if it has an attachment of that
        age.
        """
        return await sweep_session(self._handle.client, self.key)

    @OnSession._operation("delete")
    async def delete(self, *, forks: bool = False) -> bool:
        """Delete the session with all it holds; whether there was one.

        A handle that has seen a session deletes that one, never its successor.

        With ``forks``, what was forked from it goes too, what was forked from that, and so
        on; first, so that after an interruption the next call finds the rest. Every fork whose
        making was acknowledged before the call is deleted, unless its own parent was gone by
        then: deleted alone, or expired. Nothing else is: another session under a fork's id
        stays. One round trip without ``forks``; with them two for each generation and one for
        each fork besides.
        """
        handle = self._handle
        remove = delete_with_forks if forks else delete
        done = await remove(handle.client, handle.key, handle.incarnation)
        handle.forget()
        return done

    @OnSession._operation("fork")
    async def fork(self, id: str, *, at: Position | None = None) -> "Session[T]":
        """Copy the session under another id, with the log up to and including ``at``.

        Other streams, cells, document, meta, labels and expiry are copied as they are now;
        what is derived, leases and idempotency keys are not. The copy is one commit, knows its
        :meth:`lineage`, and shares nothing with its parent: deleting either leaves the other.
        Positions in the copy are its own. The parent notes the fork for
        :meth:`delete`, by a commit of its own before: three round trips. Raises ``Conflict``
        if ``id`` is taken or there is nothing to copy, ``InvalidKey`` for a position that is
        not there.
        """
        handle = self._handle
        key = SessionKey(self.key.tenant, self.key.kind, check_identifier("session id", id))
        await forking.fork(handle.client, handle.key, key, at)
        return Session(handle.client, key, self._schema, handle.idle)

    @OnSession._operation("lineage")
    async def lineage(self) -> forking.Lineage | None:
        """What the session was forked from; ``None`` if it was not."""
        _, (lineage,) = await self._handle.read([forking.LineageRequest()])
        return lineage

    @OnSession._generator("export")
    async def export(self) -> AsyncGenerator[Record, None]:
        """All that is stored of it, as plain records in bounded memory; nothing where there is
        no session. See :mod:`perdure.exporting`."""
        handle = self._handle
        async for record in export_session(handle.client, handle.key):
            yield record

    @OnSession._operation("resend")
    async def resend(self, commit: Commit) -> Committed:
        """Settle an ``OutcomeUnknown``: apply its ``commit`` if it was not, at most once.

        Raises what the commit is refused with, or ``OutcomeUnknown`` again.
        """
        handle = self._handle
        known = handle.head
        return handle.committed(commit, await handle.client.commit(handle.key, commit), known)
