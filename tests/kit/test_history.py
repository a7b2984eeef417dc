"""The history checker finds each way in which a session can contradict its clients.

A true account of two lives of a session is doctored, one thing at a time.
"""

from typing import Unpack

import msgspec
import pytest
from msgspec.structs import replace

from perdure.errors import Conflict, SessionDeleted
from perdure.testing.history import violations
from perdure.testing.recorder import AnyCall, Deletion, Recorder, Sight, Write
from perdure.testing.shorthand import CommitFields, at, new_id, read_items, write
from perdure.types import (
    Append,
    Condition,
    Expect,
    Get,
    Head,
    Item,
    KeyRange,
    Rows,
    Scan,
    SessionKey,
    append_key,
)

from perdure_memory.backend import MemoryBackend

KEY = SessionKey("t", "session", "s")
LOG = b"log"
LEASE = b"lease"


def log(value: bytes) -> tuple[Append, ...]:
    return (Append(LOG, (value,)),)


def lease_at(version: int) -> tuple[Condition, ...]:
    return (Condition(LEASE, version),)


class Account(msgspec.Struct):
    """What happened, to be doctored: no two calls overlap in time."""

    calls: list[AnyCall]
    items: list[Item]
    head: Head | None

    def found(self) -> list[str]:
        return violations(self.calls, self.items, self.head)

    def writes(self, value: bytes) -> list[Write]:
        """The notes of the commit that appended this value: when sent, and when answered."""
        return [
            call
            for call in self.calls
            if isinstance(call, Write) and log(value) == call.commit.appends
        ]

    def change(self, call: AnyCall, *others: AnyCall) -> None:
        """Put other notes in the place of one."""
        place = next(n for n, other in enumerate(self.calls) if other is call)
        self.calls[place : place + 1] = others

    def drop(self, value: bytes) -> None:
        """Forget that anybody sent this value."""
        for note in self.writes(value):
            self.change(note)

    def sights(self) -> list[Sight]:
        return [call for call in self.calls if isinstance(call, Sight)]

    def deletions(self) -> list[Deletion]:
        return [call for call in self.calls if isinstance(call, Deletion)]


@pytest.fixture
async def account() -> Account:
    calls: list[AnyCall] = []
    backend = Recorder(MemoryBackend(), calls.append)

    async def send(value: bytes, **fields: Unpack[CommitFields]) -> Head:
        fields["appends"] = log(value)
        head = (await write(backend, KEY, **fields)).head
        assert head is not None
        return head

    first = await send(b"a1")
    await send(b"a2", expect=at(first))
    lease = await send(b"a3", conditions=lease_at(0), puts=((LEASE, b"one"),))
    await send(b"a4", conditions=lease_at(3), incarnation=first.incarnation)
    await send(b"a5", conditions=lease_at(lease.version), puts=((LEASE, b"two"),))
    with pytest.raises(Conflict):
        await send(b"stale", conditions=lease_at(3), incarnation=first.incarnation)
    await backend.read(KEY, Scan(), Get(LEASE))
    with pytest.raises(Conflict):
        await backend.delete(KEY, id=new_id(), expect=at(first))
    assert await backend.delete(KEY, id=new_id(), incarnation=first.incarnation)
    assert not await backend.delete(KEY, id=new_id(), incarnation=first.incarnation)
    with pytest.raises(SessionDeleted):
        await send(b"late", incarnation=first.incarnation)
    await backend.read(KEY, Scan())
    await send(b"b1", expect=Expect.ABSENT)
    await send(b"b2", puts=((b"cell/1", b"x"),))
    head = await send(b"b3", deletes=(KeyRange(b"cell/", b"cell0"),))
    told = list(calls)
    return Account(told, await read_items(backend, KEY), head)


def test_a_true_account_has_no_violations(account: Account) -> None:
    assert account.found() == []
    account.calls.reverse()
    assert account.found() == []
    assert violations([], [], None) == []


# What is there in the end


def test_a_lost_item(account: Account) -> None:
    del account.items[1]
    (found,) = account.found()
    assert "lost" in found
    assert "b2" in found


def test_a_session_that_is_gone(account: Account) -> None:
    account.items, account.head = [], None
    (found,) = account.found()
    assert "deleted by nobody" in found


def test_a_doubled_item(account: Account) -> None:
    account.items.append(Item(append_key(LOG, 4, 0), b"b2", 4))
    (found,) = account.found()
    assert "foreign" in found
    assert "b2" in found


def test_an_item_with_another_value_or_stamp(account: Account) -> None:
    sound = account.items[1]
    for altered in (replace(sound, value=b"other"), replace(sound, version=3)):
        account.items[1] = altered
        (found,) = account.found()
        assert "altered" in found


def test_items_out_of_order(account: Account) -> None:
    account.items.reverse()
    (found,) = account.found()
    assert "out of order" in found


def test_a_head_that_is_behind(account: Account) -> None:
    assert account.head is not None
    account.head = replace(account.head, version=2, tip=account.writes(b"b2")[0].commit.id)
    del account.items[2:]
    assert any("lost: versions after 2" in found for found in account.found())


