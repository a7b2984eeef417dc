"""Sliding expiry: a session that nobody writes to expires.

A commit that creates a session gives it its expiry. Others carry none: what the acknowledgement
shows tells whether the session would expire too early, and if so a second, small commit extends
it, on the condition that nobody has changed anything meanwhile. So no write undoes an expiry
that somebody else has set, or that a session is to last for ever.
"""

import time

import msgspec

from perdure.client import Client, digest_of, new_id
from perdure.errors import Conflict, PerdureError, SessionDeleted
from perdure.settings import milliseconds
from perdure.types import At, Commit, Committed, Expect, Head, SessionKey

SIXTEENTH = 16


def idle_milliseconds(seconds: object) -> int:
    """An idle expiry given in seconds; 0: none. Raises :class:`InvalidKey`."""
    return 0 if seconds == 0 else milliseconds(seconds, "idle_expiry")


def lifetime(idle: int) -> int:
    """How long a session lives from a write on that sets its expiry, in ms: a sixteenth more,
    during which writes need not set it again and still leave ``idle``."""
    return idle + max(1, idle // SIXTEENTH)


async def send(
    client: Client,
    key: SessionKey,
    commit: Commit,
    idle: int,
    *,
    absent: bool,
    within: float | None = None,
) -> Committed:
    """Have a commit applied that sets no expiry; one that creates the session sets it.

    ``absent``: its sender has looked, and seen none. Otherwise, where it names no incarnation,
    this looks.
    """
    if commit.incarnation is not None or commit.expect not in (Expect.ANY, Expect.ABSENT):
        return await client.commit(key, commit, within=within)
    creating = msgspec.structs.replace(commit, expect=Expect.ABSENT, expires_in=lifetime(idle))
    if commit.expect is Expect.ABSENT:
        return await client.commit(key, creating, within=within)
    until = time.monotonic() + (client.deadline if within is None else within)
    head = None if absent else (await client.snapshot(key)).head
    while True:
        attempt = creating
        if head is not None:  # this one, or it would be created without expiry
            attempt = msgspec.structs.replace(
                commit, incarnation=head.incarnation, base=head.version
            )
        try:
            left = max(0.001, until - time.monotonic())
            return await client.commit(key, attempt, within=left)
        except Conflict as conflict:
            if attempt is not creating or conflict.head is None:
                raise
            head = conflict.head
        except SessionDeleted as gone:
            if attempt is creating or until <= time.monotonic():
                raise
            head = gone.head


async def extend(
    client: Client, key: SessionKey, result: Committed, idle: int
) -> tuple[Commit, Committed] | None:
    """Extend the life of a session that was just written to, if it would expire too early.

    What was written is written: that this fails is no error, the next write tries again. So it
    does where others write so fast that nothing comes between, for as long as a call may take.
    """
    until = time.monotonic() + client.deadline
    head, now = result.head, result.now
    while (
        (left := until - time.monotonic()) > 0
        and head is not None
        and head.incarnation == result.incarnation
        and head.expires_at is not None
        and head.expires_at < now + idle
    ):
        extension = _extension(client, head, idle)
        try:
            return extension, await client.commit(key, extension, within=left)
        except Conflict as conflict:
            head, now = conflict.head, conflict.now
        except PerdureError:
            return None
    return None


def _extension(client: Client, head: Head, idle: int) -> Commit:
    settings = (None, None, None, lifetime(idle))
    return Commit(
        id=new_id(),
        digest=digest_of((), (), (), (), settings),
        new_incarnation=head.incarnation,
        expect=At(head.version, head.tip),
        incarnation=head.incarnation,
        base=head.version,
        seen=client.seen,
        expires_in=lifetime(idle),
    )
