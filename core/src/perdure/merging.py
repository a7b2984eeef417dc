"""Appends of one process to one session: those that wait behind one another go together.

An append that meets no other is sent as it is. While one is on its way, others to the same
session, of whatever handle or stream, wait, and go as one commit when it returns. A database
writes one session's commits one after another in any case, and each of many at once waits for
two of them here instead of all that came before it.

Everything here belongs to one event loop: appends of another loop are not waited for.
"""

import asyncio
from collections.abc import Sequence
from contextvars import copy_context
from copy import copy
from functools import partial

from perdure.backend import Capabilities
from perdure.client import Client, new_id
from perdure.codec import ROW_BYTES, Codec, Encoded
from perdure.errors import PerdureError, SessionDeleted, Unavailable
from perdure.handle import Handle
from perdure.loops import running_loop
from perdure.position import Position, position_of
from perdure.retry import unknown
from perdure.types import Append, Commit, SessionKey, append_key

PATIENCE = 1.0
"""Appends wait for one that is on its way for at most so many seconds, and then go beside it:
it may be large, or its connection dead."""

MERGED_BYTES = 1 << 20
"""Most bytes of entries that go together; longer ones go alone."""

ROOM_BYTES = 64
"""What a row takes beside its entries and its key's prefix: more than it does."""

GRACE = 0.1
"""A commit of several ends at the latest deadline of those that wait for it. Those with an
earlier one are told so many seconds after it, so that as a rule the commit speaks first."""


