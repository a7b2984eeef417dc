"""A Hypothesis state machine: any sequence of operations must do what the model says."""

import asyncio
import os

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from perdure.backend import REMEMBERED_COMMITS
from perdure.testing.harness import Harness
from perdure.testing.lists import Lists
from perdure.testing.model import Model
from perdure.testing.shorthand import other_content, resent
from perdure.types import (
    NEVER,
    Append,
    At,
    Commit,
    Condition,
    Expect,
    Get,
    KeyRange,
    Read,
    Restored,
    Scan,
)

EXAMPLES = 150
STEPS = 40
DAY = 24 * 3_600_000

# Few keys, values and ranges, so that what happens meets what has happened.

KEYS = (b"a", b"a\0", b"ab", b"b", b"log", b"m", b"\x80", b"\xff\xff")
item_keys = st.sampled_from(KEYS)
bounds = st.sampled_from([b"", b"a", b"ab", b"b", b"log", b"loh", b"m\0", b"\x80", b"\xff"])
values = st.binary(max_size=12)
puts = st.dictionaries(item_keys, values, max_size=3)
stops = st.none() | bounds
ranges = st.builds(KeyRange, bounds, stops).filter(
    lambda r: r.stop is None or r.start <= r.stop
)
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
).filter(lambda scan: scan.stop is None or scan.start <= scan.stop)
reads = st.lists(scans | scans | st.builds(Get, item_keys), max_size=4).map(tuple)
keys = st.sampled_from(["s", "s", "s", "s", "s2", "\U0001f600", "\uffff"])
stages = st.sampled_from([b"stage one.......", b"stage two......."])
proposals = st.sampled_from(["none", "present", "former", "proposed"])


class ContractMachine(Lists):
    """The rules: what sessions live through mostly, and then all that may happen to them."""

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

    @rule(id=keys, version=st.sampled_from([1, 2, 63, 1 << 40]), puts=puts, appends=appends)
    def restore(
        self, id: str, version: int, puts: dict[bytes, bytes], appends: tuple[Append, ...]
    ) -> None:
        key = self.key(id)
        head = self.model(key).head
        self.write(
            key,
            expect=Expect.ABSENT if head is None else At(head.version, head.tip),
            restored=Restored(version + (head.version if head else 0), 1_000, 2_000),
            puts=tuple(puts.items()),
            appends=appends,
        )

    @rule(id=keys, data=st.data(), stale=st.sampled_from([0, 0, 0, 1]), puts=puts)
    def rewriting_turn(
        self, id: str, data: st.DataObject, stale: int, puts: dict[bytes, bytes]
    ) -> None:
        """What was appended is an item like any other: written again, or removed."""
        key = self.key(id)
        items = self.model(key).items
        appended = [name for name in sorted(items) if name not in KEYS and name != b"index"]
        if not appended:
            return
        chosen = data.draw(st.sampled_from(appended))
        again = data.draw(st.none() | values)
        self.write(
            key,
            conditions=(Condition(chosen, max(0, items[chosen].version - stale)),),
            deletes=(chosen,),
            puts=(*puts.items(), *(() if again is None else ((chosen, again),))),
            returning=(Get(chosen),),
        )

    @rule(
        id=keys,
        first=puts,
        again=puts,
        stage=stages,
        deletes=st.lists(item_keys | ranges, max_size=1),
        conditions=st.lists(conditions, max_size=1),
        appends=appends,
    )
    def staged_turn(
        self,
        id: str,
        first: dict[bytes, bytes],
        again: dict[bytes, bytes],
        stage: bytes,
        deletes: list[bytes | KeyRange],
        conditions: list[Condition],
        appends: tuple[Append, ...],
    ) -> None:
        key = self.key(id)
        head = self.model(key).head
        incarnation = self.proposed(key) if head is None else head.incarnation
        for parts in (first, again):
            self.send_parts(key, incarnation, stage, parts)
        if (incarnation, stage) in self.model(key).stages:
            self.write(
                key,
                conditions=tuple(conditions),
                deletes=tuple(deletes),
                stages=(stage,),
                puts=((b"index", stage),),
                appends=appends,
            )

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
    @rule(data=st.data(), same=st.sampled_from([True, True, False]), seen=st.booleans())
    def resend(self, data: st.DataObject, same: bool, seen: bool) -> None:
        key, commit, told = data.draw(st.sampled_from(self.sent))
        commit = msgspec.structs.replace(resent(commit), seen=told if seen else None)
        self.send(key, commit if same else other_content(commit))

    @precondition(lambda self: bool(self.deletions))
    @rule(data=st.data())
    def commit_under_the_id_of_a_deletion(self, data: st.DataObject) -> None:
        key, id = data.draw(st.sampled_from(self.deletions))
        commit = Commit(id=id, digest=b"deletion", new_incarnation=self.proposed(key))
        self.send(key, commit)

    @rule(
        id=keys,
        times=st.sampled_from([1, 1, 1, REMEMBERED_COMMITS - 4, REMEMBERED_COMMITS + 1]),
    )
    def others_commit(self, id: str, times: int) -> None:
        key = self.key(id)
        for _ in range(times):
            head = self.model(key).head
            commit = self.new_commit(
                key,
                incarnation=None if head is None else head.incarnation,
                base=0 if head is None else head.version,
                puts=((b"others", b"%d" % self.ids),),
            )
            if len(self.model(key).outcomes(commit)) > 1:
                return  # it may be refused
            made = self.run_one(self.backend.commit(key, commit))
            self.told = max(self.told, made.now)
            self.same_head(made.head, self.model(key).apply(commit, made.now))

    @rule(id=keys, incarnation=proposals, stage=stages, puts=puts)
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
        self.send_deletion(key, id, Expect.PRESENT, None)

    @rule(id=keys, reads=st.lists(scans, min_size=3, max_size=6))
    def read(self, id: str, reads: list[Scan]) -> None:
        self.check(self.key(id), *reads)

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
        self.pass_time(life - 1)
        self.check(key, Scan())
        self.pass_time(1)
        self.check(key, Scan())

    @precondition(lambda self: self.harness.clock is not None)
    @rule(ms=st.sampled_from([1, 49, 50, 999, 3_600_000]))
    def advance(self, ms: int) -> None:
        if self.passed + ms < DAY:  # tombstones and stages stay: rooms of their own test that
            self.pass_time(ms)

    @rule()
    def sweep(self) -> None:
        self.run_one(self.backend.sweep())

    @precondition(lambda self: self.harness.persistent)
    @rule()
    def reopen(self) -> None:
        self.run_one(self.backend.aclose())
        self.opened[-1] = self.run_one(self.harness.open())


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
    with asyncio.Runner() as runner:
        opened = [runner.run(harness.open())]

        class Machine(ContractMachine):
            def __init__(self) -> None:
                super().__init__(harness, runner, opened)

        try:
            run_state_machine_as_test(Machine, settings=chosen or chosen_settings())
        finally:
            for backend in opened:
                runner.run(backend.aclose())
