"""The lease of an exclusive turn: that it may write, and for how long nobody may take over.

A lease is an item like any other, ``x``. Who holds it has written it last, and every commit of
an exclusive turn requires that version of it: so nothing that a holder sends after another one
has taken over is applied, however long it was paused, and no clock is trusted for that. Time
decides only when others may take over: when nobody has renewed the lease before it lapsed.

The idea is that of sequencers in Chubby (Burrows, OSDI 2006, section 2.4) and of fencing tokens
(Kleppmann, "How to do distributed locking", 2016).
"""

import asyncio
import os
from contextlib import suppress
from typing import Any, Unpack

from perdure.background import keep_for_ever
from perdure.errors import (
    Conflict,
    LeaseLost,
    OutcomeUnknown,
    PerdureError,
    SessionDeleted,
    StoreClosed,
    Unavailable,
)
from perdure.handle import Change, Handle
from perdure.layout import LEASE
from perdure.types import Committed, Condition, Get, Head, Item

RELEASE_SECONDS = 2.0
"""For so long it is tried to give back what lapses by itself anyway."""


def lease_put(handle: Handle, holder: bytes | None, until: int) -> tuple[bytes, bytes]:
    """The lease as it is stored: who holds it and until when (ms); of nobody, nil."""
    value = None if holder is None else (holder, until)
    return LEASE, handle.client.codec.seal(handle.key, value, path="lease")


def lease_of(handle: Handle, item: Item | None) -> tuple[bytes | None, int]:
    """(holder, until) of a lease as it is stored."""
    value = opened(handle, item, tuple[bytes, int] | None) if item else None
    return value or (None, 0)


def opened(handle: Handle, item: Item, type: Any) -> Any:
    """What a row of the lease or its queue holds. Raises ``Corrupt``."""
    return handle.client.codec.open_own(handle.key, item, type)


class Lease:
    """What an exclusive turn has, as far as it knows. ``Turn.lease``."""

    __slots__ = ("expires_at", "fence", "lost")

    def __init__(self, fence: int, expires_at: int) -> None:
        self.fence = fence
        """A fencing token: larger than that of any turn before, for as long as the session is
        not deleted. Have what you write to elsewhere refuse a smaller one than it has seen."""
        self.expires_at = expires_at
        """When others may take over, unless it is renewed before, as it is each time that a
        third of it has passed; in ms, by the backend's clock."""
        self.lost = False
        """Whether another turn has taken over, or the session is gone. It shows when the lease
        is to be renewed and, at the latest, when the turn commits."""

    def __repr__(self) -> str:
        return f"Lease(fence={self.fence}, expires_at={self.expires_at}, lost={self.lost})"


