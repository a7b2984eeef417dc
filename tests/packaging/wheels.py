"""Building the distributions of this checkout, and environments to install them into."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.quality.workspace import ROOT, members

DISTRIBUTIONS = {"perdure": ROOT, **{member.name: member.directory for member in members()}}


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; what it wrote to standard output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PERDURE_URL")
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, "PIP_USER": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(
            f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def build(directory: Path, target: str, out: Path) -> Path:
    """Build a ``wheel`` or ``sdist`` with the build backend of this environment."""
    out.mkdir(parents=True, exist_ok=True)
    before = set(out.iterdir())
    call(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", out, cwd=directory)
    (built,) = set(out.iterdir()) - before
    return built


def build_from_sdist(sdist: Path, out: Path) -> Path:
    """Build the wheel that pip would make of a source distribution."""
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    call(*pip, "--wheel-dir", out, sdist, cwd=sdist.parent)
    (built,) = out.iterdir()
    return built


class Environment:
    """An empty virtual environment, and this one's pip to fill it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / ("Scripts" if os.name == "nt" else "bin")
        venv.create(path, with_pip=False)

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def install(self, *arguments: str | Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.python)
        call(*pip, "install", "-q", "--disable-pip-version-check", *arguments, cwd=self.path)

    def install_from_index(self, *requirements: str) -> None:
        """Third-party packages at the versions of constraints.txt.

        Where they cannot be had, a test is skipped, but not under CI.
        """
        try:
            self.install("--constraint", ROOT / "constraints.txt", *requirements)
        except AssertionError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"the package index cannot be reached: {error}")

    def run(self, *command: str, cwd: Path) -> str:
        """Run a program of this environment."""
        return call(self.bin / command[0], *command[1:], cwd=cwd)
