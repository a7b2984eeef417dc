"""Exact accounting: what the clients of a session were told, against one another and the end.

Every commit makes a version, so the versions put all commits of an incarnation in one order,
and there is nothing to search: :func:`violations` repeats the calls in that order on the model
and compares every answer.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf

import msgspec
from msgspec.structs import replace

from perdure.testing.model import Applied, Model, Refused
from perdure.testing.recorder import AnyCall, Deletion, Part, Sight, Write
from perdure.types import At, Get, Head, Item

Place = tuple[bytes, int]
"""An incarnation, and a version of it."""

END = 1 << 63
"""Sorts behind every version."""


class Life(msgspec.Struct):
    """One incarnation."""

    writes: dict[int, Write] = {}
    """The commit that made each version."""
    seen: list[tuple[int, AnyCall]] = []
    """Reads and refusals, with the version that they showed."""
    end: Deletion | None = None

    def calls(self) -> list[tuple[int, bool, AnyCall]]:
        """All of them in their order; each with its version, and whether it only looked."""
        made = [(version, False, write) for version, write in self.writes.items()]
        seen = [(version, True, call) for version, call in self.seen]
        end = [(END, True, self.end)] if self.end is not None else []
        return sorted([*made, *seen, *end], key=lambda one: (*one[:2], one[2].invoked))

    def times(self) -> tuple[float, float]:
        """It was there at the first of these times or before, and at the second or after."""
        calls = [call for _, _, call in self.calls()]
        return min(map(_returned, calls)), max(call.invoked for call in calls)


def violations(calls: Iterable[AnyCall], items: Sequence[Item], head: Head | None) -> list[str]:
    """Every way in which a session contradicts its history; empty if there is none.

    ``calls`` are all that were ever made on the session, by anyone, as
    :class:`perdure.testing.recorder.Recorder` notes them; ``items`` and ``head`` what is there
    after them. The session has neither expired nor been restored, and deletions name what
    they delete. Checked:

    * the versions of every incarnation begin at 1 and have no gaps, and each was made by one
      commit; every incarnation but the one present was ended by one deletion;
    * every commit applied had the right to be: nothing was deleted, committed or taken over
      in between that its ``incarnation``, ``expect`` or ``conditions`` forbid; and every one
      refused had not;
    * every read shows exactly what the commits up to its version leave, and so does the end:
      nothing acknowledged is lost, doubled or altered, nothing refused is there;
    * the order of versions is one in which the calls can have happened: none comes before
      another that had returned before it began (linearizability);
    * a commit whose outcome is unknown was applied once or not at all.
    """
    account = _Account(list(calls), items, head)
    account.settle_writes()
    account.settle_deletions()
    account.place_others()
    account.count()
    account.order()
    account.replay()
    return account.found


class _Account:
    def __init__(self, calls: list[AnyCall], items: Sequence[Item], head: Head | None) -> None:
        self.calls = calls
        self.items = items
        self.head = head
        self.found: list[str] = []
        self.lives: defaultdict[bytes, Life] = defaultdict(Life)
        self.absences: list[AnyCall] = []
        """Answers that there is no session."""
        self.places: dict[bytes, Place] = {}
        """Where a commit of unknown outcome must have been applied, by its id."""
        for shown in (head, *(call.head for call in calls)):
            if shown is not None:
                self.places[shown.tip] = shown.incarnation, shown.version
        self.parts: defaultdict[tuple[bytes, bytes], dict[bytes, bytes]] = defaultdict(dict)
        """What was staged, by incarnation and stage."""
        self.stamps: dict[tuple[bytes, bytes], int] = {
            (item.key[:-12], item.value): item.version for item in items
        }

    # What became of each call

    def settle_writes(self) -> None:
        groups: defaultdict[bytes, list[Write]] = defaultdict(list)
        for call in self.calls:
            if isinstance(call, Write):
                groups[call.commit.id].append(call)
        for group in groups.values():
            place = self.place(group)
            if place is not None:
                self.apply(group, *place)
            told = min((_returned(call) for call in group if call.version), default=inf)
            for call in group:
                if call.refusal and call.refusal != "Unavailable":
                    if call.invoked > told or _shows(call.head, place):
                        self.found.append(f"applied, then {call.refusal}: {_name(call)}")
                    elif call.head is not None:
                        self.see(call.head, call)
                    elif call.refusal in ("Conflict", "SessionDeleted"):
                        self.absences.append(call)

    def place(self, group: list[Write]) -> Place | None:
        """Where a commit was applied, if it was."""
        name = _name(group[0])
        told = [call for call in group if call.version is not None]
        answered = sum(call.returned is not None for call in group)
        open = len(group) - 2 * answered  # each is noted when it is sent, and when answered
        places = {(call.incarnation, call.version or 0) for call in told}
        if len(places) > 1 or sum(not call.replayed for call in told) > 1:
            self.found.append(f"doubled: {name} was applied at {places}")
        if told:
            if not open and all(call.replayed for call in told):
                self.found.append(f"replayed, but it had not been applied: {name}")
            return min(places)
        evidence = self.evidence(group[0])
        if evidence is not None and not open:
            self.found.append(f"refused, yet there: {name}")
        return evidence

    def evidence(self, write: Write) -> Place | None:
        """Where a commit that was not acknowledged shows to have been applied."""
        place = self.places.get(write.commit.id)
        if place is None and self.head is not None:
            for append in write.commit.appends:
                version = self.stamps.get((append.prefix, append.values[0]))
                if version is not None:
                    return self.head.incarnation, version
        return place

    def apply(self, group: list[Write], incarnation: bytes, version: int) -> None:
        told = [call for call in group if call.version is not None]
        first = min(told, key=_returned) if told else replace(group[-1], returned=None)
        write = replace(first, invoked=min(call.invoked for call in group))
        other = self.lives[incarnation].writes.setdefault(version, write)
        if other is not write:
            self.found.append(f"version {version} is of {_name(other)} and of {_name(write)}")

    def settle_deletions(self) -> None:
        groups: defaultdict[bytes, list[Deletion]] = defaultdict(list)
        for call in self.calls:
            if isinstance(call, Deletion):
                groups[call.id].append(call)
        unanswered: dict[bytes, Deletion] = {}
        for group in groups.values():
            incarnation = self.deleted_by(group[0])
            done = [call for call in group if call.deleted]
            first = min(done or group, key=_returned)
            call = replace(first, invoked=min(call.invoked for call in group))
            if done:
                life = self.lives[incarnation]
                if life.end is not None:
                    self.found.append(f"deleted twice: {incarnation.hex()}")
                life.end = call
            elif first.refusal and first.refusal != "Unavailable" and first.head is not None:
                self.see(first.head, first)
            elif first.deleted is False:
                self.absences.append(first)
            else:
                unanswered[incarnation] = call
        present = self.head.incarnation if self.head is not None else None
        for incarnation, life in self.lives.items():
            if life.end is None and incarnation != present:
                life.end = unanswered.get(incarnation)

    def deleted_by(self, call: Deletion) -> bytes:
        """The incarnation that it is about."""
        if call.incarnation is not None:
            return call.incarnation
        if not isinstance(call.expect, At) or call.expect.tip not in self.places:
            raise ValueError("a deletion must name what it deletes")
        return self.places[call.expect.tip][0]

    def place_others(self) -> None:
        for call in self.calls:
            if isinstance(call, Part):
                parts = self.parts[call.incarnation, call.stage]
                for name, value in call.puts:
                    parts.setdefault(name, value)
            elif isinstance(call, Sight):
                if call.head is not None:
                    self.see(call.head, call)
                else:
                    self.absences.append(call)
                    if any(rows.items for rows in call.rows):
                        self.found.append(f"items of a session that is absent: {call.rows}")

    def see(self, head: Head, call: AnyCall) -> None:
        self.lives[head.incarnation].seen.append((head.version, call))

    # What must hold between them

    def count(self) -> None:
        present = self.head.incarnation if self.head is not None else None
        for incarnation, life in list(self.lives.items()):
            made = life.writes.keys()
            shown = [version for version, _ in life.seen]
            if incarnation == present and self.head is not None:
                shown.append(self.head.version)
            top = max((*made, *shown), default=0)
            missing = [version for version in range(1, top + 1) if version not in made]
            if missing:
                self.found.append(f"gap: nobody made the versions {missing[:20]}")
            if incarnation == present and max(made, default=0) > shown[-1]:
                self.found.append(f"lost: versions after {shown[-1]}, up to {max(made)}")
            if incarnation == present and life.end is not None:
                self.found.append(f"deleted, yet there: {incarnation.hex()}")
            if incarnation != present and life.end is None:
                self.found.append(f"lost: incarnation {incarnation.hex()}, deleted by nobody")
            if not made:
                self.found.append(f"foreign: incarnation {incarnation.hex()}, made by nobody")
                del self.lives[incarnation]

    def order(self) -> None:
        """Order the incarnations, and check that all calls can have happened in that order."""
        # One that must come before another (its first call had returned when the other's
        # last began, and not the other way round) has the lesser sum.
        lives = sorted(self.lives.items(), key=lambda pair: sum(pair[1].times()))
        self.lives = defaultdict(Life, lives)
        latest, ended = -inf, -inf
        absent: list[tuple[float, float]] = []
        """In these times there may have been no session."""
        for life in self.lives.values():
            absent.append((ended, _returned(life.writes[min(life.writes)])))
            for _, _, call in life.calls():
                if _returned(call) < latest:
                    self.found.append(
                        f"not linearizable: {_name(call)} had returned before something began "
                        "that comes before it"
                    )
                latest = max(latest, call.invoked)
            ended = life.end.invoked if life.end is not None else inf
        absent.append((ended, inf))
        for call in self.absences:
            possible = any(a <= _returned(call) and call.invoked <= b for a, b in absent)
            if not possible and not self.ended_before(call):
                self.found.append(f"absent, it was said, while it was there: {_name(call)}")

    def ended_before(self, call: AnyCall) -> bool:
        """Whether a deletion did nothing because another one had been first."""
        if not isinstance(call, Deletion):
            return False
        life = self.lives.get(self.deleted_by(call))
        return life is not None and life.end is not None and life.end.invoked <= _returned(call)

    def replay(self) -> None:
        for incarnation, life in self.lives.items():
            model = Model()
            for version, looked, call in life.calls():
                known = model.head.version if model.head is not None else 0
                if version not in (known if looked else known + 1, END):
                    break  # behind a gap nothing can be judged
                if looked:
                    wrong = _untrue(model, call)
                else:
                    assert isinstance(call, Write)
                    for stage in call.commit.stages:
                        model.stage(incarnation, stage, self.parts[incarnation, stage])
                    wrong = _wrongly_applied(model, incarnation, call)
                if wrong is not None:
                    self.found.append(f"{wrong}: {_name(call)}")
            if self.head is not None and incarnation == self.head.incarnation:
                self.found += _differences(model, self.items, self.head)


def _wrongly_applied(model: Model, incarnation: bytes, call: Write) -> str | None:
    """Apply a commit to the model; why it should not have been, or was answered wrongly."""
    outcome = model.judge(call.commit)
    head = model.apply(call.commit, now=0)
    if outcome != Applied():
        return f"applied, though it had to be refused ({outcome})"
    if head.incarnation != incarnation:
        return f"it began {incarnation.hex()}, and had proposed {head.incarnation.hex()}"
    if call.head is not None and not call.replayed and not _same(call.head, head):
        return f"it was answered with {call.head}, not {head}"
    return None


def _untrue(model: Model, call: AnyCall) -> str | None:
    """Why a read, a refusal or the deletion at the end is not as the model would have it."""
    head = model.head
    if head is None:
        return None
    if call.head is not None and not _same(call.head, head):
        return f"it was shown {call.head}, not {head}"
    if isinstance(call, Write):
        expected = model.judge(call.commit)
        refused = isinstance(expected, Refused) and expected.error.__name__ == call.refusal
        return None if refused else f"it was {call.refusal}, not {expected}"
    if isinstance(call, Deletion):
        holds = not isinstance(call.expect, At) or call.expect == At(head.version, head.tip)
        return None if holds != bool(call.refusal) else f"it was {call.refusal or 'done'}"
    if isinstance(call, Part):
        return None
    for scan, rows in zip(call.scans, call.rows, strict=True):
        one = scan.stop == scan.start + b"\0"  # found without a walk through all
        wrong = model.disagreement(Get(scan.start) if one else scan, rows)
        if wrong is not None:
            return wrong
    return None


def _differences(model: Model, items: Sequence[Item], head: Head) -> list[str]:
    """How the end differs from the model."""
    found: list[str] = []
    there = {item.key: item for item in items}
    if list(there) != sorted(there) or len(there) < len(items):
        found.append("out of order: the items in the end")
    for key in sorted(there.keys() | model.items.keys()):
        ours, theirs = model.items.get(key), there.get(key)
        if theirs is None:
            found.append(f"lost: {ours}")
        elif ours is None:
            found.append(f"foreign: {theirs} was written by nobody")
        elif ours != theirs:
            found.append(f"altered: {theirs}, not {ours}")
    if model.head is None or not _same(head, model.head):
        found.append(f"the head is {head}, not {model.head}")
    return found


def _same(a: Head, b: Head) -> bool:
    """Whether two heads are equal but for their times, which the model cannot know."""
    timeless = {"created_at": 0, "updated_at": 0, "expires_at": None}
    return replace(a, **timeless) == replace(b, **timeless)


def _shows(head: Head | None, place: Place | None) -> bool:
    """Whether a head is that of the incarnation and of the version of a place, or later."""
    return (
        head is not None
        and place is not None
        and head.incarnation == place[0]
        and head.version >= place[1]
    )


def _returned(call: AnyCall) -> float:
    return inf if call.returned is None else call.returned


def _name(call: AnyCall) -> str:
    """What tells a call from others, for people."""
    match call:
        case Write():
            values = [value for append in call.commit.appends for value in append.values]
            return f"commit {call.commit.id.hex()} of {values or call.commit.puts}"
        case Deletion():
            return f"deletion {call.id.hex()}"
        case Part():
            return f"stage {call.stage.hex()}"
        case Sight():
            return f"read of {call.scans} at {call.invoked}"
