"""The one retry policy: deadlines, pauses, and exact resends.

A commit is built once and sent as often as it takes, always the same one, so that it is
applied at most once whatever happens to its replies.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from perdure.backend import Backend
from perdure.codec import Codec
from perdure.errors import (
    Corrupt,
    FormatTooNew,
    OutcomeUnknown,
    SessionDeleted,
    StoreClosed,
    Unavailable,
    Unsupported,
)
from perdure.layout import rows_stop, successor
from perdure.loops import running_loop
from perdure.types import Commit, Committed, Head, Scan, SessionKey, appended_version

R = TypeVar("R")

REFUSALS = (StoreClosed, Corrupt, FormatTooNew, Unsupported)
"""Whatever is asked: they say nothing of a commit that was sent before."""

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0

CLOCK_STEP = 1000
"""By how many ms a backend's clock may be set forward while a commit is being resent."""


class Deadline:
    """When to give up, and how long to pause until the next try."""

    __slots__ = ("_loop", "_pause", "when")

    def __init__(self, seconds: float) -> None:
        self._loop = running_loop()
        self.when = self._loop.time() + seconds
        self._pause = FIRST_PAUSE

    async def pause(self, at_least: float = 0.0) -> bool:
        """Sleep a random while, longer each time; False if there is no time left for it.

        Full jitter, as in Brooker, "Exponential Backoff And Jitter" (AWS, 2015), after
        ``at_least`` seconds.
        """
        pause = at_least + random.uniform(0, self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self._loop.time() + pause >= self.when:
            return False
        await asyncio.sleep(pause)
        return True


async def retrying(call: Callable[[], Awaitable[R]], within: float | Deadline) -> R:
    """Repeat a call that may be repeated until it is answered. Raises ``Unavailable``."""
    deadline = within if isinstance(within, Deadline) else Deadline(within)
    last: Unavailable | OutcomeUnknown | None = None
    while True:
        try:
            async with asyncio.timeout_at(deadline.when):
                return await call()
        except TimeoutError:
            reason = str(last) if last else "no answer in time; nothing was changed"
            raise Unavailable(reason) from last
        except (Unavailable, OutcomeUnknown) as error:
            lasting, after = _patience(error)
            if lasting or not await deadline.pause(after):
                raise Unavailable(str(error), lasting=lasting, retry_after=after) from error
            last = error


async def send(
    backend: Backend,
    codec: Codec,
    key: SessionKey,
    commit: Commit,
    within: float | Deadline,
) -> Committed:
    """Send a commit until its outcome is known.

    Raises what the backend refuses with, ``Unavailable`` (never applied), or, when the time
    is up first, ``OutcomeUnknown`` with the commit to resend.
    """
    deadline = within if isinstance(within, Deadline) else Deadline(within)
    # How long ago a commit was first sent that is settled now, nobody knows.
    sent_at = None if commit.resend else time.monotonic()
    while True:
        try:
            async with asyncio.timeout_at(deadline.when):
                return await backend.commit(key, commit)
        except TimeoutError:
            raise unknown(commit, "no answer in time") from None
        except REFUSALS as error:
            if commit.resend:  # an earlier sending may have been applied
                raise unknown(commit, str(error)) from error
            raise
        except Unavailable as error:
            if error.lasting or not await deadline.pause(error.retry_after):
                if commit.resend:  # an earlier sending may have arrived
                    raise unknown(commit, str(error)) from error
                raise
        except OutcomeUnknown as error:
            if error.forgotten and not commit.resend:
                # Sent once and answered: it is not applied. The backend could not tell it from
                # one that its resend has overtaken; sent as of now, it can.
                snapshot = await retrying(lambda: backend.read(key), deadline)
                if not await deadline.pause():
                    raise Unavailable(f"{error}; nothing was written") from error
                head = snapshot.head
                commit = msgspec.structs.replace(
                    commit,
                    incarnation=commit.incarnation or (head.incarnation if head else None),
                    base=head.version if head else 0,
                    seen=snapshot.now,
                )
                continue
            commit = msgspec.structs.replace(commit, resend=True)
            if error.forgotten:
                try:
                    settled = await retrying(
                        lambda commit=commit: _settle(backend, codec, key, commit, sent_at),
                        deadline,
                    )
                except (Unavailable, *REFUSALS) as cause:
                    raise unknown(commit, str(cause)) from cause
                if isinstance(settled, Committed):
                    return settled
                if settled is None or not await deadline.pause():
                    raise unknown(commit, str(error), forgotten=True) from error
                commit = msgspec.structs.replace(
                    commit, incarnation=settled.incarnation, base=settled.version
                )
            elif not await deadline.pause():
                raise unknown(commit, str(error)) from error


async def send_delete(call: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Repeat a delete, which carries its id, until its outcome is known."""
    deadline = Deadline(seconds)
    unknown = False
    while True:
        try:
            async with asyncio.timeout_at(deadline.when):
                return await call()
        except TimeoutError:
            raise OutcomeUnknown(f"no answer to a delete within {seconds:g} s") from None
        except REFUSALS as error:
            if unknown:
                raise OutcomeUnknown(f"a delete was not acknowledged: {error}") from error
            raise
        except (Unavailable, OutcomeUnknown) as error:
            unknown = unknown or isinstance(error, OutcomeUnknown)
            lasting, after = _patience(error)
            if lasting or not await deadline.pause(after):
                if unknown:
                    raise OutcomeUnknown(f"a delete was not acknowledged: {error}") from error
                raise


def _patience(error: Unavailable | OutcomeUnknown) -> tuple[bool, float]:
    """Whether a repeat is of no use, and for how many seconds the backend wants none."""
    if isinstance(error, Unavailable):
        return error.lasting, error.retry_after
    return False, 0.0


async def _settle(
    backend: Backend,
    codec: Codec,
    key: SessionKey,
    commit: Commit,
    sent_at: float | None,
) -> Committed | Head | None:
    """Learn from the log, whose rows carry their commit's id, what became of a commit.

    The acknowledgement if it was applied; the head to resend on if it was not; ``None`` if
    the log cannot tell: rows were deleted, or the session was made anew, since it was sent.
    Raises ``SessionDeleted`` if it was not applied and names a session that was gone by then.
    """
    snapshot = await backend.read(key)
    head = snapshot.head
    if head is None:
        return None
    if head.tip == commit.id:
        return Committed(
            version=head.version,
            incarnation=head.incarnation,
            head=head,
            now=snapshot.now,
            replayed=True,
        )
    # When the commit was first sent, by the backend's clock, or somewhat before.
    sent = 0
    if sent_at is not None:
        # Counted after the backend has answered, so that the way there and back is in it.
        age = int((time.monotonic() - sent_at) * 1000)
        sent = snapshot.now - age - backend.capabilities.clock_error - CLOCK_STEP
    if head.updated_at < sent:  # nobody has committed anything since
        if commit.incarnation not in (None, head.incarnation):
            raise SessionDeleted(
                "the session was deleted or has expired; nothing was written", head=head
            )
        return head
    if not commit.appends:
        return None
    base = commit.base if commit.incarnation else 0
    start = prefix = commit.appends[0].prefix
    while True:
        snapshot = await backend.read(key, Scan(start, rows_stop(prefix), since=base))
        head = snapshot.head
        if head is None:
            return None
        for item in snapshot.rows[0].items:
            if codec.row_commit_id(item.value) == commit.id:
                return Committed(
                    version=appended_version(item.key),
                    incarnation=head.incarnation,
                    head=head,
                    now=snapshot.now,
                    replayed=True,
                )
        if not snapshot.rows[0].more:
            break
        start = successor(snapshot.rows[0].items[-1].key)
    if head.last_delete > base:
        return None
    if commit.incarnation is not None:
        return head if commit.incarnation == head.incarnation else None
    # The writer knew no incarnation: the log speaks for it if it is older than the sending.
    return head if head.created_at < sent else None


def unknown(commit: Commit, reason: str, *, forgotten: bool = False) -> OutcomeUnknown:
    """What to raise if a commit was sent and nobody can say what became of it."""
    return OutcomeUnknown(
        f"a commit was sent and not acknowledged ({reason})"
        + ("" if forgotten else "; resend it to settle"),
        commit=msgspec.structs.replace(commit, resend=True),
        forgotten=forgotten,
    )
