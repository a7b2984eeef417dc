"""The kit on every mutant, to be run by pytest in a process of its own: see test_mutants.py.

For each mutant one class with the tests that must tell on it, and with ``SOUND``, which a
backend with but one fault still passes. The same for the unbroken backend, with all of them.
"""

import pytest

from perdure.testing import BackendContract

from tests.backends.memory.durable import DurableHarness, DurableMemory
from tests.mutants.catalogue import MUTANTS, enter_all

enter_all()

SOUND = (
    "test_first_commit_makes_version_one",
    "test_versions_grow_by_one_and_tip_names_the_commit",
    "test_values_come_back_byte_for_byte",
    "test_rows_answer_the_reads_in_their_order",
    "test_absent_requires_none",
    "test_appended_keys_are_prefix_version_ordinal",
    "test_a_deleted_session_is_absent_at_once",
    "test_entries_show_key_and_head",
    "test_a_change_that_came_before_ends_it_at_once",
    "test_what_was_acknowledged_is_there_after_a_restart",
)

EVERY = {name for name in dir(BackendContract) if name.startswith("test_")}


def suite(backend: type[DurableMemory], tests: set[str]) -> type[BackendContract]:
    """The contract, cut down to ``tests``, for one backend."""
    unknown = tests - EVERY
    if unknown:
        raise LookupError(f"the kit has no such tests: {sorted(unknown)}")

    @pytest.fixture
    def harness(self: object) -> DurableHarness:
        return DurableHarness(backend)

    left_out = dict.fromkeys(EVERY - tests)
    name = f"Test{backend.__name__}"
    return type(
        name, (BackendContract,), {"harness": harness, "__module__": __name__} | left_out
    )


for mutant in MUTANTS.values():
    made = suite(mutant.backend, {*mutant.caught_by, *SOUND})
    globals()[made.__name__] = made

needed = {test for mutant in MUTANTS.values() for test in mutant.caught_by}
TestDurableMemory = suite(DurableMemory, {*needed, *SOUND})
