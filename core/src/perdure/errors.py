"""One small tree of errors. Every one says whether anything was applied."""

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.types import Commit, Head, Rows


class Outcome(Enum):
    """What became of the operation that raised."""

    APPLIED = "applied"
    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"


class PerdureError(Exception):
    """Base of all errors raised by perdure."""

    outcome: Outcome = Outcome.NOT_APPLIED
    """Whether the operation changed anything."""


class Conflict(PerdureError):
    """The session is not as the writer required. Nothing was written.

    ``head`` is the session's head now (``None``: there is no session) and ``rows`` what the
    commit's ``returning`` reads found instead. Read, decide again, and commit again.
    """

    def __init__(
        self,
        message: str,
        *,
        head: "Head | None" = None,
        now: int = 0,
        rows: "tuple[Rows, ...]" = (),
    ) -> None:
        super().__init__(message)
        self.head = head
        self.now = now
        self.rows = rows


class SessionDeleted(PerdureError):
    """The incarnation that the handle has seen is gone: deleted, expired, or replaced.

    Nothing was written, unless ``outcome`` says that it was, and the session went right after.
    ``head`` is that of its successor, if there is one. Open the session
    anew (``store.session(id)``) to go on with the successor or to create one.
    """

    def __init__(self, message: str, *, head: "Head | None" = None) -> None:
        super().__init__(message)
        self.head = head


class LeaseHeld(PerdureError):
    """Another exclusive turn has the session, and still had it when ``wait`` was over.

    Nothing was written. ``expires_at``: when its lease lapses if it is not renewed, in ms by
    the backend's clock (``None``: it is free, and due to another one who waits). ``waiting``:
    how many stood before this one.
    """

    def __init__(
        self, message: str, *, expires_at: int | None = None, waiting: int = 0
    ) -> None:
        super().__init__(message)
        self.expires_at = expires_at
        self.waiting = waiting


class LeaseLost(Conflict):
    """The lease of an exclusive turn had lapsed, and another turn has taken it.

    Nothing was written. What the turn has read may be outdated: begin another.
    """


class CommitIdReused(PerdureError):
    """A commit id was used before for other content. Nothing was written by this one."""


class StageMissing(PerdureError):
    """A commit names a stage that does not exist (never staged, adopted, or swept).

    Nothing was written. Stage the parts again under a new id and commit again.
    """


class TooLarge(PerdureError):
    """A value, key or commit exceeds a limit. Nothing was written."""


class Unsupported(PerdureError):
    """The backend cannot do this, and perdure does not pretend. Nothing was written."""


class InvalidKey(PerdureError, ValueError):
    """A tenant, kind, session id, cell key or label that cannot name anything; or a position,
    count or time that cannot be one."""


class InvalidURL(PerdureError, ValueError):
    """A store URL that cannot be understood. Nothing was opened."""


class InvalidValue(PerdureError, TypeError):
    """A value that cannot be stored without loss. Nothing was written.

    ``path`` says where it sits, as in ``entries[3].content[0].data``.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class Unavailable(PerdureError):
    """The backend could not be reached or refused to work. Nothing was applied; try again.

    ``lasting``: not before somebody has mended something, be it a path, a permission or a full
    disk. The store does not repeat what met such an error. ``retry_after``: for so many seconds
    the backend asks to be left alone, and the store waits at least as long.
    """

    def __init__(
        self, message: str, *, lasting: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.lasting = lasting
        self.retry_after = retry_after


class StoreClosed(PerdureError):
    """The store was closed, or belongs to the process that this one was forked from.

    Nothing was applied. Make a new ``Store`` in this process.
    """


class OutcomeUnknown(PerdureError):
    """A commit was sent and its acknowledgement never came: it may or may not be applied.

    ``commit`` is frozen as it was sent: resending it (``Session.resend``) settles the matter
    and never applies it twice. It is ``None`` where the operation was a deletion.
    ``forgotten`` says that the backend did answer, and that too many commits have followed for
    it to remember whether this one was applied: another resend would say the same.
    """

    outcome = Outcome.UNKNOWN

    def __init__(
        self, message: str, *, commit: "Commit | None" = None, forgotten: bool = False
    ) -> None:
        super().__init__(message)
        self.commit = commit
        self.forgotten = forgotten


class Corrupt(PerdureError):
    """Stored bytes are not what perdure wrote. Nothing was changed; restore from a copy."""


class Undecryptable(Corrupt):
    """A stored row cannot be opened with the keys there are, or is not where it was written.

    Nothing was changed. ``missing_key`` is the id of the key that it takes, where that is all
    that is wrong. Else the row was altered, moved, put back, or written in plain, or a row
    before it is gone: restore from a copy.
    """

    def __init__(self, message: str, *, missing_key: str | None = None) -> None:
        super().__init__(message)
        self.missing_key = missing_key


class InvalidKeys(PerdureError, ValueError):
    """Encryption keys that cannot be used. The message never holds a key."""


class FormatTooNew(PerdureError):
    """The data was written by a newer perdure. Nothing was touched; upgrade this one."""


class BackendNotFound(PerdureError, LookupError):
    """No installed plugin serves the URL's scheme."""


class AttachmentNotFound(PerdureError, LookupError):
    """The session has no attachment of this digest (any more)."""


class PluginConflict(PerdureError):
    """Two installed plugins claim one scheme, or a plugin was built for another contract."""
