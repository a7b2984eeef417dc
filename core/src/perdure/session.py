"""A session: what users hold."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, TypeVar, overload

from perdure import fork as forking
from perdure.cellmap import CellMap
from perdure.client import Client, new_id
from perdure.errors import Conflict, Outcome, SessionDeleted
from perdure.handle import Handle
from perdure.layout import LOG, WHOLE_LOG, successor
from perdure.log import Entries, Entry, Log
from perdure.position import Position, position_of
from perdure.request import Request
from perdure.retry import Deadline, send_delete
from perdure.rewrite import cut_after, cut_before
from perdure.settings import settings
from perdure.turn import Turn
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    KeyRange,
    SessionKey,
    append_key,
    check_identifier,
)
from perdure.watch import watch

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class Session:
    """A handle on one session: its log, its cells, its settings. Made by ``store.session``.

    Making one does no I/O; the session need not exist, and its first write creates it. A
    handle keeps what it has read and asks only for what is new. Its writes name the session
    that it has seen: if that one was deleted, they raise ``SessionDeleted`` rather than bring
    it back; a read shows the handle what is there now, and it goes on from that.

    Every method raises ``Unavailable`` or, where it writes, ``OutcomeUnknown`` when the
    backend does not answer within the store's deadline, and ``StoreClosed``.
    """

    __slots__ = ("_handle", "cells")

    def __init__(self, client: Client, key: SessionKey) -> None:
        self._handle = Handle(client, key)
        self.cells = CellMap(self._handle)
        """The session's ordered map of named values."""

    def __repr__(self) -> str:
        key = self.key
        return f"Session(tenant={key.tenant!r}, kind={key.kind!r}, id={key.id!r})"

    @property
    def key(self) -> SessionKey:
        """What the session is called."""
        return self._handle.key

    async def head(self) -> Head | None:
        """The session's head now; ``None`` if there is no such session."""
        return (await self._handle.refresh()).head

    async def append(self, *entries: Any) -> Position:
        """Add entries to the end of the log, all in one commit; the position of the last.

        One round trip. Creates the session if it is absent. Never conflicts: entries of other
        writers may come before them, none between them. Raises ``InvalidValue`` (with the
        path of the value at fault), ``TooLarge``, ``SessionDeleted``.
        """
        if not entries:
            raise TypeError("append() needs at least one entry")
        handle = self._handle
        id = new_id()
        rows = handle.client.codec.pack(handle.key, id, entries)
        result = await handle.commit(id=id, entries=rows)
        return _last_position(handle, rows, len(entries), result)

    async def entries(
        self,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
    ) -> Entries:
        """Entries of the log, oldest first; all, or as :class:`perdure.Log` says.

        One round trip, and on a handle that has read them before only for what is new.
        Empty where there is no session.
        """
        request = Log(last=last, limit=limit, after=after, before=before)
        _, entries = await self._handle.entries(request)
        return entries

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
    async def read(self, *requests: Request[Any]) -> tuple[Any, ...]:
        """Several things as of one version, in one round trip::

        history, step = await session.read(Log(last=20), Cell("step"))
        """
        _check_requests(requests)
        _, answers = await self._handle.read(requests)
        return tuple(answers)

    async def pop(self) -> Any | None:
        """Remove the last entry of the log and return it; ``None`` if there is none.

        Two writers that pop at once get different entries.
        """
        handle = self._handle
        deadline = Deadline(handle.client.deadline)
        while True:
            view, entries = await handle.entries(Log(last=1))
            if not entries or view.head is None:
                return None
            rows = [span.item for span in entries.spans]
            _, count = handle.client.codec.row_span(rows[0].value)
            expect = At(view.head.version, view.head.tip)
            try:
                if count == 1:
                    whole = KeyRange(rows[0].key, successor(rows[-1].key))
                    await handle.commit(expect=expect, deletes=(whole,))
                else:
                    row = handle.client.codec.trim(handle.key, rows[0], stop=count - 1)
                    await handle.commit(
                        expect=expect, deletes=(rows[0].key,), puts=((rows[0].key, row),)
                    )
                return entries[0]
            except Conflict:
                if not await deadline.pause():
                    raise

    async def truncate(
        self, *, after: Position | None = None, before: Position | None = None
    ) -> None:
        """Remove the entries behind ``after``, or those before ``before``; that one stays.

        What other writers append meanwhile goes or stays by its position. Does nothing where
        there is no session.
        """
        if (after is None) == (before is None):
            raise TypeError("truncate() needs after= or before=")
        handle = self._handle
        deadline = Deadline(handle.client.deadline)
        while True:
            if after is not None:
                cut = await cut_after(handle.client, handle.key, after)
            else:
                assert before is not None
                cut = await cut_before(handle.client, handle.key, before)
            if cut is None:
                return
            try:
                await handle.commit(
                    expect=Expect.PRESENT,
                    conditions=cut.conditions,
                    deletes=cut.deletes,
                    puts=cut.puts,
                    on=cut.head,
                )
                return
            except Conflict as conflict:
                if conflict.head is None:
                    return
                if not await deadline.pause():
                    raise
            except SessionDeleted:
                # A handle that knew no session cuts the one that is there now.
                if handle.incarnation is not None or not await deadline.pause():
                    raise

    async def clear(self) -> None:
        """Remove every entry of the log; cells and document stay. Nothing to do where there
        is no session."""
        try:
            await self._handle.commit(expect=Expect.PRESENT, deletes=(WHOLE_LOG,))
        except Conflict:
            return

    def turn(self) -> Turn:
        """Read, work, and commit once: ``async with session.turn() as turn:``."""
        return Turn(self._handle)

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

    async def delete(self) -> bool:
        """Delete the session with all it holds; whether there was one.

        A handle that has seen a session deletes that one, never its successor.
        """
        handle = self._handle
        backend, id = handle.client.backend, new_id()
        incarnation = handle.incarnation
        done = await send_delete(
            lambda: backend.delete(handle.key, id=id, incarnation=incarnation),
            handle.client.deadline,
        )
        handle.forget()
        return done

    async def fork(self, id: str, *, at: Position | None = None) -> "Session":
        """Copy the session under another id, with the log up to and including ``at``.

        Cells, document, meta, labels and expiry are copied as they are now. The copy is one
        commit, knows its :meth:`lineage`, and shares nothing with its parent: deleting either
        leaves the other. Positions in the copy are its own. Raises ``Conflict`` if ``id`` is
        taken or there is nothing to copy, ``InvalidKey`` for a position that is not there.
        """
        handle = self._handle
        key = SessionKey(self.key.tenant, self.key.kind, check_identifier("session id", id))
        await forking.fork(handle.client, handle.key, key, at)
        return Session(handle.client, key)

    async def lineage(self) -> forking.Lineage | None:
        """What the session was forked from; ``None`` if it was not."""
        _, (lineage,) = await self._handle.read([forking.LineageRequest()])
        return lineage

    def watch(self, *, after: Position | None = None) -> AsyncGenerator[Entry, None]:
        """Entries as they are appended, by anyone in any process, for ever::

            async for entry in session.watch(after=perdure.START): ...

        ``after``: begin behind this position; ``None``: behind what is there now. Waits for
        the session if it does not exist yet; raises ``SessionDeleted`` when it goes. Entries
        removed before they were seen are not yielded.
        """
        return watch(self._handle.client, self._handle.key, after)

    async def resend(self, commit: Commit) -> Committed:
        """Settle an ``OutcomeUnknown``: apply its ``commit`` if it was not, at most once.

        Raises what the commit is refused with, or ``OutcomeUnknown`` again.
        """
        handle = self._handle
        known = handle.head
        return handle.committed(commit, await handle.client.commit(handle.key, commit), known)


def _check_requests(requests: tuple[object, ...]) -> None:
    for request in requests:
        if not isinstance(request, Request):
            raise TypeError(
                "what is read is named by Log, Cell, Cells or Document, not by "
                f"{type(request).__name__}"
            )


def _last_position(
    handle: Handle, rows: tuple[bytes, ...], entries: int, result: Committed
) -> Position:
    """The position of the last entry in the rows that a commit appended."""
    if len(rows) == 1:
        return position_of(append_key(LOG, result.version, 0), entries - 1)
    codec = handle.client.codec
    ordinal = len(rows) - 1
    count = codec.row_span(rows[ordinal])[1]
    while not count:  # the later fragments of a long entry
        ordinal -= 1
        count = codec.row_span(rows[ordinal])[1]
    return position_of(append_key(LOG, result.version, ordinal), count - 1)
