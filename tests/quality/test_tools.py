"""Types, lint, format and import rules: each tool finds nothing to say."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.quality.workspace import ROOT


def assert_quiet(*command: str) -> None:
    tool = [sys.executable, "-m", *command]
    done = subprocess.run(
        tool, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n\n{done.stdout}", pytrace=False)


def test_ruff_has_no_complaint() -> None:
    assert_quiet("ruff", "check", "--no-cache")


def test_ruff_would_format_it_the_same() -> None:
    assert_quiet("ruff", "format", "--diff", "--no-cache")


def test_basedpyright_finds_the_types_sound() -> None:
    assert_quiet("basedpyright", "--pythonpath", sys.executable)


def test_nobody_imports_whom_they_must_not() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode or " 0 broken" not in done.stdout:
        pytest.fail(done.stdout, pytrace=False)


def test_no_type_or_lint_complaint_is_switched_off_wholesale() -> None:
    """Also none that nobody needs: basedpyright and ruff say so of the others."""
    silencers = ("type: " + "ignore", "pyright: " + "basic", "ruff: " + "noqa", "mypy" + ":")
    sources = [
        path
        for folder in ("core", "backends", "contrib", "tests", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 20
    for path in sources:
        text = path.read_text()
        found = [silencer for silencer in silencers if silencer in text]
        assert found == [], path.relative_to(ROOT)


def test_the_linters_look_everywhere() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    seen = {Path(line).resolve() for line in listed}
    for path in (ROOT / "dev.py", ROOT / "core/src/perdure/types.py", Path(__file__)):
        assert path.resolve() in seen
