"""Who gets a session's lease next.

Those who wait for it stand in a queue, the item ``x`` NUL ``q``. A waiter puts a ticket into
it, renews that while it waits, and takes the lease once that is free, or has lapsed, and no
live ticket stands before its own. Tickets lapse as leases do: a waiter that has died holds up
the others for as long as its ticket has left, and no longer.

Every commit of a waiter requires the lease and the queue to be as it has seen them: of all who
judge the same state one wins, and the others look again.
"""

import asyncio
import math
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from perdure.client import new_id
from perdure.errors import (
    Conflict,
    InvalidKey,
    LeaseHeld,
    OutcomeUnknown,
    PerdureError,
    SessionDeleted,
    Unsupported,
)
from perdure.handle import Handle
from perdure.layout import LEASE, LEASE_QUEUE
from perdure.lease import RELEASE_SECONDS, Holding, Lease, lease_of, lease_put, opened
from perdure.request import Stored
from perdure.retry import retrying
from perdure.types import Committed, Condition, Get, Head, Item, Read

TICKET_SECONDS = 10.0
"""How long a ticket lasts at most; never longer than the lease that its owner wants."""

SHORTEST_LEASE, LONGEST_LEASE = 0.01, 86_400.0
"""In seconds. A lease is renewed while its turn lasts: it only has to outlast a pause."""

WAIT_SECONDS = 20.0
"""One wait: below the idle limits of common proxies and load balancers."""

PAUSE_SECONDS = 0.002
"""The more stand before a waiter, the later it looks what a change has been: for each of them
so long. Else every change would make all of them read."""

LOOK: tuple[Read, ...] = (Get(LEASE), Get(LEASE_QUEUE))


