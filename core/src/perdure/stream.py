"""Streams: ordered entries. A session's log is one, and it may have others beside it."""

from collections.abc import AsyncGenerator
from typing import Generic

from perdure.errors import Conflict, SessionDeleted
from perdure.handle import Handle
from perdure.idempotency import append_once
from perdure.layout import (
    FIRST_NAMED,
    STREAMS_STOP,
    all_of,
    rows_stop,
    stream_name,
    stream_prefix,
    successor,
)
from perdure.log import Entries, Entry, Log
from perdure.merging import append
from perdure.operations import OnSession
from perdure.position import Position
from perdure.retry import Deadline
from perdure.rewrite import cut_after, cut_before
from perdure.schema import Schema, T
from perdure.types import At, Expect, KeyRange, Scan
from perdure.watch import watch

NAMES_BYTES = 16 * 1024
"""Rows of so many bytes are read at once where only the names of streams are wanted: short
streams are passed several at a time, and of a long one no more than that is read."""


class Stream(OnSession, Generic[T]):
    """Ordered entries under a name, within a session: a sub-agent's, say, or a branch.

    Made by ``session.stream(name)``, without I/O. A stream exists while it holds entries. It
    is read, cut and watched by itself, and is part of its session: one head, one deletion.
    Raises what the methods of :class:`perdure.Session` do.
    """

    __slots__ = ("_handle", "_name", "_prefix", "_schema")

    def __init__(self, handle: Handle, name: str, schema: Schema[T]) -> None:
        self._handle = handle
        self._name = name
        self._prefix = stream_prefix(name)
        self._schema = schema

    def __repr__(self) -> str:
        return f"Stream({self._name!r} of {self._handle.key})"

    @property
    def name(self) -> str:
        """Its name; ``""`` is the session's log."""
        return self._name

    @OnSession._operation("append")
    async def append(self, *entries: T, key: str | None = None) -> Position:
        """Add entries to its end, all in one commit; see :meth:`perdure.Session.append`."""
        if not entries:
            raise TypeError("append() needs at least one entry")
        self._schema.check(entries)
        if key is not None:
            return await append_once(self._handle, self._prefix, entries, key)
        return await append(self._handle, self._prefix, entries)

    @OnSession._operation("entries")
    async def entries(
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
        _, entries = await self._handle.entries(
            self._log(last=last, limit=limit, after=after, before=before)
        )
        return entries

    def _log(
        self,
        *,
        last: int | None = None,
        limit: int | None = None,
        after: Position | None = None,
        before: Position | None = None,
    ) -> Log[T]:
        return Log(
            last=last,
            limit=limit,
            after=after,
            before=before,
            stream=self._name,
            type=self._schema.type,
            migrate=self._schema.migrate,
        )

    @OnSession._operation("pop")
    async def pop(self) -> T | None:
        """Remove the last entry and return it; ``None`` if there is none.

        Two writers that pop at once get different entries.
        """
        handle = self._handle
        deadline = Deadline(handle.client.deadline)
        while True:
            view, entries = await handle.entries(self._log(last=1))
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

    @OnSession._operation("truncate")
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
                cut = await cut_after(handle.client, handle.key, self._prefix, after)
            else:
                assert before is not None
                cut = await cut_before(handle.client, handle.key, self._prefix, before)
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

    @OnSession._operation("stream.delete")
    async def delete(self) -> None:
        """Remove all its entries, and what is derived from them; other streams, cells and the
        document stay. Does nothing where there is no session."""
        try:
            await self._handle.commit(expect=Expect.PRESENT, deletes=(all_of(self._prefix),))
        except Conflict:
            return

    @OnSession._generator("watch")
    def watch(self, *, after: Position | None = None) -> AsyncGenerator[Entry[T], None]:
        """Its entries as they are appended; see :meth:`perdure.Session.watch`."""
        handle = self._handle
        return watch(handle.client, handle.key, self._name, self._schema, after)


async def list_streams(handle: Handle) -> list[str]:
    """The names of a session's streams, in UTF-8 byte order, the main log left out.

    A round trip for each stream that is longer than 16 KiB, fewer for short ones. A stream
    that exists throughout is named, once.
    """
    names: list[str] = []
    incarnation: bytes | None = None
    start = FIRST_NAMED
    while True:
        # In order, past each stream as a whole: whatever others do, one that stays is met.
        scan = Scan(start, STREAMS_STOP, max_bytes=NAMES_BYTES)
        snapshot = await handle.client.snapshot(handle.key, scan)
        head, rows = snapshot.head, snapshot.rows[0]
        if head is not None and head.incarnation != incarnation:
            names, incarnation = [], head.incarnation  # of a session that was made anew
            if start != FIRST_NAMED:
                start = FIRST_NAMED
                continue
        for item in rows.items:
            name = stream_name(item.key)
            if item.key < rows_stop(stream_prefix(name)) and names[-1:] != [name]:
                names.append(name)
        if head is None or not rows.more:
            return names if head is not None else []
        start = all_of(stream_prefix(stream_name(rows.items[-1].key))).stop or start
