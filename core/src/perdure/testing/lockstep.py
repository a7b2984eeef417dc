"""A backend and the model side by side: each step is done to both, and compared."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar, Unpack
from uuid import uuid4

import msgspec
from hypothesis.stateful import RuleBasedStateMachine

from perdure.backend import Backend
from perdure.errors import Conflict, PerdureError, SessionDeleted
from perdure.testing.harness import Harness
from perdure.testing.model import Applied, Model, Outcome, Refused, Replayed
from perdure.testing.shorthand import CommitFields
from perdure.types import (
    At,
    Commit,
    Expect,
    Head,
    HeadEntry,
    ListQuery,
    Read,
    Rows,
    Scan,
    SessionKey,
)

T = TypeVar("T")


class Lockstep(RuleBasedStateMachine):
    """A state machine without rules yet. Every instance has a tenant of its own.

    ``opened`` holds the backend in use, which instances hand on to one another.
    """

    def __init__(self, harness: Harness, runner: asyncio.Runner, opened: list[Backend]) -> None:
        super().__init__()
        self.harness = harness
        self.runner = runner
        self.opened = opened
        self.tenant = f"machine-{uuid4()}"
        self.models: dict[SessionKey, Model] = {}
        self.seen: dict[SessionKey, list[Head]] = {}
        self.sent: list[tuple[SessionKey, Commit, int]] = []
        """Commits, and the backend's time before they were sent first."""
        self.told = 0
        """The latest time that the backend has told."""
        self.deletions: list[tuple[SessionKey, bytes]] = []
        self.ids = 0
        self.passed = 0
        """Milliseconds, on the harness's clock."""

    def run_one(self, work: Coroutine[None, None, T]) -> T:
        return self.runner.run(work)

    @property
    def backend(self) -> Backend:
        return self.opened[-1]

    # What rules draw by name, and what comes of it here

    def key(self, id: str) -> SessionKey:
        return SessionKey(self.tenant, "session", id)

    def model(self, key: SessionKey) -> Model:
        model = self.models.setdefault(key, Model())
        if self.harness.clock is not None:
            model.tell(self.harness.clock())
        return model

    def new_id(self) -> bytes:
        """Not random, so that a failing example fails the same way again."""
        self.ids += 1
        return self.ids.to_bytes(16, "big")

    def proposed(self, key: SessionKey) -> bytes:
        """The incarnation that the key's next creator will propose."""
        return b"proposed" + len(self.model(key).lives).to_bytes(8, "big")

    def incarnation(self, key: SessionKey, which: str) -> bytes | None:
        head = self.model(key).head
        former = self.seen.get(key, [])
        if which == "proposed":
            return self.proposed(key)
        if which == "former" and former:
            return former[0].incarnation
        if which == "present" and head is not None:
            return head.incarnation
        return None

    def base(self, key: SessionKey, which: str) -> int:
        head = self.model(key).head
        former = self.seen.get(key, [])
        if which == "former" and former:
            return former[0].version
        return head.version if which == "present" and head is not None else 0

    def expectation(self, key: SessionKey, which: str) -> Expect | At:
        head = self.model(key).head
        former = self.seen.get(key, [])
        match which:
            case "at" if head is not None:
                return At(head.version, head.tip)
            case "stale" if former:
                return At(former[0].version, former[0].tip)
            case "wrong tip" if head is not None:
                return At(head.version, b"another commit..")
            case "at" | "stale" | "wrong tip":
                return At(1, b"another commit..")
            case _:
                return Expect(which)

    def new_commit(self, key: SessionKey, **fields: Unpack[CommitFields]) -> Commit:
        fresh = Commit(
            id=self.new_id(),
            digest=self.ids.to_bytes(8, "little"),
            new_incarnation=self.proposed(key),
        )
        return msgspec.structs.replace(fresh, **fields)

    # One step each, done and compared

    def write(self, key: SessionKey, **fields: Unpack[CommitFields]) -> None:
        self.send_new(key, self.new_commit(key, **fields))

    def send_new(self, key: SessionKey, commit: Commit) -> None:
        self.sent.append((key, commit, self.told))
        self.send(key, commit)

    def send_parts(
        self, key: SessionKey, incarnation: bytes, stage: bytes, puts: dict[bytes, bytes]
    ) -> None:
        if puts:
            self.run_one(self.backend.stage(key, incarnation, stage, tuple(puts.items())))
            self.model(key).stage(incarnation, stage, puts)

    def pass_time(self, ms: int) -> None:
        self.run_one(self.harness.advance(ms))
        self.passed += ms

    def send(self, key: SessionKey, commit: Commit) -> None:
        """Send a commit and compare what comes of it with what the model allows."""
        model = self.model(key)
        allowed = model.outcomes(commit)
        returning = self.backend.capabilities.returning
        try:
            made = self.run_one(self.backend.commit(key, commit))
        except PerdureError as error:
            happened: Outcome = Refused(type(error))
            assert happened in allowed, f"{commit} was {error!r}; allowed: {allowed}"
            if isinstance(error, Conflict | SessionDeleted):
                self.same_head(error.head, model.head)
            if isinstance(error, Conflict) and returning:
                self.same_rows(model, commit.returning, error.rows)
        else:
            self.told = max(self.told, made.now)
            if made.replayed:
                happened = Replayed(made.version, made.incarnation)
                assert happened in allowed, f"{commit} was a replay; allowed: {allowed}"
            else:
                assert Applied() in allowed, f"{commit} was applied; allowed: {allowed}"
                head = model.apply(commit, made.now)
                assert (made.version, made.incarnation) == (head.version, head.incarnation)
                self.seen.setdefault(key, []).append(head)
            self.same_head(made.head, model.head)
            if returning:
                self.same_rows(model, commit.returning, made.rows)
        self.check(key, Scan())

    def send_deletion(
        self, key: SessionKey, id: bytes, expect: Expect | At, incarnation: bytes | None
    ) -> None:
        model = self.model(key)
        expected = model.delete(id, expect, incarnation)
        if expected is True:
            self.deletions.append((key, id))
        try:
            happened = self.run_one(
                self.backend.delete(key, id=id, expect=expect, incarnation=incarnation)
            )
        except Conflict as error:
            assert expected is Conflict, error
        else:
            assert happened is expected
        self.check(key, Scan())

    def check(self, key: SessionKey, *reads: Read) -> None:
        """Compare what a read finds with the model."""
        snapshot = self.run_one(self.backend.read(key, *reads))
        model = self.model(key)
        self.same_head(snapshot.head, model.head)
        self.same_rows(model, reads, snapshot.rows)

    def listed(self, prefix: str, label: str | None) -> list[HeadEntry]:
        """What a list by id should show now."""
        return [
            HeadEntry(key, head)
            for key in sorted(self.models, key=lambda key: key.id.encode())
            if (head := self.model(key).head) is not None
            and key.id.startswith(prefix)
            and (label is None or label in head.labels)
        ]

    def list_page(
        self, label: str | None, limit: int, cursor: str | None
    ) -> tuple[list[HeadEntry], str | None]:
        """One page of a list by id, and the cursor behind it."""
        query = ListQuery(label=label, limit=limit, cursor=cursor)
        page = self.run_one(self.backend.list(self.tenant, "session", query))
        assert len(page.items) <= limit
        return list(page.items), page.cursor

    def same_head(self, found: Head | None, expected: Head | None) -> None:
        if self.harness.clock is None and found is not None and expected is not None:
            expected = msgspec.structs.replace(
                expected, created_at=found.created_at, updated_at=found.updated_at
            )
        assert found == expected

    def same_rows(self, model: Model, reads: tuple[Read, ...], found: tuple[Rows, ...]) -> None:
        assert len(found) == len(reads)
        for read, rows in zip(reads, found, strict=True):
            disagreement = model.disagreement(read, rows)
            assert disagreement is None, disagreement
