"""A Hypothesis state machine: any sequence of operations must do what the model says."""

import asyncio
import os
from collections.abc import Coroutine
from typing import TypeVar, Unpack
from uuid import uuid4

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from perdure.backend import REMEMBERED_COMMITS, Backend
from perdure.errors import Conflict, PerdureError, SessionDeleted
from perdure.testing.harness import Harness
from perdure.testing.model import Applied, Model, Outcome, Refused, Replayed
from perdure.testing.shorthand import CommitFields, list_pages, other_content, resent
from perdure.types import (
    NEVER,
    Append,
    At,
    Commit,
    Condition,
    Expect,
    Get,
    Head,
    HeadEntry,
    KeyRange,
    Order,
    Read,
    Rows,
    Scan,
    SessionKey,
)

T = TypeVar("T")

EXAMPLES = 150
STEPS = 40
DAY = 24 * 3_600_000

item_keys = st.sampled_from([b"a", b"a\0", b"ab", b"b", b"log", b"m", b"\x80", b"\xff\xff"])
bounds = st.sampled_from([b"", b"a", b"ab", b"b", b"log", b"loh", b"m\0", b"\x80", b"\xff"])
values = st.binary(max_size=12)
puts = st.dictionaries(item_keys, values, max_size=3)
stops = st.none() | bounds
ranges = st.builds(KeyRange, bounds, stops)
conditions = st.builds(Condition, st.none() | item_keys, st.integers(0, 4))
appends = st.dictionaries(
    st.sampled_from([b"log", b"lo", b"x\xff"]),
    st.lists(values, min_size=1, max_size=3).map(tuple),
    max_size=2,
).map(lambda found: tuple(Append(prefix, some) for prefix, some in found.items()))
labels = st.lists(st.sampled_from(["red", "blue", "r", "é"]), max_size=3, unique=True)
limits = st.none() | st.integers(1, 5)
scans = st.builds(
    Scan,
    start=bounds,
    stop=stops,
    limit=limits,
    reverse=st.booleans(),
    since=st.integers(0, 6),
    max_bytes=st.none() | st.integers(1, 30),
)
reads = st.lists(scans | scans | st.builds(Get, item_keys), max_size=4).map(tuple)
keys = st.sampled_from(["s", "s", "s", "s", "s2", "\U0001f600", "\uffff"])
stages = st.sampled_from([b"stage one.......", b"stage two......."])
proposals = st.sampled_from(["none", "present", "former", "proposed"])