class Ticket(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A place in the queue."""

    waiter: bytes
    until: int
    """In ms, by the backend's clock."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Who has the lease and who waits for it, at one moment."""

    head: Head | None
    now: int
    margin: int
    """By how many ms ``now`` may be wrong."""
    version: int
    """Of the lease's item; 0: there is none."""
    holder: bytes | None
    until: int
    queue_version: int
    tickets: tuple[Ticket, ...]

    def lapsed(self, until: int) -> bool:
        """Whether it is certain that a time has passed."""
        return until + self.margin <= self.now

    def others(self, me: bytes) -> tuple[Ticket, ...]:
        """The live tickets but that of ``me``."""
        return tuple(t for t in self.tickets if t.waiter != me and not self.lapsed(t.until))

    def before(self, me: bytes) -> tuple[Ticket, ...]:
        """The live tickets before that of ``me``: all, if it has none that lives."""
        live = [t for t in self.tickets if not self.lapsed(t.until)]
        places = [n for n, t in enumerate(live) if t.waiter == me]
        return tuple(live[: places[0]] if places else live)

    def blocked_until(self, me: bytes) -> int:
        """When ``me`` may take the lease if nobody does anything; 0: now."""
        held = self.holder is not None and not self.lapsed(self.until)
        times = [t.until for t in self.before(me)] + ([self.until] if held else [])
        return max(times, default=0) + self.margin if times else 0


def check_seconds(name: str, value: object, least: float, most: float) -> float:
    """Raise ``InvalidKey`` unless ``value`` is a number of seconds in that range."""
    if not (isinstance(value, int | float) and least <= value <= most):
        raise InvalidKey(
            f"{name} must be a number of seconds from {least:g} to {most:g}, not {value!r}"
        )
    return float(value)


class Leases:
    """The leases that one handle takes, one turn after the other."""

    __slots__ = ("_handle", "_last")

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._last: Holding | None = None

    async def acquire(self, wait: float, seconds: float) -> tuple[Holding, Head | None]:
        """The lease, and the session's head as of then, which this may have created.

        Two round trips, or one if nobody has taken the lease since this handle gave it back;
        more if it has to wait. Raises ``LeaseHeld``, ``SessionDeleted``, ``Unsupported``.
        """
        last = self._last
        if last is not None and last.task is asyncio.current_task():
            raise Unsupported(
                "this task is in an exclusive turn of this session already: use that one"
            )
        attempt = Attempt(self._handle, wait, seconds)
        try:
            holding, head = await attempt.run(self._remembered())
        except BaseException:
            await attempt.give_up()
            raise
        self._last = holding
        return holding, head

    def _remembered(self) -> State | None:
        """The state that this handle has left behind when it gave the lease back."""
        handle, last = self._handle, self._last
        now = handle.client.now()
        if last is None or last.held or last.incarnation != handle.incarnation or now is None:
            return None
        if last.queue_version is None:
            return None
        return State(
            head=handle.head,
            now=now,
            margin=0,
            version=last.version,
            holder=None,
            until=0,
            queue_version=last.queue_version,
            tickets=(),
        )


class Attempt:
    """One try to get the lease."""

    def __init__(self, handle: Handle, wait: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._handle = handle
        self._time = loop.time
        self._deadline = loop.time() + wait
        self._seconds = seconds
        self._me = new_id()
        self._ticket = min(seconds, TICKET_SECONDS)
        self._ticket_due = -math.inf
        """When to renew the ticket, by the loop's clock."""
        self._incarnation: bytes | None = None
        """That of the session as first seen."""
        self._has_written = False

    async def run(self, state: State | None) -> tuple[Holding, Head | None]:
        """Wait for the lease and take it, from a state that may be outdated."""
        me = self._me
        state = state or await self._look()
        while state.holder != me:
            blocked_until = state.blocked_until(me)
            left = self._deadline - self._time()
            if not blocked_until:
                until = state.now + round(self._seconds * 1000)
                state = await self._write(state, me, until, state.others(me))
            elif left <= 0:
                raise self._refusal(state)
            elif self._time() >= self._ticket_due or all(t.waiter != me for t in state.tickets):
                state = await self._stand(state, min(self._ticket, left))
            else:
                timeout = min(
                    left,
                    self._ticket_due - self._time(),
                    (blocked_until + 1 - state.now) / 1000,
                    WAIT_SECONDS,
                )
                state = await self._change(state, max(timeout, 0.001))
        assert self._incarnation is not None
        lease = Lease(state.version, state.until)
        queue_version = None if state.tickets else state.queue_version
        return Holding(
            self._handle, me, self._incarnation, lease, self._seconds, queue_version
        ), state.head

    async def _stand(self, state: State, seconds: float) -> State:
        """Stand in the queue for so long: at the end, or still in the same place."""
        me = self._me
        ticket = Ticket(me, state.now + round(seconds * 1000))
        before = state.before(me)
        behind = state.others(me)[len(before) :]
        # One that lasts as long as the waiter waits need not be renewed.
        due = self._time() + seconds / 3 if seconds == self._ticket else math.inf
        state = await self._write(state, state.holder, state.until, (*before, ticket, *behind))
        if ticket in state.tickets:
            self._ticket_due = due
        return state

    async def give_up(self) -> None:
        """Take back what was written, as well as can be: it lapses by itself."""
        if not self._has_written:
            return
        me = self._me
        with suppress(PerdureError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                state = await self._look()
                while state.holder == me or any(t.waiter == me for t in state.tickets):
                    holder = None if state.holder == me else state.holder
                    state = await self._write(state, holder, state.until, state.others(me))

    def _refusal(self, state: State) -> LeaseHeld:
        lasting = max(0, state.until - state.now) / 1000 if state.holder else 0.0
        waiting = len(state.before(self._me))
        return LeaseHeld(
            f"session {self._handle.key.id!r} is in another exclusive turn, whose lease lapses "
            f"in {lasting:.1f} s unless it is renewed ({waiting} waiting before this one); "
            "nothing was written",
            expires_at=state.until if state.holder else None,
            waiting=waiting,
        )

    # Reading and writing

    async def _look(self) -> State:
        requests = [Stored(read) for read in LOOK]
        view, (lease, queue) = await self._handle.read(requests)
        return self._state(view.head, view.now, lease, queue)

    async def _change(self, state: State, timeout: float) -> State:
        """The state once the session has changed, or after ``timeout`` seconds."""
        client, key = self._handle.client, self._handle.key
        backend = client.backend
        await retrying(
            lambda: backend.wait(key, after=state.head, timeout=timeout),
            timeout + client.deadline,
        )
        await asyncio.sleep(PAUSE_SECONDS * len(state.before(self._me)))
        return await self._look()

    def _state(
        self, head: Head | None, now: int, lease: Sequence[Item], queue: Sequence[Item]
    ) -> State:
        if self._incarnation is not None:
            self._check_alive(head)
        elif head is not None:
            self._incarnation = head.incarnation
        handle = self._handle
        holder, until = lease_of(handle, lease[0] if lease else None)
        tickets: list[Ticket] = []
        if queue:
            tickets = opened(handle, queue[0], list[Ticket])
        return State(
            head=head,
            now=now,
            margin=handle.client.backend.capabilities.clock_error,
            version=lease[0].version if lease else 0,
            holder=holder,
            until=until,
            queue_version=queue[0].version if queue else 0,
            tickets=tuple(tickets),
        )

    def _check_alive(self, head: Head | None) -> None:
        if head is None or head.incarnation != self._incarnation:
            raise SessionDeleted(
                "the session was deleted or has expired while an exclusive turn waited for "
                "it; nothing was written",
                head=head,
            )

    async def _write(
        self, state: State, holder: bytes | None, until: int, tickets: tuple[Ticket, ...]
    ) -> State:
        """Make that the state, if nobody has changed it; the state there is then."""
        handle = self._handle
        puts: list[tuple[bytes, bytes]] = []
        if holder != state.holder:
            puts.append(lease_put(handle, holder, until))
        if tickets != state.tickets:
            row = handle.client.codec.seal(handle.key, tickets, path="queue")
            puts.append((LEASE_QUEUE, row))
        if self._incarnation is not None and handle.incarnation != self._incarnation:
            self._check_alive(handle.head)  # seen by another task's read
        self._has_written = True
        lacking, known = handle.lacking() if holder == self._me else None, handle.head
        try:
            result = await _to_the_end(
                handle.commit(
                    puts=tuple(puts),
                    conditions=(
                        Condition(LEASE, state.version),
                        Condition(LEASE_QUEUE, state.queue_version),
                    ),
                    returning=LOOK if lacking is None else (*LOOK, lacking.compile()),
                )
            )
        except Conflict as conflict:
            if not conflict.rows:
                return await self._look()
            handle.note(conflict.head, known)
            lease, queue = (rows.items for rows in conflict.rows[:2])
            return self._state(conflict.head, conflict.now, lease, queue)
        except OutcomeUnknown:
            return await self._look()
        except SessionDeleted:
            if self._incarnation is not None:
                raise
            return await self._look()  # what this handle remembered is gone
        head = result.head
        if (
            result.replayed
            or head is None
            or head.incarnation != result.incarnation
            or head.version != result.version  # what it returned is older than this head
        ):
            return await self._look()
        self._incarnation = result.incarnation
        if lacking is not None and result.rows:
            handle.caught_up(lacking, result, result.rows[2])
        return msgspec.structs.replace(
            state,
            head=head,
            now=result.now,
            margin=handle.client.backend.capabilities.clock_error,
            version=result.version if holder != state.holder else state.version,
            holder=holder,
            until=until,
            queue_version=result.version if tickets != state.tickets else state.queue_version,
            tickets=tickets,
        )


async def _to_the_end(commit: Coroutine[Any, Any, Committed]) -> Committed:
    """Await a commit that a cancellation does not stop half-way, unless it is repeated.

    It might be made all the same after it has been taken back, and be in everybody's way then.
    """
    sending = asyncio.create_task(commit)
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        sending.add_done_callback(_unheeded)
        try:
            await asyncio.wait((sending,), timeout=RELEASE_SECONDS)
        finally:
            sending.cancel()
        raise


def _unheeded(task: asyncio.Task[Committed]) -> None:
    """If it has failed, nobody need know."""
    if not task.cancelled():
        task.exception()
