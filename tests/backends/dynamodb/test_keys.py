"""Keys keep their order, and rows what was put into them, or say that they are damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from perdure.errors import Corrupt, FormatTooNew
from perdure.testing.shorthand import new_id
from perdure.types import MAX_ITEM_KEY_BYTES

from perdure_dynamodb import keys, rows
from perdure_dynamodb.state import (
    FORMAT,
    Kind,
    State,
    Tomb,
    decode,
    decode_values,
    encode,
    marked,
)

item_keys = st.binary(max_size=40) | st.lists(
    st.sampled_from([b"\0", b"\xff", b"\xf7", b"\xfe", b"a" * 8, b"\0" * 8, b"\xff" * 8])
).map(b"".join)

STATE = State(
    slot=7,
    version=5,
    incarnation=new_id(),
    tip=new_id(),
    digest=b"12345678",
    made_at=1_700_000_000_000,
    first=3,
    segment=3,
    created_at=1_700_000_000_000,
    updated_at=1_700_000_000_000,
    log=b"l\0",
)


@given(st.lists(item_keys))
def test_sortable_keys_order_as_keys_do_and_come_back(found: list[bytes]) -> None:
    forms = [keys.sortable(key) for key in found]
    assert [keys.unsortable(form) for form in forms] == found
    assert sorted(forms) == [keys.sortable(key) for key in sorted(found)]
    assert all(form < keys.BEYOND for form in forms)


@given(item_keys, item_keys)
def test_no_sortable_key_starts_with_another(a: bytes, b: bytes) -> None:
    assert a == b or not keys.sortable(a).startswith(keys.sortable(b))


@given(item_keys, item_keys, item_keys | st.none())
def test_a_range_holds_the_rows_of_its_keys_staged_or_not(
    key: bytes, start: bytes, stop: bytes | None
) -> None:
    life = new_id()
    low, high = keys.item_range(life, start, stop)
    for stage in (keys.UNSTAGED, b"\xff" * 16, new_id()):
        row = keys.item(life, key, stage)
        assert (low <= row <= high) == (start <= key and (stop is None or key < stop))
        assert keys.item_of(row) == (key, stage)


def test_the_longest_key_fits_a_sort_key() -> None:
    assert len(keys.item(new_id(), b"\xff" * MAX_ITEM_KEY_BYTES)) <= 1024
    assert keys.sortable(b"\xff" * MAX_ITEM_KEY_BYTES) < keys.BEYOND


def test_rows_of_different_kinds_and_lives_lie_apart() -> None:
    one, other = bytes(15) + b"\1", bytes(15) + b"\2"
    _, above = keys.item_range(one, b"", None)
    assert above < keys.item(other, b"")
    assert keys.item_range(b"\xff" * 16, b"", None)[1] < keys.NO_SLOT
    assert keys.stage(bytes(16), bytes(16)) > keys.LAST_SLOT


def test_a_state_comes_back_as_it_was_and_is_small() -> None:
    state = STATE
    for _ in range(100):
        id = new_id()
        recent = marked(state.recent, id)
        state = replace(state, recent=recent, tip=id, tombs=(Tomb(b"a", None, 3),))
    assert decode(encode(state)) == state
    assert len(encode(state)) < 320, "each commit pays for it"


def test_marks_tell_which_ids_were_not_used_lately() -> None:
    """A life's last 64 commits, and the delete behind them."""
    ids = [bytes(14) + number.to_bytes(2, "big") for number in range(200)]
    recent = b""
    for id in ids:
        recent = marked(recent, id)
    state = replace(STATE, recent=recent)
    assert [id for id in ids if state.may_remember(id)] == ids[-65:]
    assert state.marks == 65
    # Bytes of neighbours are not taken for a mark.
    assert not state.may_remember(bytes(14) + recent[1:3])


def test_a_newer_format_and_damage_are_told_apart() -> None:
    newer = encode(replace(STATE, format=FORMAT + 1))
    with pytest.raises(FormatTooNew):
        decode(newer)
    with pytest.raises(FormatTooNew):
        decode(b"\x92" + bytes((FORMAT + 1,)) + b"\xc0")
    for damaged in (b"", b"\xff", b"\x90", encode(STATE)[:-1], b"\x92\x01\xc0"):
        with pytest.raises(Corrupt):
            decode(damaged)
    with pytest.raises(Corrupt):
        decode_values(b"\x81\x01\x01")


@pytest.mark.parametrize(
    "row",
    [{}, {"h": 1}, {"h": "text"}, {"h": encode(STATE), "v": 1}, {"h": encode(STATE), "z": b""}],
)
def test_a_slot_of_another_shape_is_corrupt(row: dict[str, bytes | int | str]) -> None:
    with pytest.raises(Corrupt):
        rows.slot_of(row)


def test_a_stub_is_no_session() -> None:
    for kind in Kind:
        state = replace(STATE, kind=kind)
        assert state.present(0) == (kind is Kind.COMMIT)
