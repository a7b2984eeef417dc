"""The pure half of a commit: what it requires of a session, and the head that it makes.

For backends that decide in Python while they hold the session still. A backend that decides
inside its engine (a script, one SQL statement) states the same rules there.
"""

from collections.abc import Callable

from perdure.errors import Conflict, SessionDeleted
from perdure.types import NEVER, At, Commit, Expect, Head, Restored


def check(head: Head | None, commit: Commit, version_of: Callable[[bytes], int]) -> None:
    """Steps 3 to 5 of :meth:`Backend.commit`; ``head`` is that of the session present.

    ``version_of`` gives the version of an item, 0 if there is none. Raises ``Conflict`` or
    ``SessionDeleted`` without ``now`` and ``rows``; returns if the commit may be applied.
    """
    if commit.incarnation is not None and (
        head is None or head.incarnation != commit.incarnation
    ):
        raise SessionDeleted(
            "the session was deleted or has expired; nothing was written", head=head
        )
    check_expect(head, commit.expect)
    for condition in commit.conditions:
        if condition.key is None:
            actual = head.meta_version if head else 0
        else:
            actual = version_of(condition.key) if head else 0
        if actual != condition.version:
            raise Conflict(
                f"what this writer requires to be at version {condition.version} is at version "
                f"{actual} (0: absent); nothing was written",
                head=head,
            )


def check_expect(head: Head | None, expect: Expect | At) -> None:
    """Raise ``Conflict`` unless the session is as expected."""
    if expect is Expect.ANY:
        return
    if expect is Expect.ABSENT:
        if head is not None:
            raise Conflict("the session exists already; nothing was written", head=head)
    elif head is None:
        raise Conflict("there is no such session; nothing was written", head=None)
    elif isinstance(expect, At) and (head.version, head.tip) != (expect.version, expect.tip):
        raise Conflict(
            f"the session is at version {head.version}, not at version {expect.version} as "
            "this writer has seen it; nothing was written",
            head=head,
        )


def next_head(head: Head | None, commit: Commit, now: int) -> Head:
    """The head after ``commit``, applied at ``now`` to the session that has ``head``."""
    made = commit.restored or Restored(head.version + 1 if head else 1, now, now)
    version = made.version
    if commit.expires_in is not None:
        expires_at = now + commit.expires_in
    elif commit.expires_at is not None:
        expires_at = None if commit.expires_at == NEVER else commit.expires_at
    else:
        expires_at = head.expires_at if head else None
    return Head(
        version=version,
        incarnation=head.incarnation if head else commit.new_incarnation,
        tip=commit.id,
        last_delete=version if commit.deletes else (head.last_delete if head else 0),
        created_at=head.created_at if head else made.created_at,
        updated_at=made.updated_at,
        expires_at=expires_at,
        meta=commit.meta if commit.meta is not None else (head.meta if head else b""),
        meta_version=version if commit.meta is not None else (head.meta_version if head else 0),
        labels=commit.labels if commit.labels is not None else (head.labels if head else ()),
    )
