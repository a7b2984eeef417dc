"""The backend that docs/backend-authors.md builds is whole: it installs, and passes the kit."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.markdown import files
from tests.docs.test_readme import run_python
from tests.quality.workspace import ROOT

DOCUMENT = ROOT / "docs" / "backend-authors.md"


class Installed(NamedTuple):
    """The document's project, and a directory into which its wheel was installed."""

    project: Path
    site: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    project = tmp_path_factory.mktemp("perdure-files")
    site = tmp_path_factory.mktemp("site")
    shown = files(DOCUMENT)
    for name, source in shown.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    run_python("-m", "hatchling", "build", "-t", "wheel", "-d", "dist", cwd=project)
    (wheel,) = (project / "dist").iterdir()
    zipfile.ZipFile(wheel).extractall(site)
    return Installed(project, site)


def test_it_passes_the_whole_kit(installed: Installed) -> None:
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    out = run_python(*arguments, cwd=installed.project, path=(installed.site,))
    passed = int(out.split(" passed")[0].split()[-1])
    assert passed > 150


def test_a_store_finds_it_by_its_scheme(installed: Installed, tmp_path: Path) -> None:
    program = """
import asyncio, sys, perdure

async def main():
    async with perdure.Store("files:///sessions") as store:
        session = store.session("chat-7")
        await session.append(*sys.argv[1:])
        print(await session.entries(), (await store.describe()).backend)

asyncio.run(main())
"""
    for words, expected in (("one", "['one'] files\n"), ("two", "['one', 'two'] files\n")):
        out = run_python("-c", program, words, cwd=tmp_path, path=(installed.site,))
        assert out == expected
    assert (tmp_path / "sessions" / "format").exists()


def test_it_refuses_what_it_does_not_understand(installed: Installed, tmp_path: Path) -> None:
    program = """
import asyncio, pathlib, perdure

async def told(url):
    try:
        async with perdure.Store(url) as store:
            await store.save("a", 1)
    except perdure.PerdureError as error:
        print(type(error).__name__, error.outcome.value)

async def main():
    await told("files:///sessions?speed=high")
    await told("files:///sessions")
    pathlib.Path("sessions/format").write_text("2")
    await told("files:///sessions")
    pathlib.Path("sessions/format").write_text("1")
    for path in pathlib.Path("sessions").glob("*/*"):
        path.write_bytes(b"not ours")
    await told("files:///sessions")

asyncio.run(main())
"""
    out = run_python("-c", program, cwd=tmp_path, path=(installed.site,))
    assert out.splitlines() == [
        "InvalidURL not applied",
        "FormatTooNew not applied",
        "Corrupt not applied",
    ]


def test_types_and_lint_have_no_complaint(installed: Installed) -> None:
    settings = {
        "typeCheckingMode": "strict",
        "failOnWarnings": True,
        "pythonVersion": "3.11",
        "extraPaths": ["src", *filter(None, sys.path)],
    }
    (installed.project / "pyrightconfig.json").write_text(json.dumps(settings))
    lint = ("ruff", "check", "--isolated", "--no-cache", "--select", "E,F,B,UP,RUF,SIM,PERF")
    types = ("basedpyright", "--pythonpath", sys.executable)
    for tool in ((*lint, "--line-length", "96"), types):
        done = subprocess.run(
            [sys.executable, "-m", *tool, "src", "tests"],
            cwd=installed.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