class Holding:
    """The holder's side of a lease: renews it in the background, uses it, gives it back.

    If it cannot be renewed for so long that it lapses, others may take it; if none does, it is
    good again as soon as it is renewed.
    """

    def __init__(
        self,
        handle: Handle,
        holder: bytes,
        incarnation: bytes,
        lease: Lease,
        seconds: float,
        queue_version: int | None,
    ) -> None:
        self.lease = lease
        self.incarnation = incarnation
        self.version = lease.fence
        """Of the lease's item: what this holder has written last."""
        self.queue_version = queue_version
        """Of the queue's item, when the lease was taken. ``None``: others stood in it, whose
        turn is next, or nobody knows whether the lease was given back."""
        self.held = True
        """Whether it is ours to give back."""
        self.task = asyncio.current_task()
        """The one whose turn it is; ``None`` once that has ended."""
        self._handle = handle
        self._holder = holder
        self._seconds = seconds
        self._failure: PerdureError | None = None
        self._renewing = asyncio.create_task(self._keep())
        self._process = os.getpid()

    def check(self) -> None:
        """Raise ``LeaseLost`` or ``SessionDeleted`` if that is known already; ``StoreClosed``
        in a process that was forked meanwhile."""
        self._check_process()
        if self._failure is not None:
            raise self._failure

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StoreClosed(
                "this exclusive turn belongs to the process that this one was forked from"
            )

    def check_alive(self, head: Head | None) -> None:
        """Raise ``SessionDeleted`` unless the head seen is that of the session leased."""
        if head is None or head.incarnation != self.incarnation:
            raise SessionDeleted(
                "the session was deleted or has expired during an exclusive turn; nothing was "
                "written",
                head=head,
            )

    async def _keep(self) -> None:
        """Renew the lease for ever, or until it is lost."""
        third = self._seconds / 3
        while True:
            left = (self.lease.expires_at - self._now()) / 1000
            # Less than all of its time may be left already: it was counted from a time that
            # the backend told a while ago.
            await asyncio.sleep(min(max(0.0, left - 2 * third), third))
            try:
                await self._renew()
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(third)  # nothing is lost before another one has taken it
            except PerdureError as error:
                self._failure = error
                self.held, self.lease.lost = False, True
                return

    def _now(self) -> int:
        """The backend's time, which this client has been told."""
        return self._handle.client.now() or 0

    async def _renew(self) -> None:
        until = self._now() + round(self._seconds * 1000)
        await self._write(self._holder, until)
        self.lease.expires_at = until

    async def commit(self, **change: Unpack[Change]) -> Committed:
        """Send the turn's own commit, which gives the lease back. Atomic: one round trip.

        Raises ``LeaseLost`` or ``SessionDeleted`` if the lease was lost, ``Conflict`` if
        something else does not hold that the commit requires: nothing was written.
        """
        self._check_process()
        await self._stop_renewing()
        try:
            result = await self._write(None, 0, **change)
        except OutcomeUnknown:
            self.held = False  # were it given back, no resend could be applied any more
            self.queue_version = None
            raise
        except (LeaseLost, SessionDeleted):
            self.held, self.lease.lost = False, True
            raise
        self.held = False
        return result

    async def end(self) -> None:
        """The turn is over: give the lease back if its commit has not, as well as can be.

        Never fails: what is not given back lapses. In a process that was forked meanwhile it
        is the parent's to give back.
        """
        if os.getpid() != self._process:
            keep_for_ever(self._renewing)
            self.task = None
            return
        try:
            await self._stop_renewing()
            if self.held:
                with suppress(PerdureError, TimeoutError):
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await self.commit()
        finally:
            self._renewing.cancel()
            self.task = None

    async def _stop_renewing(self) -> None:
        """A renewal that is under way is cancelled, and was made or not: `_write` finds out."""
        self._renewing.cancel()
        await asyncio.wait((self._renewing,))
        if not self._renewing.cancelled():
            self._renewing.result()

    async def _write(
        self, holder: bytes | None, until: int, **change: Unpack[Change]
    ) -> Committed:
        """Write the lease's item, and what else there is, if the lease is ours."""
        handle = self._handle
        puts = (*change.get("puts", ()), lease_put(handle, holder, until))
        conditions = change.get("conditions", ())
        while True:
            if handle.incarnation != self.incarnation:  # seen by another task's read
                self.check_alive(handle.head)
            leased: Change = {
                **change,
                "puts": puts,
                "conditions": (*conditions, Condition(LEASE, self.version)),
                "returning": (Get(LEASE),),
            }
            try:
                result = await handle.commit(**leased)
            except Conflict as conflict:
                version = await self._own_version(conflict)
                if version is None:
                    raise LeaseLost(
                        "the lease lapsed, and another turn has taken it; nothing was written",
                        head=conflict.head,
                        now=conflict.now,
                    ) from conflict
                if version == self.version:
                    raise  # it requires something else that does not hold
                self.version = version  # a renewal was made whose reply was lost
            else:
                self.version = result.version
                return result

    async def _own_version(self, conflict: Conflict) -> int | None:
        """The version of the lease's item after a conflict; ``None`` if it is not ours."""
        handle = self._handle
        rows = conflict.rows
        if not rows:  # the backend does not say
            rows = (await handle.client.snapshot(handle.key, Get(LEASE))).rows
        item = rows[0].items[0] if rows[0].items else None
        holder, _ = lease_of(handle, item)
        return item.version if item and holder == self._holder else None