class ContractMachine(RuleBasedStateMachine):
    """Runs on a harness, with a tenant of its own for each example."""

    def __init__(self, harness: Harness, runner: asyncio.Runner, opened: list[Backend]) -> None:
        super().__init__()
        self.harness = harness
        self.runner = runner
        self.opened = opened
        self.tenant = f"machine-{uuid4()}"
        self.models: dict[SessionKey, Model] = {}
        self.seen: dict[SessionKey, list[Head]] = {}
        self.sent: list[tuple[SessionKey, Commit]] = []
        self.deletions: list[tuple[SessionKey, bytes]] = []
        self.ids = 0
        self.passed = 0

    def run_one(self, work: Coroutine[None, None, T]) -> T:
        return self.runner.run(work)

    @property
    def backend(self) -> Backend:
        return self.opened[-1]

    @initialize()
    def open(self) -> None:
        if not self.opened:
            self.opened.append(self.run_one(self.harness.open()))

    # What is drawn by name is made here

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
        return b"proposed" + self.model(key).turn.to_bytes(8, "big")

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

    # Rules: what sessions live through mostly, and then everything that may happen to them

    @rule(
        id=keys,
        deletes=st.lists(item_keys | ranges, max_size=2),
        puts=puts,
        appends=appends,
        returning=reads,
    )
    def turn(
        self,
        id: str,
        deletes: list[bytes | KeyRange],
        puts: dict[bytes, bytes],
        appends: tuple[Append, ...],
        returning: tuple[Read, ...],
    ) -> None:
        self.write(
            self.key(id),
            puts=tuple(puts.items()),
            appends=appends,
            deletes=tuple(deletes),
            returning=returning,
        )

    @rule(id=keys, puts=puts, appends=appends, labels=labels, meta=st.binary(max_size=4))
    def conditional_turn(
        self,
        id: str,
        puts: dict[bytes, bytes],
        appends: tuple[Append, ...],
        labels: list[str],
        meta: bytes,
    ) -> None:
        key = self.key(id)
        head = self.model(key).head
        self.write(
            key,
            expect=Expect.ABSENT if head is None else At(head.version, head.tip),
            incarnation=None if head is None else head.incarnation,
            base=0 if head is None else head.version,
            puts=tuple(puts.items()),
            appends=appends,
            labels=tuple(labels),
            meta=meta,
        )

    @rule(id=keys, first=puts, again=puts, stage=stages)
    def staged_turn(
        self, id: str, first: dict[bytes, bytes], again: dict[bytes, bytes], stage: bytes
    ) -> None:
        key = self.key(id)
        head = self.model(key).head
        incarnation = self.proposed(key) if head is None else head.incarnation
        for parts in (first, again):
            self.send_parts(key, incarnation, stage, parts)
        if (incarnation, stage) in self.model(key).stages:
            self.write(key, stages=(stage,), puts=((b"index", stage),))

    @rule(
        id=keys,
        how=st.sampled_from(["in", "in", "at", "at", "never", "keep"]),
        life=st.sampled_from([1, 50, 1000, 3_600_000, 3_600_000]),
        labels=labels,
        meta=st.none() | st.binary(max_size=4),
    )
    def marking_turn(
        self, id: str, how: str, life: int, labels: list[str], meta: bytes | None
    ) -> None:
        key = self.key(id)
        commit = self.new_commit(key, labels=tuple(labels), meta=meta)
        if how == "never":
            commit = msgspec.structs.replace(commit, expires_at=NEVER)
        elif self.harness.clock is not None and how == "in":
            commit = msgspec.structs.replace(commit, expires_in=life)
        elif self.harness.clock is not None and how == "at":
            commit = msgspec.structs.replace(commit, expires_at=self.harness.clock() + life)
        self.send_new(key, commit)

    @rule(
        id=keys,
        expect=st.sampled_from(["any", "any", "present", "absent", "at", "stale", "wrong tip"]),
        incarnation=st.sampled_from(["none", "none", "present", "former", "proposed"]),
        conditions=st.lists(conditions, max_size=2),
        holding=st.booleans(),
        puts=puts,
        deletes=st.lists(item_keys, max_size=1),
        stages=st.sets(stages, max_size=1),
    )
    def judged_turn(
        self,
        id: str,
        expect: str,
        incarnation: str,
        conditions: list[Condition],
        holding: bool,
        puts: dict[bytes, bytes],
        deletes: list[bytes],
        stages: set[bytes],
    ) -> None:
        key = self.key(id)
        model = self.model(key)
        if holding:  # make the conditions true
            conditions = [self.true_condition(model, condition) for condition in conditions]
        self.write(
            key,
            expect=self.expectation(key, expect),
            incarnation=self.incarnation(key, incarnation),
            conditions=tuple(conditions),
            base=self.base(key, incarnation),
            puts=tuple(puts.items()),
            deletes=tuple(deletes),
            stages=tuple(stages),
            returning=(Scan(),),
        )

    def true_condition(self, model: Model, condition: Condition) -> Condition:
        if condition.key is None:
            return Condition(None, model.head.meta_version if model.head else 0)
        item = model.items.get(condition.key)
        return Condition(condition.key, item.version if item is not None else 0)

    @precondition(lambda self: bool(self.sent))
    @rule(data=st.data(), same=st.sampled_from([True, True, False]))
    def resend(self, data: st.DataObject, same: bool) -> None:
        key, commit = data.draw(st.sampled_from(self.sent))
        commit = resent(commit)
        self.send(key, commit if same else other_content(commit))

    @precondition(lambda self: bool(self.deletions))
    @rule(data=st.data())
    def commit_under_the_id_of_a_deletion(self, data: st.DataObject) -> None:
        key, id = data.draw(st.sampled_from(self.deletions))
        model = self.model(key)
        if model.turn - model.used[id].turn <= REMEMBERED_COMMITS:
            commit = Commit(id=id, digest=b"deletion", new_incarnation=self.proposed(key))
            self.send(key, commit)

    @rule(
        id=keys,
        times=st.sampled_from([1, 1, REMEMBERED_COMMITS - 4, 2 * REMEMBERED_COMMITS + 1]),
    )
    def others_commit(self, id: str, times: int) -> None:
        key = self.key(id)
        for _ in range(times):
            commit = self.new_commit(key, puts=((b"others", b"%d" % self.ids),))
            made = self.run_one(self.backend.commit(key, commit))
            self.same_head(made.head, self.model(key).apply(commit, made.now))

    @rule(
        id=keys,
        incarnation=proposals,
        stage=stages,
        puts=puts,
    )
    def stage(self, id: str, incarnation: str, stage: bytes, puts: dict[bytes, bytes]) -> None:
        key = self.key(id)
        chosen = self.incarnation(key, incarnation)
        if chosen is not None:
            self.send_parts(key, chosen, stage, puts)

    @rule(
        id=keys,
        expect=st.sampled_from(["any", "present", "present", "at", "stale", "wrong tip"]),
        incarnation=proposals,
    )
    def delete(self, id: str, expect: str, incarnation: str) -> None:
        key = self.key(id)
        self.send_deletion(
            key,
            self.new_id(),
            self.expectation(key, expect),
            self.incarnation(key, incarnation),
        )

    @precondition(lambda self: bool(self.deletions))
    @rule(data=st.data())
    def delete_again(self, data: st.DataObject) -> None:
        key, id = data.draw(st.sampled_from(self.deletions))
        model = self.model(key)
        if model.turn - model.used[id].turn <= REMEMBERED_COMMITS:
            self.send_deletion(key, id, Expect.PRESENT, None)

    @rule(id=keys, reads=st.lists(scans, min_size=3, max_size=6))
    def read(self, id: str, reads: list[Scan]) -> None:
        self.check(self.key(id), *reads)

    @rule(
        order=st.sampled_from(Order),
        prefix=st.sampled_from(["", "s", "s2", "\U0001f600"]),
        label=st.none() | st.sampled_from(["red", "blue", "r", "é"]),
        limit=st.integers(1, 4),
    )
    def list(self, order: Order, prefix: str, label: str | None, limit: int) -> None:
        if self.backend.capabilities.list_lag:
            return
        prefix = prefix if order is Order.ID else ""
        pages = self.run_one(
            list_pages(
                self.backend,
                self.key("any"),
                order=order,
                prefix=prefix,
                label=label,
                limit=limit,
            )
        )
        found = [entry for page in pages for entry in page]
        expected = [
            HeadEntry(key, head)
            for key in sorted(self.models, key=lambda key: key.id.encode())
            if (head := self.model(key).head) is not None
            and key.id.startswith(prefix)
            and (label is None or label in head.labels)
        ]
        if order is Order.ID:
            assert [e.key for e in found] == [e.key for e in expected]
        elif not self.backend.capabilities.recency_lag and self.harness.clock is not None:
            times = [entry.head.updated_at for entry in found]
            assert times == sorted(times, reverse=True), "last committed first"
        found.sort(key=lambda entry: entry.key.id.encode())
        for entry, other in zip(found, expected, strict=True):
            assert entry.key == other.key
            self.same_head(entry.head, other.head)

    @precondition(lambda self: self.harness.clock is not None)
    @rule(id=keys, life=st.integers(2, 1000), relative=st.booleans(), puts=puts)
    def live_to_the_end(
        self, id: str, life: int, relative: bool, puts: dict[bytes, bytes]
    ) -> None:
        key = self.key(id)
        assert self.harness.clock is not None
        self.write(
            key,
            puts=tuple(puts.items()),
            expires_in=life if relative else None,
            expires_at=None if relative else self.harness.clock() + life,
        )
        self.run_one(self.harness.advance(life - 1))
        self.check(key, Scan())
        self.run_one(self.harness.advance(1))
        self.check(key, Scan())
        self.passed += life

    @precondition(lambda self: self.harness.clock is not None)
    @rule(ms=st.sampled_from([1, 49, 50, 999, 3_600_000]))
    def advance(self, ms: int) -> None:
        if self.passed + ms < DAY:  # tombstones and stages stay: rooms of their own test that
            self.passed += ms
            self.run_one(self.harness.advance(ms))

    @rule()
    def sweep(self) -> None:
        self.run_one(self.backend.sweep())

    @precondition(lambda self: self.harness.persistent)
    @rule()
    def reopen(self) -> None:
        self.run_one(self.backend.aclose())
        self.opened[-1] = self.run_one(self.harness.open())

    # What the rules do

    def write(self, key: SessionKey, **fields: Unpack[CommitFields]) -> None:
        self.send_new(key, self.new_commit(key, **fields))

    def send_new(self, key: SessionKey, commit: Commit) -> None:
        self.sent.append((key, commit))
        self.send(key, commit)

    def send_parts(
        self, key: SessionKey, incarnation: bytes, stage: bytes, puts: dict[bytes, bytes]
    ) -> None:
        if puts:
            self.run_one(self.backend.stage(key, incarnation, stage, tuple(puts.items())))
            self.model(key).stage(incarnation, stage, puts)

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


def chosen_settings() -> settings:
    """The same examples each time, or, with ``PERDURE_KIT_EXAMPLES``, so many random ones."""
    examples = os.environ.get("PERDURE_KIT_EXAMPLES")
    return settings(
        max_examples=int(examples) if examples else EXAMPLES,
        derandomize=not examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def run_machine(harness: Harness, chosen: settings | None = None) -> None:
    """Run the machine on ``harness`` in an event loop of its own. Raises what it finds."""
    opened: list[Backend] = []
    with asyncio.Runner() as runner:

        class Machine(ContractMachine):
            def __init__(self) -> None:
                super().__init__(harness, runner, opened)

        try:
            run_state_machine_as_test(Machine, settings=chosen or chosen_settings())
        finally:
            for backend in opened:
                runner.run(backend.aclose())
