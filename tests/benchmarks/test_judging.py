"""How values are judged and shown."""

from benchmarks.sampling import Samples, rotated
from benchmarks.table import Row, Target


def row(judged: float | None, target: Target | None) -> Row:
    return Row(measure="append", unit="µs", turns=1000, values={}, judged=judged, target=target)


def test_a_target_is_met_up_to_its_limit() -> None:
    assert row(1.5, Target(1.5)).verdict == "ok"
    assert row(1.51, Target(1.5)).verdict == "missed"
    assert row(5, Target(5, at_least=True)).verdict == "ok"
    assert row(4.99, Target(5, at_least=True)).verdict == "missed"


def test_without_a_target_nothing_is_judged() -> None:
    assert row(9, None).verdict == ""


def test_a_line_shows_three_digits_and_who_did_not_take_part() -> None:
    line = Row(
        measure="append, p50",
        unit="µs",
        turns=5000,
        values={"bare": 66.66, "sqlite": 1234.5},
        judged=0.0,
        target=Target(1.5),
    )
    assert line.cells(("bare", "sqlite", "memory")) == (
        *("append, p50", "5,000", "µs"),
        *("66.7", "1,234", "", "0", "≤ 1.5", "ok"),
    )


def test_the_median_and_the_quantiles_are_measured_values() -> None:
    samples = Samples[str]()
    for value in (5.0, 1.0, 4.0, 2.0, 3.0):
        samples.add("x", value)
    assert samples.median("x") == 3
    assert samples.quantile("x", 0.99) == 5
    assert samples.quantile("x", 0) == 1


def test_rotation_lets_each_be_the_first() -> None:
    assert [rotated("abc", by) for by in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