class Waiter:
    """An append that waits."""

    __slots__ = (
        "answer",
        "context",
        "deadline",
        "expiry",
        "handle",
        "part",
        "prefix",
        "size",
        "trip",
    )

    def __init__(self, handle: Handle, prefix: bytes, part: Encoded) -> None:
        loop = asyncio.get_running_loop()
        self.handle = handle
        self.prefix = prefix
        self.part = part
        self.size = len(part.body) + len(prefix) + ROOM_BYTES
        self.answer: asyncio.Future[Position | BaseException] = loop.create_future()
        """A result in any case, so that nobody need retrieve the exceptions of who has left."""
        self.trip: Trip | None = None
        """``None`` while it has not been sent."""
        self.context = copy_context()
        self.deadline = loop.time() + handle.client.deadline
        self.expiry = loop.call_at(self.deadline + GRACE, self.expire)

    def expire(self) -> None:
        """Tell what is known when the time is up."""
        if self.trip is None or self.trip.commit is None:
            reason = "other appends to the session took all the time; nothing was written"
            self.give(Unavailable(reason))
        elif self.trip.positions:  # the session's life is being extended still
            self.give(self.trip.positions[self.trip.waiters.index(self)])
        else:
            self.give(unknown(self.trip.commit, "no answer in time"))

    def give(self, answer: Position | BaseException) -> None:
        """End the wait, unless it has ended."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Trip:
    """A commit of several appends."""

    __slots__ = ("cold", "commit", "positions", "task", "waiters")

    def __init__(self) -> None:
        self.waiters: Sequence[Waiter] = ()
        self.cold: Sequence[Waiter] = ()
        """Those whose handles had seen no session."""
        self.commit: Commit | None = None
        """As it is to be resent."""
        self.positions: Sequence[Position] = ()
        """Those of the waiters, once it is applied."""
        self.task: asyncio.Task[list[Position]] | None = None

    async def desert(self) -> None:
        """One who waited has gone. The last one takes the commit along, whole or not at all,
        as it would be with an append of its own."""
        if self.task is not None and all(waiter.answer.done() for waiter in self.waiters):
            self.task.cancel()
            await asyncio.wait((self.task,))


class Lane:
    """The appends that are under way to one session, and those that wait for them."""

    __slots__ = ("alarm", "client", "limits", "place", "tasks", "under_way", "waiting")

    limits: Capabilities

    def __init__(
        self, client: Client, place: tuple[asyncio.AbstractEventLoop, SessionKey]
    ) -> None:
        self.client = client
        self.place = place
        self.under_way = 1
        self.waiting: list[Waiter] = []
        self.tasks: set[asyncio.Task[list[Position]]] = set()
        """Event loops hold their tasks by weak references."""
        self.alarm: asyncio.TimerHandle | None = None

    def leave(self) -> None:
        """One that was under way has returned: the next go, or the lane is closed."""
        self.under_way -= 1
        if self.waiting:
            self.depart()
        elif not self.under_way:
            self.client.lanes.pop(self.place, None)
            self.no_alarm()

    def depart(self) -> None:
        """Send those that wait, as many as go together."""
        self.no_alarm()
        loop = self.place[0]
        if not self.waiting:
            return
        if loop.is_closed():  # and nobody waits in it any more
            self.client.lanes.pop(self.place, None)
            return
        self.under_way += 1
        trip = Trip()
        trip.task = task = loop.create_task(self._carry(trip), context=self.waiting[0].context)
        self.tasks.add(task)
        task.add_done_callback(partial(self._arrive, trip))

    async def wait(self, handle: Handle, prefix: bytes, part: Encoded) -> Position:
        """Wait, be sent, and return the position of the last entry."""
        self.limits = self.client.backend.capabilities  # before waiting, if it is closed
        waiter = Waiter(handle, prefix, part)
        self.waiting.append(waiter)
        self.set_alarm()
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            if waiter.trip is not None:
                await waiter.trip.desert()
            raise
        finally:
            waiter.expiry.cancel()
            if waiter.trip is None and waiter in self.waiting:
                self.waiting.remove(waiter)  # cancelled, or out of time
        if isinstance(answer, BaseException):
            # One exception for each: they get tracebacks, notes and causes of their own.
            own = copy(answer) if isinstance(answer, PerdureError) else answer
            raise own from answer.__cause__
        return answer

    def set_alarm(self) -> None:
        """See to it that nobody waits for too long."""
        if self.alarm is None:
            self.alarm = self.place[0].call_later(PATIENCE, self.depart)

    def no_alarm(self) -> None:
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    async def _carry(self, trip: Trip) -> list[Position]:
        """Commit for those that wait; their positions."""
        waiters = trip.waiters = self._board()
        if self.waiting:
            self.set_alarm()
        if not waiters:
            return []
        client = self.client
        id = new_id()
        streams: dict[bytes, list[Waiter]] = {}
        known = {waiter.handle: waiter.handle.head for waiter in waiters}
        for waiter in waiters:
            waiter.trip = trip
            streams.setdefault(waiter.prefix, []).append(waiter)
        trip.cold = [waiter for waiter in waiters if waiter.handle.incarnation is None]
        # The one that knows most: its incarnation is that of all who have seen any.
        speaker = max(known, key=_knowledge)
        appends = tuple(
            Append(prefix, client.codec.rows(id, [waiter.part for waiter in together]))
            for prefix, together in streams.items()
        )
        trip.commit = commit = speaker.prepared(id=id, appends=appends)
        left = max(waiter.deadline for waiter in waiters) - self.place[0].time()
        result = await speaker.send(commit, within=left)
        for handle, head in known.items():
            handle.committed(commit, result, head)
        rows = {append.prefix: append.values for append in appends}
        behind = dict.fromkeys(streams, 0)
        positions: list[Position] = []
        for waiter in waiters:
            prefix = waiter.prefix
            behind[prefix] += waiter.part.count
            ordinal, index = last_entry(client.codec, rows[prefix], behind[prefix])
            positions.append(position_of(append_key(prefix, result.version, ordinal), index))
        trip.positions = positions
        await speaker.extend(commit, result)
        return positions

    def _board(self) -> list[Waiter]:
        """Take the first of those that wait, as many as go together."""
        now = self.place[0].time()
        limits = self.limits
        room = min(MERGED_BYTES, limits.max_commit_bytes, limits.max_item_bytes)
        incarnation: bytes | None = None
        prefixes: set[bytes] = set()
        size = 0
        taken: list[Waiter] = []
        for number, waiter in enumerate(self.waiting):
            if waiter.answer.done():
                continue
            if waiter.deadline <= now:
                waiter.expire()
                continue
            seen = waiter.handle.incarnation
            size += waiter.size
            prefixes.add(waiter.prefix)
            rows = len(prefixes) + 2 * size // ROW_BYTES
            if taken and (
                size > room
                or rows > limits.max_commit_items
                or (seen is not None and incarnation not in (None, seen))
            ):
                del self.waiting[:number]
                return taken
            incarnation = incarnation or seen
            taken.append(waiter)
        self.waiting.clear()
        return taken

    def _arrive(self, trip: Trip, task: asyncio.Task[list[Position]]) -> None:
        """Tell those that were sent what became of it."""
        self.tasks.discard(task)
        if task.cancelled():
            for waiter in trip.waiters:
                waiter.answer.cancel()
        elif (error := task.exception()) is None:
            for waiter, position in zip(trip.waiters, task.result(), strict=True):
                waiter.give(position)
        else:
            again: list[Waiter] = []
            if isinstance(error, SessionDeleted) and len(trip.cold) < len(trip.waiters):
                # Nothing was written. It was not theirs: they go again, in their old place.
                again = [waiter for waiter in trip.cold if not waiter.answer.done()]
                for waiter in again:
                    waiter.trip = None
                self.waiting[:0] = again
            for waiter in trip.waiters:
                if waiter.trip is not None:
                    waiter.give(error)
        self.leave()


def _knowledge(handle: Handle) -> int:
    """How late a version a handle has seen; -1: not even an incarnation."""
    if handle.incarnation is None:
        return -1
    return handle.head.version if handle.head is not None else 0


async def append(handle: Handle, prefix: bytes, entries: Sequence[object]) -> Position:
    """Append entries to a stream, alone or with others; the position of the last.

    Raises ``InvalidValue`` and ``TooLarge`` before anything is sent, and what a commit raises.
    """
    client = handle.client
    lanes, place = client.lanes, (running_loop(), handle.key)
    while place in lanes:
        if handle.stale:
            await handle.revalidate()
            continue
        lane = lanes[place]
        if lane is None:
            lane = lanes[place] = Lane(client, place)
        return await lane.wait(handle, prefix, client.codec.encode_entries(entries))
    lanes[place] = None
    try:
        id = new_id()
        rows = client.codec.pack(handle.key, id, entries)
        result = await handle.commit(id=id, appends=(Append(prefix, rows),))
    finally:
        if (lane := lanes.pop(place, None)) is not None:
            lanes[place] = lane  # others wait
            lane.leave()
    ordinal, index = last_entry(client.codec, rows, len(entries))
    return position_of(append_key(prefix, result.version, ordinal), index)


def last_entry(codec: Codec, rows: Sequence[bytes], count: int) -> tuple[int, int]:
    """Where the last of the first ``count`` entries stands that a commit appends as ``rows``:
    the number of its row, and its index there."""
    index = count - 1
    ordinal = 0
    if len(rows) > 1:
        # The later fragments of a long entry hold none of their own.
        while index >= (held := codec.row_count(rows[ordinal])):
            index -= held
            ordinal += 1
    return ordinal, index
