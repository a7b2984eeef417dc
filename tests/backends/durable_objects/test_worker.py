"""The Worker's source: its types, its parts, and that what is shipped was made of it."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import perdure_durable_objects
from tests.services import node
from tests.services.node import ESBUILD, MODULES, TSC, WORKERD, program
from tests.services.workerd import COMPATIBILITY_DATE

WORKER = Path(perdure_durable_objects.__file__).parent / "worker"
HERE = Path(__file__).parent / "worker"

CONFIGURATION = """\
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "units", worker = (
    modules = [(name = "units.js", esModule = embed "units.js")],
    compatibilityDate = "{date}",
  ))],
);
"""


@pytest.mark.parametrize("directory", [WORKER, HERE], ids=["worker", "tests"])
def test_the_types_are_right(directory: Path) -> None:
    command = [program(TSC), "-p", directory, "--typeRoots", MODULES]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_compiler_sees_wrong_types(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "wrong.ts").write_text("export const n: number = undefined;\n")
    (tmp_path / "tsconfig.json").write_bytes((WORKER / "tsconfig.json").read_bytes())
    command = [program(TSC), "-p", tmp_path, "--typeRoots", MODULES]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "wrong.ts" in done.stdout


def bundle(*arguments: str | Path, made: Path) -> None:
    options = [f"--outfile={made}", "--log-level=warning"]
    subprocess.run([program(ESBUILD), *arguments, *options], cwd=WORKER, check=True)


def run_units(units: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    options = ("--bundle", "--format=esm", "--external:cloudflare:*", "--external:node:*")
    bundle(units, *options, made=directory / "units.js")
    configuration = directory / "config.capnp"
    configuration.write_text(CONFIGURATION.format(date=COMPATIBILITY_DATE))
    command = [program(WORKERD), "test", configuration]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_its_parts_do_what_they_should(tmp_path: Path) -> None:
    units = HERE / "units.ts"
    done = run_units(units, tmp_path)
    assert done.returncode == 0, done.stderr
    exported = re.findall(r"^export const (\w+) = test\(", units.read_text(), re.MULTILINE)
    passed = re.findall(r"\[ PASS \] units:(\w+)", done.stderr)
    assert sorted(passed) == sorted(exported)
    assert exported


def test_a_part_that_does_not_is_seen(tmp_path: Path) -> None:
    units = tmp_path / "units.ts"
    units.write_text("export const wrong = { test() { throw new Error('it is'); } };\n")
    assert run_units(units, tmp_path).returncode != 0


def test_the_bundle_is_made_of_the_source(tmp_path: Path) -> None:
    """With the command that its package has for those who change it."""
    package = json.loads((WORKER / "package.json").read_text())
    esbuild, *arguments = shlex.split(package["scripts"]["build"])
    assert esbuild == "esbuild"
    made = tmp_path / "worker.js"
    assert arguments.pop() == "--outfile=worker.js"
    bundle(*arguments, made=made)
    assert made.read_text() == (WORKER / "worker.js").read_text(), (
        f"worker.js is not of this source: npm run build in {WORKER.name}/"
    )


def test_it_is_built_with_the_tools_that_it_is_tested_with() -> None:
    tools = json.loads((WORKER / "package.json").read_text())["devDependencies"]
    packages = Path(node.__file__).with_name("npm") / "package.json"
    tested = json.loads(packages.read_text())["dependencies"]
    for name in tools.keys() & tested.keys():
        assert tools[name] == tested[name], name
    assert {"esbuild", "typescript", "@cloudflare/workers-types"} <= tools.keys()


def test_it_is_deployed_with_the_compatibility_that_it_is_tested_with() -> None:
    text = (WORKER / "wrangler.jsonc").read_text()
    wrangler = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert wrangler["compatibility_date"] == COMPATIBILITY_DATE
    bindings = {b["name"]: b["class_name"] for b in wrangler["durable_objects"]["bindings"]}
    assert bindings == {"SESSIONS": "Session", "DIRECTORIES": "Directory"}
    (migration,) = wrangler["migrations"]
    assert sorted(migration["new_sqlite_classes"]) == sorted(bindings.values())
