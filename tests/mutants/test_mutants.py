"""The kit rejects every broken backend, by the test whose subject the fault is."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.mutants.run_kit import MUTANTS, SOUND, needed

ROOT = Path(__file__).parents[2]

Results = Mapping[str, Mapping[str, bool]]
"""Class of run_kit -> test -> whether it passed, with all of its parameters."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    report = tmp_path_factory.mktemp("mutants") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=line", "-q"]
    command += [f"--junitxml={report}", str(Path(__file__).with_name("run_kit.py"))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found: defaultdict[str, dict[str, bool]] = defaultdict(dict)
    for case in ElementTree.parse(report).iter("testcase"):
        suite = case.attrib["classname"].rpartition(".")[2]
        test = case.attrib["name"].partition("[")[0]
        assert case.find("error") is None, f"{suite}.{test} broke down: {run.stdout}"
        assert case.find("skipped") is None, f"{suite}.{test} was skipped"
        passed = case.find("failure") is None
        found[suite][test] = found[suite].get(test, True) and passed
    return found


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_the_kit_rejects(name: str, results: Results) -> None:
    outcome = results[f"Test{name}"]
    missed = [test for test in MUTANTS[name].caught_by if outcome[test]]
    assert not missed, "these should tell on it"
    broken = [
        test for test in SOUND if test not in MUTANTS[name].caught_by and not outcome[test]
    ]
    assert not broken, "more is wrong with it than the one fault"


def test_the_unbroken_backend_passes_the_same_tests(results: Results) -> None:
    outcome = results["TestDurableMemory"]
    assert set(outcome) == {*needed, *SOUND}
    assert all(outcome.values()), [test for test, passed in outcome.items() if not passed]
