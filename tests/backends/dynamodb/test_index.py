"""What commits change of the rows by which sessions are listed and swept."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from perdure.types import MAX_LABELS, SessionKey

from perdure_dynamodb import due, index
from perdure_dynamodb.actions import PARTITION, SORT, Action, Check, Put, Row
from perdure_dynamodb.chain import SETTLING_MS
from perdure_dynamodb.due import What
from perdure_dynamodb.removal import sealed
from perdure_dynamodb.state import Kind, State, Tomb

KEY = SessionKey.of("acme", "session", "chat-7")
START = 1_700_000_000_000
HOUR = 3_600_000


def created(slot: int, now: int, incarnation: bytes = bytes(16)) -> State:
    return State(
        slot=slot,
        version=1,
        incarnation=incarnation,
        tip=bytes(16),
        made_at=now,
        first=slot,
        segment=slot,
        created_at=now,
        updated_at=now,
    )


def following(before: State, now: int) -> State:
    made_at = max(now, before.made_at)
    return replace(
        before,
        slot=before.slot + 1,
        version=before.version + 1,
        made_at=made_at,
        updated_at=made_at,
    )


class Rows:
    """The rows of a table, as transactions leave them."""

    def __init__(self) -> None:
        self.rows: dict[index.Place, Row] = {}

    def apply(self, actions: list[Action]) -> None:
        touched: set[index.Place] = set()
        for action in actions:
            assert not isinstance(action, Check)
            if isinstance(action, Put):
                partition, sort = action.row[PARTITION], action.row[SORT]
                assert isinstance(partition, bytes)
                assert isinstance(sort, bytes)
                place = partition, sort
                self.rows[place] = action.row
            else:
                place = action.partition, action.sort
                assert self.rows.pop(place, None) is not None, "nothing is removed in vain"
            assert place not in touched, "a transaction acts on each row once"
            touched.add(place)

    def listed(self) -> set[index.Place]:
        return {place for place in self.rows if place[0][:1] != b"d"}

    def due(self, what: What) -> list[due.Due]:
        tasks = [due.of(row) for place, row in self.rows.items() if place[0][:1] == b"d"]
        return [task for task in tasks if task.what == what]


STEPS = st.tuples(
    st.sampled_from(("commit", "commit", "commit", "delete", "successor")),
    st.sampled_from((0, 1, 59_999, 60_000, HOUR)),  # ms since the step before
    st.sampled_from((None, (), ("a",), ("b", "a"), ("a", "b", "c", "d"))),
    st.sampled_from((None, 0, 1, 30_000, HOUR, 30 * HOUR)),  # expires in; 0: never
)


@given(st.lists(STEPS, max_size=12))
def test_the_rows_are_those_of_the_newest_slot(
    steps: list[tuple[str, int, tuple[str, ...] | None, int | None]],
) -> None:
    table = Rows()
    state: State | None = None
    now, ended = START, 0
    for step, pause, labels, expires_in in steps:
        now += pause
        if step == "delete":
            if state is None or state.kind is not Kind.COMMIT:
                continue
            seal = sealed(state, bytes(16), now)
            table.apply(index.sealing(KEY, state, seal))
            state, ended = seal, ended + 1
        else:
            made = (
                created(1 if state is None else state.slot + 1, now)
                if state is None or state.kind is not Kind.COMMIT or step == "successor"
                else following(state, now)
            )
            if labels is not None:
                made = replace(made, labels=labels)
            if expires_in is not None:
                made = replace(made, expires_at=now + expires_in if expires_in else None)
            ended += state is not None and state.kind is Kind.COMMIT and step == "successor"
            made, actions = index.changes(KEY, state, made, now)
            table.apply(actions)
            state = made

        assert table.listed() == index.places(KEY, state)
        expiries = table.due(What.EXPIRE)
        if state.kind is Kind.COMMIT and state.expires_at is not None:
            assert [task.at for task in expiries] == [state.due_at]
            assert state.due_at <= state.expires_at
            assert expiries[0].first == state.first
        else:
            assert expiries == []
        lives = table.due(What.LIFE)
        assert len(lives) == ended, "what each life leaves is to be removed"
        slots = sorted((task.first, task.last) for task in lives)
        assert all(first <= last for first, last in slots)
        assert all(one[1] < other[0] for one, other in pairwise(slots))


def test_a_plain_commit_changes_nothing() -> None:
    state, _ = index.changes(KEY, None, created(1, START), START)
    state = replace(state, labels=("a",))
    state, _ = index.changes(KEY, state, following(state, START + 1), START + 1)
    assert index.changes(KEY, state, following(state, START + 59_999), START + 59_999)[1] == []


def test_recency_moves_once_a_minute() -> None:
    state, _ = index.changes(KEY, None, created(1, START), START)
    moved = 0
    for now in range(START, START + 600_001, 1_000):
        state, actions = index.changes(KEY, state, following(state, now), now)
        assert state.updated_at - state.recent_at < index.RECENCY_LAG
        moved += bool(actions)
    assert moved == 10


def test_an_expiry_that_slides_moves_its_row_only_when_that_is_past() -> None:
    state = replace(created(1, START), expires_at=START + HOUR)
    state, _ = index.changes(KEY, None, state, START)
    assert state.due_at == START + HOUR
    moved: list[int] = []
    for minute in range(1, 240):
        now = START + 60_000 * minute
        after = replace(following(state, now), expires_at=now + HOUR)
        state, _ = index.changes(KEY, state, after, now)
        if state.due_at not in moved:
            moved.append(state.due_at)
    assert len(moved) == 4


def test_an_expiry_brought_forward_brings_its_row_along() -> None:
    table = Rows()
    state = replace(created(1, START), expires_at=START + HOUR)
    state, actions = index.changes(KEY, None, state, START)
    table.apply(actions)
    after = replace(following(state, START), expires_at=START + 5)
    state, actions = index.changes(KEY, state, after, START)
    table.apply(actions)
    assert [task.at for task in table.due(What.EXPIRE)] == [START + 5]


def test_a_restored_session_is_as_recent_as_it_was() -> None:
    restored = replace(created(1, START), updated_at=START - 10 * HOUR)
    state, _ = index.changes(KEY, None, restored, START)
    assert state.recent_at == START - 10 * HOUR
    again = following(state, START)
    again = replace(again, segment=again.slot, updated_at=START - 20 * HOUR)
    state, _ = index.changes(KEY, state, again, START)
    assert state.recent_at == START - 20 * HOUR


def test_each_deletion_of_items_is_to_be_done_physically() -> None:
    state, _ = index.changes(KEY, None, created(1, START), START)
    carried = Tomb(b"a", b"b", 2)
    state = replace(following(state, START), tombs=(carried,))
    assert [type(action) for action in index.changes(KEY, state, state, START)[1]] == [Put]
    assert due.tombs(KEY, state).at == START + SETTLING_MS, "when all it covers shows"
    after = following(state, START)
    assert index.changes(KEY, state, after, START)[1] == [], "it was filed when it was made"


def test_a_transaction_has_room_for_all_of_it() -> None:
    old = replace(created(1, START), labels=tuple("abcd"[:MAX_LABELS]), expires_at=START + HOUR)
    old, _ = index.changes(KEY, None, old, START)
    after = replace(
        created(2, START + HOUR),
        labels=tuple("efgh"[:MAX_LABELS]),
        expires_at=START + 9 * HOUR,
        tombs=(Tomb(b"", None, 2),),
    )
    actions = index.changes(KEY, old, after, START + HOUR)[1]
    assert len(actions) == 22
    assert len(index.sealing(KEY, old, sealed(old, bytes(16), START))) <= 22


def test_names_that_run_together_lie_apart() -> None:
    keys = [
        SessionKey.of(tenant, kind, "s")
        for tenant, kind in (("a", "bc"), ("ab", "c"), ("a", "b"), ("ab", "b"), ("a", "c"))
    ]
    partitions = {
        index.partition(b"\0", key.tenant, key.kind, label, recency=recency)
        for key in keys
        for label in (None, "b", "c", "bc")
        for recency in (False, True)
    }
    assert len(partitions) == len(keys) * 8


def test_the_longest_names_fit() -> None:
    key = SessionKey.of("t" * 512, "k" * 512, "i" * 512)
    state = replace(created(1, START), labels=("l" * 128,), expires_at=START)
    places = set(index.places(key, state))
    places |= {due.life(key, state, sealed(state, bytes(16), START)).place()}
    assert max(len(partition) for partition, _ in places) <= 2048
    assert max(len(sort) for _, sort in places) <= 1024
