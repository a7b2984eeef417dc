"""The reference backend: the contract in plain Python, in this process, written to be read.

One lock holds everything still while an operation runs; no operation waits inside it. What
other backends do with transactions, scripts or conditional writes is a few dict updates here.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from perdure.backend import (
    STAGE_MS,
    Backend,
    Capabilities,
    Description,
    Durability,
    Wait,
)
from perdure.commits import check, check_expect, next_head
from perdure.errors import (
    CommitIdReused,
    Conflict,
    OutcomeUnknown,
    SessionDeleted,
    StageMissing,
    StoreClosed,
)
from perdure.types import (
    At,
    Commit,
    Committed,
    Expect,
    Head,
    HeadEntry,
    ListQuery,
    Page,
    Read,
    SessionKey,
    Snapshot,
    append_key,
    same_state,
)

from perdure_memory.index import SortedIndex
from perdure_memory.sessions import Life, Session, Stage, answer


def now_ms() -> int:
    """This host's clock."""
    return time.time_ns() // 1_000_000


class MemoryBackend(Backend):
    """Sessions in this process's memory; gone with it. ``clock`` gives ms since the epoch."""

    capabilities = Capabilities(
        max_item_bytes=1 << 30,
        max_commit_bytes=1 << 30,
        max_commit_items=1 << 20,
        max_read_bytes=1 << 30,
        wait=Wait.PUSH,
        durability=Durability.NONE,
        durability_note="Nothing outlives this process.",
    )

    def __init__(self, *, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[SessionKey, Session] = {}
        self._stages: dict[tuple[SessionKey, bytes, bytes], Stage] = {}
        self._index = SortedIndex()
        self._waiters: defaultdict[SessionKey, set[asyncio.Future[None]]] = defaultdict(set)
        self._closed = False

    async def describe(self) -> Description:
        return Description(
            backend="memory",
            location="this process",
            durability=self.capabilities.durability_note,
            details={"sessions": str(sum(1 for s in self._sessions.values() if s.head))},
        )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        with self._lock:
            now = self._begin()
            session = self._present(key, now)
            return Snapshot(session.head if session else None, now, answer(session, reads))

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        with self._lock:
            now = self._begin()
            session = self._present(key, now)
            record = self._sessions.get(key)
            if record is not None:
                for life in record.lives:
                    if commit.id == life.deletion:
                        raise CommitIdReused("this id was used by a deletion")
                    if commit.id in life.commits:
                        return _replay(life, commit, session, now)
                if record.sent_before(commit, now) and not record.remembers_since(commit, now):
                    raise OutcomeUnknown(
                        "too many commits followed to tell whether this one was applied",
                        commit=commit,
                        forgotten=True,
                    )
            head = session.head if session else None
            items = session.items if session else {}
            try:
                check(head, commit, lambda k: items[k].version if k in items else 0)
            except (Conflict, SessionDeleted) as error:
                if isinstance(error, Conflict):
                    error.now, error.rows = now, answer(session, commit.returning)
                raise
            made = next_head(head, commit, now)
            staged = self._take_stages(key, made.incarnation, commit.stages)

            if record is None:
                record = self._sessions[key] = Session()
            if head is None:
                record.lives.append(Life(made.incarnation))
            record.head = made
            record.lives[-1].remember(commit, made, now)
            if commit.resend:
                record.resent_at = now
            for target in commit.deletes:
                if isinstance(target, bytes):
                    record.remove(target, target + b"\0")
                else:
                    record.remove(target.start, target.stop)
            for stage in staged:
                for item_key, value in stage.parts.items():
                    record.put(item_key, value, made.version)
            for item_key, value in commit.puts:
                record.put(item_key, value, made.version)
            for append in commit.appends:
                for ordinal, value in enumerate(append.values):
                    item_key = append_key(append.prefix, made.version, ordinal)
                    record.put(item_key, value, made.version)
            self._index.replace(key, head, made)
            result = Committed(
                version=made.version,
                incarnation=made.incarnation,
                head=made,
                now=now,
                rows=answer(record, commit.returning),
            )
        self._wake(key)
        return result

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        with self._lock:
            now = self._begin()
            staged = self._stages.setdefault((key, incarnation, stage), Stage(now))
            for item_key, value in puts:
                staged.parts.setdefault(item_key, value)

    async def delete(
        self,
        key: SessionKey,
        *,
        id: bytes,
        expect: Expect | At = Expect.PRESENT,
        incarnation: bytes | None = None,
    ) -> bool:
        if expect is Expect.ABSENT:
            raise ValueError("deleting a session that is expected to be absent")
        with self._lock:
            now = self._begin()
            session = self._present(key, now)
            record = self._sessions.get(key)
            if record is not None:
                if any(id == life.deletion for life in record.lives):
                    return True
                if any(id in life.commits for life in record.lives):
                    raise CommitIdReused("this id was used by a commit")
            if session is None or session.head is None:
                return False
            head = session.head
            if incarnation is not None and head.incarnation != incarnation:
                return False
            check_expect(head, expect)
            self._bury(key, session, now, id)
        self._wake(key)
        return True

    async def list(self, tenant: str, kind: str, query: ListQuery) -> Page[HeadEntry]:
        with self._lock:
            now = self._begin()
            found: list[HeadEntry] = []
            for cursor, key in self._index.walk(tenant, kind, query):
                session = self._sessions[key]
                if session.head is None or _expired(session.head, now):
                    continue
                found.append(HeadEntry(key, session.head))
                if len(found) == query.limit:
                    return Page(tuple(found), cursor)
            return Page(tuple(found))

    async def tenants(self, *, cursor: str | None = None, limit: int = 100) -> Page[str]:
        with self._lock:
            self._begin()
            names = {key.tenant for key in self._sessions}
        return _page(names, cursor, limit)

    async def kinds(
        self, tenant: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[str]:
        with self._lock:
            self._begin()
            names = {key.kind for key in self._sessions if key.tenant == tenant}
        return _page(names, cursor, limit)

    async def sweep(self, *, limit: int = 1000) -> int:
        removed = 0
        with self._lock:
            now = self._begin()
            for key, session in list(self._sessions.items()):
                if removed >= limit:
                    return removed
                if session.head is not None and _expired(session.head, now):
                    self._bury(key, session, now, None)
                    removed += 1
                elif session.forget(now):
                    removed += 1
                    if not session.lives:
                        del self._sessions[key]
            for name, stage in list(self._stages.items()):
                if removed >= limit:
                    break
                if now - stage.staged_at > STAGE_MS:
                    del self._stages[name]
                    removed += 1
        return removed

    async def wait(self, key: SessionKey, *, after: Head | None, timeout: float) -> Head | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            changed = loop.create_future()
            with self._lock:
                now = self._begin()
                session = self._present(key, now)
                head = session.head if session else None
                left = deadline - loop.time()
                if left <= 0 or not same_state(head, after):
                    return head
                if head is not None and head.expires_at is not None:
                    left = min(left, (head.expires_at - now) / 1000)
                self._waiters[key].add(changed)
            try:
                await asyncio.wait((changed,), timeout=left)
            finally:
                with self._lock:
                    self._waiters[key].discard(changed)
                    if not self._waiters[key]:
                        del self._waiters[key]

    async def aclose(self) -> None:
        with self._lock:
            self._closed = True
            waiting = list(self._waiters)
        for key in waiting:
            self._wake(key)

    def _begin(self) -> int:
        if self._closed:
            raise StoreClosed("this memory backend was closed")
        return self._clock()

    def _present(self, key: SessionKey, now: int) -> Session | None:
        """The session, unless it is absent. One found to have expired is buried."""
        session = self._sessions.get(key)
        if session is None or session.head is None:
            return None
        if _expired(session.head, now):
            self._bury(key, session, now, None)
            return None
        return session

    def _bury(
        self, key: SessionKey, session: Session, now: int, deletion: bytes | None
    ) -> None:
        self._index.replace(key, session.head, None)
        session.bury(now, deletion)
        gone = (key, session.lives[-1].incarnation)
        for name in [name for name in self._stages if name[:2] == gone]:
            del self._stages[name]

    def _take_stages(
        self, key: SessionKey, incarnation: bytes, ids: tuple[bytes, ...]
    ) -> Sequence[Stage]:
        names = [(key, incarnation, id) for id in ids]
        if any(name not in self._stages for name in names):
            raise StageMissing("a stage named by the commit does not exist (any more)")
        return [self._stages.pop(name) for name in names]

    def _wake(self, key: SessionKey) -> None:
        with self._lock:
            waiting = list(self._waiters.get(key, ()))
        for changed in waiting:
            with suppress(RuntimeError):  # its loop was closed: nobody awaits it any more
                changed.get_loop().call_soon_threadsafe(_resolve, changed)


def _page(names: set[str], cursor: str | None, limit: int) -> Page[str]:
    rest = sorted(name for name in names if cursor is None or name > cursor)
    return Page(tuple(rest[:limit]), rest[limit - 1] if len(rest) > limit else None)


def _resolve(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)


def _expired(head: Head, now: int) -> bool:
    return head.expires_at is not None and head.expires_at <= now


def _replay(life: Life, commit: Commit, session: Session | None, now: int) -> Committed:
    digest, version, _ = life.commits[commit.id]
    if digest != commit.digest:
        raise CommitIdReused("this commit id was used before for other content")
    return Committed(
        version=version,
        incarnation=life.incarnation,
        head=session.head if session else None,
        now=now,
        replayed=True,
        rows=answer(session, commit.returning),
    )
