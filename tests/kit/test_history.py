"""The history checker finds each way in which a session can contradict its writers."""

from itertools import count

import msgspec
import pytest

from perdure.testing.history import Operation, violations
from perdure.types import Head, Item, append_key


def head(version: int) -> Head:
    return Head(
        version=version, incarnation=b"i" * 16, tip=b"t" * 16, created_at=1, updated_at=1
    )


def item(value: bytes, version: int) -> Item:
    return Item(append_key(b"log", version, 0), value, version)


def operation(writer: str, number: int, version: int | None) -> Operation:
    """One that began after that of the version before had returned."""
    time = float(version or 0)
    value = f"{writer}{number}".encode()
    return Operation(
        writer=writer,
        number=number,
        value=value,
        version=version,
        invoked=time,
        returned=time + 0.5,
    )


OPERATIONS = [
    operation("a", 0, 1),
    operation("b", 0, 2),
    operation("a", 1, 3),
    operation("b", 1, 4),
]
ITEMS = [item(b"a0", 1), item(b"b0", 2), item(b"a1", 3), item(b"b1", 4)]


def test_a_faultless_history_has_no_violations() -> None:
    assert violations(OPERATIONS, ITEMS, head(4)) == []
    assert violations(reversed(OPERATIONS), ITEMS, head(4)) == []
    assert violations([], [], None) == []


def test_overlapping_operations_may_come_in_either_order() -> None:
    first = msgspec.structs.replace(OPERATIONS[0], invoked=0.0, returned=9.0)
    second = msgspec.structs.replace(OPERATIONS[1], invoked=0.0, returned=1.0)
    swapped = [
        msgspec.structs.replace(first, version=2),
        msgspec.structs.replace(second, version=1),
    ]
    assert violations([first, second], ITEMS[:2], head(2)) == []
    assert violations(swapped, [item(b"b0", 1), item(b"a0", 2)], head(2)) == []


@pytest.mark.parametrize("applied", [True, False])
def test_an_operation_of_unknown_outcome_may_have_happened_or_not(applied: bool) -> None:
    operations = [*OPERATIONS[:3], operation("b", 1, None)]
    items, version = (ITEMS, 4) if applied else (ITEMS[:3], 3)
    assert violations(operations, items, head(version)) == []


def test_a_lost_value() -> None:
    (found,) = violations(OPERATIONS, [*ITEMS[:1], *ITEMS[2:]], head(4))
    assert "lost" in found
    assert "b0" in found


def test_a_session_that_is_gone_has_lost_everything() -> None:
    found = violations(OPERATIONS, [], None)
    assert sum("lost" in violation for violation in found) == 4


def test_a_doubled_value() -> None:
    found = violations(OPERATIONS, [*ITEMS, item(b"a0", 5)], head(5))
    assert any("doubled" in violation and "a0" in violation for violation in found)


def test_a_value_at_another_version_than_acknowledged() -> None:
    items = [item(b"b0", 1), item(b"a0", 2), *ITEMS[2:]]
    found = violations(OPERATIONS, items, head(4))
    assert ["moved" in violation for violation in found] == [True, True]


def test_a_refused_value_that_is_there() -> None:
    refused = msgspec.structs.replace(OPERATIONS[3], version=None, refused=True)
    (found,) = violations([*OPERATIONS[:3], refused], ITEMS, head(4))
    assert "refused" in found
    assert violations([*OPERATIONS[:3], refused], ITEMS[:3], head(3)) == []


def test_a_value_that_nobody_wrote() -> None:
    (found,) = violations(OPERATIONS[:3], ITEMS, head(4))
    assert "written by nobody" in found


def test_one_version_acknowledged_to_two() -> None:
    twice = [*OPERATIONS[:3], operation("b", 1, 3)]
    found = violations(twice, [*ITEMS[:3], Item(b"log~", b"b1", 3)], head(3))
    assert any("acknowledged 2 times" in violation for violation in found)


def test_a_gap_in_the_versions() -> None:
    operations = [*OPERATIONS[:3], operation("b", 1, 5)]
    (found,) = violations(operations, [*ITEMS[:3], item(b"b1", 5)], head(5))
    assert "gap" in found
    assert "[4]" in found


def test_a_version_beyond_the_head() -> None:
    (found,) = violations(OPERATIONS, ITEMS, head(3))
    assert "head is at version 3" in found


def test_one_writers_operations_out_of_order() -> None:
    numbers = count()
    versions = {"first": 2, "second": 1}
    operations = [
        Operation(writer="a", number=next(numbers), value=value.encode(), version=version)
        for value, version in versions.items()
    ]
    (found,) = violations(operations, [item(b"second", 1), item(b"first", 2)], head(2))
    assert "reordered" in found


def test_one_writers_unacknowledged_operation_out_of_order() -> None:
    operations = [
        Operation(writer="a", number=0, value=b"first", version=None),
        Operation(writer="a", number=1, value=b"second", version=1),
    ]
    (found,) = violations(operations, [item(b"second", 1), item(b"first", 2)], head(2))
    assert "reordered" in found


def test_an_acknowledgement_that_later_operations_overtake() -> None:
    """b0 returned before a0 began, yet a0 was put in front of it."""
    operations = [
        msgspec.structs.replace(OPERATIONS[0], invoked=5.0, returned=6.0),
        msgspec.structs.replace(OPERATIONS[1], invoked=1.0, returned=2.0),
    ]
    (found,) = violations(operations, ITEMS[:2], head(2))
    assert "not linearizable" in found


def test_keys_that_do_not_order_as_versions() -> None:
    items = [Item(b"a", b"b0", 2), Item(b"b", b"a0", 1), *ITEMS[2:]]
    found = violations(OPERATIONS, items, head(4))
    assert found == ["out of order: version 1 sorts behind 2"]
    (found,) = violations(OPERATIONS, [*ITEMS[:2], ITEMS[3], ITEMS[2]], head(4))[:1]
    assert "comes after" in found