def test_a_head_that_is_otherwise(account: Account) -> None:
    assert account.head is not None
    account.head = replace(account.head, last_delete=0)
    (found,) = account.found()
    assert "the head is" in found


# Versions


def test_a_version_that_nobody_made(account: Account) -> None:
    account.drop(b"b2")
    assert any("gap: nobody made the versions [2]" in found for found in account.found())


def test_one_version_for_two(account: Account) -> None:
    _, answer = account.writes(b"b3")
    account.change(answer, replace(answer, version=2))
    assert any("version 2 is of" in found for found in account.found())


def test_one_commit_applied_twice(account: Account) -> None:
    sent, answer = account.writes(b"b2")
    account.calls += [sent, answer]
    assert any("doubled" in found for found in account.found())


def test_one_commit_acknowledged_at_two_versions(account: Account) -> None:
    sent, answer = account.writes(b"b2")
    account.calls += [sent, replace(answer, replayed=True, version=1)]
    assert any("doubled" in found for found in account.found())


def test_a_replay_of_what_was_never_applied(account: Account) -> None:
    _, answer = account.writes(b"b2")
    account.change(answer, replace(answer, replayed=True))
    (found,) = account.found()
    assert "replayed, but it had not been applied" in found


# Who may write


@pytest.mark.parametrize("wanted", ["conditions", "expect", "incarnation"])
def test_a_commit_that_should_have_been_refused(account: Account, wanted: str) -> None:
    """Such as one under a lease that somebody else has taken over."""
    forbidding = {
        "conditions": lease_at(3),
        "expect": Expect.ABSENT,
        "incarnation": account.writes(b"a1")[1].incarnation,
    }
    for note in account.writes(b"b3"):
        asked = replace(note.commit, **{wanted: forbidding[wanted]})
        account.change(note, replace(note, commit=asked))
    (found,) = account.found()
    assert "applied, though it had to be refused" in found


def test_a_refusal_without_reason(account: Account) -> None:
    _, refusal = account.writes(b"stale")
    asked = replace(refusal.commit, conditions=lease_at(5))
    account.change(refusal, replace(refusal, commit=asked))
    (found,) = account.found()
    assert "it was Conflict, not Applied" in found


def test_a_refusal_for_another_reason(account: Account) -> None:
    _, refusal = account.writes(b"stale")
    account.change(refusal, replace(refusal, refusal="SessionDeleted"))
    (found,) = account.found()
    assert "it was SessionDeleted, not" in found


@pytest.mark.parametrize("error", ["Conflict", "Unavailable"])
def test_a_refused_commit_that_is_there(account: Account, error: str) -> None:
    _, answer = account.writes(b"b3")
    refused = replace(answer, version=None, incarnation=b"", refusal=error, head=None)
    account.change(answer, refused)
    assert any("refused, yet there" in found for found in account.found())


def test_an_answer_that_shows_another_head(account: Account) -> None:
    _, answer = account.writes(b"b2")
    assert answer.head is not None
    account.change(answer, replace(answer, head=replace(answer.head, labels=("other",))))
    (found,) = account.found()
    assert "it was answered with" in found


# What was read


def test_a_read_that_misses_an_item(account: Account) -> None:
    sight = account.sights()[0]
    everything, lease = sight.rows
    account.change(sight, replace(sight, rows=(Rows(everything.items[1:]), lease)))
    (found,) = account.found()
    assert "found" in found


def test_a_stale_read(account: Account) -> None:
    """It began when version 5 was acknowledged, and shows what was there before."""
    sight, told = account.sights()[0], account.writes(b"a4")[1]
    older = tuple(item for item in sight.rows[0].items if item.version < 5)
    lease = Item(LEASE, b"one", 3)
    older = (lease, *(item for item in older if item.key != LEASE))
    stale = replace(sight, head=told.head, rows=(Rows(older), Rows((lease,))))
    account.change(sight, stale)
    found = account.found()
    assert found
    assert all("not linearizable" in wrong for wrong in found)


def test_a_read_of_the_future(account: Account) -> None:
    sight = account.sights()[0]
    account.change(sight, replace(sight, returned=account.writes(b"a5")[0].invoked - 1e-9))
    (found,) = account.found()
    assert "not linearizable" in found


def test_a_read_of_nothing_where_something_is(account: Account) -> None:
    sight = account.sights()[0]
    account.change(sight, replace(sight, head=None, rows=(Rows(), Rows())))
    (found,) = account.found()
    assert "absent, it was said, while it was there" in found


def test_items_of_a_session_that_is_absent(account: Account) -> None:
    sight = account.sights()[1]
    account.change(sight, replace(sight, rows=(Rows((account.items[0],)),)))
    (found,) = account.found()
    assert "items of a session that is absent" in found


# Deletions


def test_two_deletions_of_one_session(account: Account) -> None:
    done = account.deletions()[-1]
    account.change(done, replace(done, deleted=True))
    (found,) = account.found()
    assert "deleted twice" in found


def test_a_deletion_that_did_nothing(account: Account) -> None:
    assert account.head is not None
    note = replace(account.deletions()[-1], incarnation=account.head.incarnation, id=b"id")
    account.calls += [replace(note, returned=None, deleted=None), replace(note, deleted=True)]
    assert any("deleted, yet there" in found for found in account.found())


