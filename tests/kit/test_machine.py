"""The state machine finds faults by itself, and none where there is none."""

import pytest
from hypothesis import Phase, settings

from perdure.testing.machine import chosen_settings, run_machine

from tests.backends.memory.durable import DurableHarness
from tests.mutants.catalogue import MUTANTS, enter_all

enter_all()

SEEDED = (
    "AppliesPutsOnConflict",
    "CountsOnAfterDeletion",
    "DeletesLast",
    "DeletionForgetsIds",
    "ExpiresEarly",
    "ForgetsIds",
    "ForgetsLastDelete",
    "ForgetsTheDigest",
    "IgnoresTheTip",
    "LimitHidesMore",
    "ListsTheDeleted",
    "ReusesTheIncarnation",
    "SignedBytes",
    "SkipsMissingStages",
)


@pytest.mark.parametrize("name", SEEDED)
def test_it_finds(name: str) -> None:
    quickly = settings(chosen_settings(), phases=(Phase.generate,), max_examples=1000)
    with pytest.raises(AssertionError):
        run_machine(DurableHarness(MUTANTS[name].backend), quickly)


def test_it_finds_nothing_wrong_with_the_reference() -> None:
    run_machine(DurableHarness(), settings(chosen_settings(), max_examples=30))


def test_the_examples_are_the_same_each_time_unless_more_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PERDURE_KIT_EXAMPLES", raising=False)
    assert chosen_settings().derandomize
    monkeypatch.setenv("PERDURE_KIT_EXAMPLES", "5000")
    assert not chosen_settings().derandomize
    assert chosen_settings().max_examples == 5000
