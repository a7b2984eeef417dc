"""One session key as the contract describes it, made of dicts: what a backend must equal.

Written from the docstrings of ``perdure.backend`` and ``perdure.types`` alone, with nothing of
the code that backends share, so that a mistake there shows as a difference. Slow and plain.
"""

import msgspec

from perdure.backend import REMEMBERED_COMMITS
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    PerdureError,
    SessionDeleted,
    StageMissing,
)
from perdure.types import (
    NEVER,
    At,
    Commit,
    Expect,
    Get,
    Head,
    Item,
    KeyRange,
    Read,
    Rows,
    append_key,
)


class Used(msgspec.Struct, frozen=True):
    """An id that was used."""

    digest: bytes | None
    """``None``: by a deletion."""
    incarnation: bytes
    version: int


class Refused(msgspec.Struct, frozen=True):
    """The call raises this and changes nothing."""

    error: type[PerdureError]


class Replayed(msgspec.Struct, frozen=True):
    """The call returns the first result and changes nothing."""

    version: int
    incarnation: bytes


class Applied(msgspec.Struct, frozen=True):
    """The call changes the session, as :meth:`Model.apply` does."""


Outcome = Refused | Replayed | Applied


class Model:
    """What one key holds. Times are the caller's; absent sessions have ``head is None``."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.items: dict[bytes, Item] = {}
        self.stages: dict[tuple[bytes, bytes], dict[bytes, bytes]] = {}
        self.used: dict[bytes, Used] = {}
        self.lives: dict[bytes, int] = {}
        """The last version of every incarnation that there has been."""
        self.firsts: dict[bytes, int] = {}
        """The version that each began at, or was restored to last."""
        self.resent = False
        """Whether a commit with ``resend`` was ever applied."""

    def tell(self, now: int) -> None:
        """Let it be ``now``: a session that has expired is gone, with its items and stages."""
        head = self.head
        if head is not None and head.expires_at is not None and head.expires_at <= now:
            self.clear(head.incarnation)

    def clear(self, incarnation: bytes) -> None:
        """Forget a session. What is staged for its successor stays."""
        self.head = None
        self.items = {}
        for name in [name for name in self.stages if name[0] == incarnation]:
            del self.stages[name]

    # Commits

    def outcomes(self, commit: Commit) -> tuple[Outcome, ...]:
        """What a commit may lead to: more than one only where the contract leaves a choice."""
        used = self.used.get(commit.id)
        if used is None:
            outcome = self.judge(commit)
        elif used.digest == commit.digest:
            outcome = Replayed(used.version, used.incarnation)
        else:
            outcome = Refused(CommitIdReused)
        if used is not None and (used.digest is None or self.remembers(used)):
            return (outcome,)
        may_be_repeated = commit.resend or self.resent
        if may_be_repeated and not self.remembers_since(commit.incarnation, commit.base):
            return (Refused(OutcomeUnknown), outcome)
        return (outcome,)

    def remembers(self, used: Used) -> bool:
        """Whether a backend must know this id still."""
        return used.version > max(
            self.lives[used.incarnation] - REMEMBERED_COMMITS,
            self.firsts[used.incarnation] - 1,
        )

    def remembers_since(self, incarnation: bytes | None, base: int) -> bool:
        """Whether a backend must know the ids of all commits after ``base`` still."""
        if incarnation is None:
            return all(
                self.firsts[life] == 1 and last <= REMEMBERED_COMMITS
                for life, last in self.lives.items()
            )
        if base + 1 < self.firsts.get(incarnation, 1):
            return False  # what was committed elsewhere, before it was restored
        return self.lives.get(incarnation, 0) - base <= REMEMBERED_COMMITS

    def judge(self, commit: Commit) -> Outcome:
        """What a commit that was never applied leads to."""
        head = self.head
        if commit.incarnation is not None and (
            head is None or head.incarnation != commit.incarnation
        ):
            return Refused(SessionDeleted)
        match commit.expect:
            case Expect.ANY:
                pass
            case Expect.ABSENT:
                if head is not None:
                    return Refused(Conflict)
            case Expect.PRESENT:
                if head is None:
                    return Refused(Conflict)
            case At(version, tip):
                if head is None or head.version != version or head.tip != tip:
                    return Refused(Conflict)
        for condition in commit.conditions:
            if condition.key is None:
                actual = head.meta_version if head is not None else 0
            elif condition.key in self.items:
                actual = self.items[condition.key].version
            else:
                actual = 0
            if actual != condition.version:
                return Refused(Conflict)
        incarnation = head.incarnation if head is not None else commit.new_incarnation
        if any((incarnation, stage) not in self.stages for stage in commit.stages):
            return Refused(StageMissing)
        return Applied()

    def apply(self, commit: Commit, now: int) -> Head:
        """Apply a commit; return the head it makes."""
        old = self.head
        version = 1 if old is None else old.version + 1
        if commit.restored is not None:
            version = commit.restored.version
        incarnation = commit.new_incarnation if old is None else old.incarnation
        for delete in commit.deletes:
            gone = delete if isinstance(delete, KeyRange) else KeyRange(delete, delete + b"\0")
            self.items = {
                key: item
                for key, item in self.items.items()
                if key < gone.start or (gone.stop is not None and key >= gone.stop)
            }
        for stage in commit.stages:
            for key, value in self.stages.pop((incarnation, stage)).items():
                self.items[key] = Item(key, value, version)
        for key, value in commit.puts:
            self.items[key] = Item(key, value, version)
        for append in commit.appends:
            for ordinal, value in enumerate(append.values):
                key = append_key(append.prefix, version, ordinal)
                self.items[key] = Item(key, value, version)
        expires_at = None if old is None else old.expires_at
        if commit.expires_in is not None:
            expires_at = now + commit.expires_in
        elif commit.expires_at == NEVER:
            expires_at = None
        elif commit.expires_at is not None:
            expires_at = commit.expires_at
        meta, meta_version = (b"", 0) if old is None else (old.meta, old.meta_version)
        if commit.meta is not None:
            meta, meta_version = commit.meta, version
        labels = () if old is None else old.labels
        created_at, updated_at = now, now
        if commit.restored is not None:
            created_at = commit.restored.created_at
            updated_at = commit.restored.updated_at
        if old is not None:
            created_at = old.created_at
        self.head = Head(
            version=version,
            incarnation=incarnation,
            tip=commit.id,
            last_delete=version if commit.deletes else (0 if old is None else old.last_delete),
            created_at=created_at,
            updated_at=updated_at,
            expires_at=expires_at,
            meta=meta,
            meta_version=meta_version,
            labels=labels if commit.labels is None else commit.labels,
        )
        self.resent = self.resent or commit.resend
        self.lives[incarnation] = version
        if old is None or commit.restored is not None:
            self.firsts[incarnation] = version
        self.used[commit.id] = Used(commit.digest, incarnation, version)
        return self.head

    # Stages and deletion

    def stage(self, incarnation: bytes, stage: bytes, puts: dict[bytes, bytes]) -> None:
        parts = self.stages.setdefault((incarnation, stage), {})
        for key, value in puts.items():
            parts.setdefault(key, value)

    def delete(
        self, id: bytes, expect: Expect | At, incarnation: bytes | None
    ) -> bool | type[Conflict]:
        """Delete, if that is what comes of it; return or name what the call does."""
        if id in self.used:
            return True
        head = self.head
        if head is None or incarnation not in (None, head.incarnation):
            return False
        if isinstance(expect, At) and expect != At(head.version, head.tip):
            return Conflict
        self.used[id] = Used(None, head.incarnation, head.version)
        self.clear(head.incarnation)
        return True

    # Reads

    def disagreement(self, read: Read, rows: Rows) -> str | None:
        """Why ``rows`` is no answer to ``read``; ``None`` if it is one."""
        if isinstance(read, Get):
            found = [self.items[read.key]] if read.key in self.items else []
            if list(rows.items) != found or rows.more:
                return f"{read} found {rows}, not {found}"
            return None
        matching = [
            item
            for key, item in sorted(self.items.items(), reverse=read.reverse)
            if key >= read.start
            and (read.stop is None or key < read.stop)
            and item.version > read.since
        ]
        expected: list[Item] = []
        size = 0
        for item in matching:
            full = read.limit is not None and len(expected) >= read.limit
            heavy = read.max_bytes is not None and size >= read.max_bytes
            if expected and (full or heavy):
                break
            expected.append(item)
            size += len(item.value)
        if list(rows.items) != expected:
            return f"{read} found {list(rows.items)}, not {expected}"
        if rows.more and not expected:
            return f"{read} found nothing, and says that there is more"
        if len(expected) < len(matching) and not rows.more:
            return f"{read} was cut and does not say so"
        return None