def test_a_deletion_that_is_said_to_have_nothing_to_do(account: Account) -> None:
    assert account.head is not None
    now = account.calls[-1].invoked
    note = replace(account.deletions()[-1], invoked=now, returned=now)
    account.calls.append(replace(note, incarnation=account.head.incarnation, id=b"id"))
    (found,) = account.found()
    assert "absent, it was said" in found


def test_a_deletion_refused_without_reason(account: Account) -> None:
    refused = next(call for call in account.deletions() if call.refusal)
    assert refused.head is not None
    account.change(refused, replace(refused, expect=at(refused.head)))
    (found,) = account.found()
    assert "it was Conflict" in found


def test_a_session_that_ended_by_itself(account: Account) -> None:
    for call in account.deletions():
        if call.incarnation is not None:
            account.change(call)
    assert any("deleted by nobody" in found for found in account.found())


def test_a_write_after_the_deletion(account: Account) -> None:
    """The version is free, and the deletion had returned before the commit was sent."""
    late, first = account.writes(b"late"), account.writes(b"a5")[1]
    for note in late:
        account.change(note)
    sent = replace(late[0], commit=replace(late[0].commit, incarnation=None))
    answer = replace(sent, returned=late[1].returned, version=6, incarnation=first.incarnation)
    account.calls += [sent, answer]
    assert any("not linearizable" in found for found in account.found())


# The order in which it can have happened


def test_overlapping_commits_may_come_in_either_order(account: Account) -> None:
    early = account.writes(b"b1")[0].invoked
    for value in (b"b1", b"b2", b"b3"):
        sent, answer = account.writes(value)
        account.change(sent, replace(sent, invoked=early))
        late = account.calls[-1].returned
        account.change(answer, replace(answer, invoked=early, returned=late))
    assert account.found() == []


def test_a_commit_that_comes_before_one_that_had_returned(account: Account) -> None:
    (sent, answer), end = account.writes(b"b1"), account.calls[-1].returned
    assert end is not None
    account.change(sent, replace(sent, invoked=end + 1))
    account.change(answer, replace(answer, invoked=end + 1, returned=end + 2))
    found = account.found()
    assert found
    assert all("not linearizable" in wrong for wrong in found)


# Unknown outcomes


@pytest.mark.parametrize("value", [b"b3", b"b2", b"a5"])
def test_a_commit_of_unknown_outcome_that_was_applied(account: Account, value: bytes) -> None:
    """The head names it as its tip, its entry is there, or a read has shown it."""
    account.change(account.writes(value)[1])
    assert account.found() == []


def test_a_commit_of_unknown_outcome_that_was_not_applied(account: Account) -> None:
    account.change(account.writes(b"stale")[1])
    assert account.found() == []


def test_a_commit_of_unknown_outcome_that_had_to_be_refused(account: Account) -> None:
    sent, answer = account.writes(b"b2")
    account.change(answer)
    account.change(sent, replace(sent, commit=replace(sent.commit, conditions=lease_at(7))))
    (found,) = account.found()
    assert "applied, though it had to be refused" in found


def test_a_resend_that_is_refused_though_the_commit_was_applied(account: Account) -> None:
    sent, answer = account.writes(b"b2")
    resent = replace(sent, commit=replace(sent.commit, resend=True))
    refused = replace(answer, commit=resent.commit, version=None, refusal="Conflict")
    account.change(answer, resent, refused)
    assert any("applied, then Conflict" in found for found in account.found())


def test_an_unknown_outcome_that_a_resend_settles(account: Account) -> None:
    sent, answer = account.writes(b"b2")
    account.change(answer, sent, replace(answer, replayed=True))
    assert account.found() == []


def test_a_deletion_of_unknown_outcome_that_was_done(account: Account) -> None:
    account.change(next(call for call in account.deletions() if call.deleted))
    assert account.found() == []


def test_a_deletion_must_name_what_it_deletes(account: Account) -> None:
    for note in account.deletions():
        account.change(note, replace(note, incarnation=None, expect=Expect.PRESENT))
    with pytest.raises(ValueError, match="must name"):
        account.found()


# Stages


async def test_a_staged_commit_is_applied_with_all_its_parts() -> None:
    calls: list[AnyCall] = []
    backend = Recorder(MemoryBackend(), calls.append)
    await write(backend, KEY, new_incarnation=b"i" * 16)
    for key in (b"1", b"2"):
        await backend.stage(KEY, b"i" * 16, b"stage", ((key, b"part"),))
    head = (await write(backend, KEY, stages=(b"stage",))).head
    items = await read_items(backend.backend, KEY)
    assert violations(calls, items, head) == []
    (found,) = violations(calls, items[:1], head)
    assert "lost" in found


# The notes themselves


def test_notes_survive_json(account: Account) -> None:
    lines = [msgspec.json.encode(call) for call in account.calls]
    account.calls = [msgspec.json.decode(line, type=AnyCall) for line in lines]
    assert account.found() == []
