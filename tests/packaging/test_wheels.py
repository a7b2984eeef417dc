"""Every distribution builds, holds what it should, and works installed from its wheel."""

import json
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.packaging.wheels import DISTRIBUTIONS, Environment, build, build_from_sdist
from tests.quality.workspace import ROOT, members, pyproject, requirement_name

MEMBERS = {member.name: member for member in members()}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each distribution, all in one directory."""
    out = tmp_path_factory.mktemp("wheels")
    return {name: build(path, "wheel", out) for name, path in DISTRIBUTIONS.items()}


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    (name,) = (name for name in names(wheel) if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(name).decode())


@pytest.mark.parametrize("name", MEMBERS)
def test_a_wheel_holds_its_package_and_nothing_else(name: str, wheels: dict[str, Path]) -> None:
    member = MEMBERS[name]
    package = member.directory / "src" / member.package
    expected = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {path for path in names(wheels[name]) if ".dist-info/" not in path}
    assert held == expected
    assert f"{member.package}/py.typed" in held


def test_the_root_wheel_holds_no_code(wheels: dict[str, Path]) -> None:
    assert {name.split("/")[0] for name in names(wheels["perdure"])} == {
        "perdure-0.1.0.dist-info"
    }


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_carries_licence_and_description(name: str, wheels: dict[str, Path]) -> None:
    (licence,) = (path for path in names(wheels[name]) if path.endswith("/licenses/LICENSE"))
    with zipfile.ZipFile(wheels[name]) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    found = metadata(wheels[name])
    assert found["Name"] == name
    assert found["License-Expression"] == "Apache-2.0"
    readme = (DISTRIBUTIONS[name] / "README.md").read_text()
    assert str(found.get_payload()).strip() == readme.strip()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_can_be_built_from_the_sdist(
    name: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    sdist = build(DISTRIBUTIONS[name], "sdist", tmp_path / "sdist")
    again = build_from_sdist(sdist, tmp_path / "wheel")
    assert names(again) == names(wheels[name])


WITH_THE_ROOT = {
    requirement_name(requirement) for requirement in pyproject()["project"]["dependencies"]
}


def installation(
    path: Path, wheels: dict[str, Path], wanted: str, members: Iterable[str]
) -> Environment:
    """An environment with nothing but ``wanted``, from its wheels, and what it needs."""
    environment = Environment(path)
    third_party = [
        requirement
        for name in members
        for requirement in MEMBERS[name].project["dependencies"]
        if not requirement.startswith("perdure")
    ]
    if wanted == "perdure[all]":
        third_party += MEMBERS["perdure-core"].project["optional-dependencies"]["encryption"]
    environment.install_from_index(*third_party)
    directory = wheels["perdure"].parent
    environment.install("--no-index", "--find-links", directory, wanted)
    return environment


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    path = tmp_path_factory.mktemp("environment")
    return installation(path, wheels, "perdure", WITH_THE_ROOT)


def versions(environment: Environment, cwd: Path) -> dict[str, str]:
    """What is installed."""
    program = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    return json.loads(environment.run("python", "-I", "-c", program, cwd=cwd))


def test_the_root_brings_core_backends_and_command(
    installed: Environment, tmp_path: Path
) -> None:
    found = versions(installed, tmp_path)
    version = pyproject()["project"]["version"]
    assert {name: found.get(name) for name in WITH_THE_ROOT} == dict.fromkeys(
        WITH_THE_ROOT, version
    )
    assert not found.keys() & (MEMBERS.keys() - WITH_THE_ROOT)
    assert "pytest" not in found


OPEN = """
from perdure.plugins import discover, open_backend

assert not discover().broken, discover().broken
for url in (
    "redis://127.0.0.1",
    "postgresql://127.0.0.1/plums",
    "dynamodb://plums?region=eu-west-1",
    "https://app:of-32-characters-at-the-very-least@plums.example",
):
    print(type(open_backend(url)).__module__)
"""


def test_the_extras_bring_the_other_backends(wheels: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "environment"
    environment = installation(path, wheels, "perdure[all]", MEMBERS)
    assert MEMBERS.keys() <= versions(environment, tmp_path).keys()
    opened = environment.run("python", "-I", "-W", "error", "-c", OPEN, cwd=tmp_path)
    assert opened.split() == [
        "perdure_redis.backend",
        "perdure_postgres.backend",
        "perdure_dynamodb.backend",
        "perdure_durable_objects.backend",
    ]


def test_without_its_extra_a_backend_is_named(installed: Environment, tmp_path: Path) -> None:
    program = (
        "from perdure.plugins import open_backend\n"
        "for url in ('redis://h', 'postgres://h', 'dynamodb://t', 'https://h'):\n"
        "    try: open_backend(url)\n"
        "    except LookupError as error: print(error)"
    )
    assert installed.run("python", "-I", "-c", program, cwd=tmp_path).splitlines() == [
        "no backend for redis://: pip install 'perdure[redis]'",
        "no backend for postgres://: pip install 'perdure[postgres]'",
        "no backend for dynamodb://: pip install 'perdure[dynamodb]'",
        "no backend for https://: pip install 'perdure[durable-objects]'",
    ]


SAVE = """
import asyncio, perdure

async def main():
    async with perdure.Store() as store:
        await store.save("plum", {"ripe": True})
        await store.session("talk").append({"role": "user", "content": "hi"})

asyncio.run(main())
"""

LOAD = """
import asyncio, json, perdure

async def main():
    async with perdure.Store() as store:
        print(json.dumps([await store.load("plum"), *await store.session("talk").entries()]))

asyncio.run(main())
"""


def test_what_one_process_saves_another_loads(installed: Environment, tmp_path: Path) -> None:
    installed.run("python", "-W", "error", "-c", SAVE, cwd=tmp_path)
    assert (tmp_path / ".perdure" / "sessions.db").exists()
    assert json.loads(installed.run("python", "-W", "error", "-c", LOAD, cwd=tmp_path)) == [
        {"ripe": True},
        {"role": "user", "content": "hi"},
    ]


def test_its_backends_are_found(installed: Environment, tmp_path: Path) -> None:
    program = (
        "from perdure.plugins import discover; r = discover();"
        "print([s.distribution for s in r.specs], r.broken)"
    )
    assert (
        installed.run("python", "-I", "-W", "error", "-c", program, cwd=tmp_path).strip()
        == "['perdure-memory', 'perdure-sqlite'] ()"
    )


def test_the_command_works(installed: Environment, tmp_path: Path) -> None:
    version = pyproject()["project"]["version"]
    assert installed.run("perdure", "--version", cwd=tmp_path).strip() == f"perdure {version}"
    listed = installed.run("perdure", "backends", cwd=tmp_path)
    for word in ("memory", "sqlite", "perdure-memory", "perdure-sqlite"):
        assert word in listed


USERS_TEST = """
async def keep(store):
    await store.save("plum", {"ripe": True})
    return await store.load("plum")

def test_plum(perdure_store):
    import asyncio
    assert asyncio.run(keep(perdure_store)) == {"ripe": True}
"""


def test_a_user_of_pytest_gets_a_store(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    needs = MEMBERS["perdure-core"].project
    extra = needs["optional-dependencies"]["testing"]
    environment.install_from_index(*needs["dependencies"], *extra)
    directory = wheels["perdure"].parent
    wanted = ("perdure-core[testing]", "perdure-memory")
    environment.install("--no-index", "--find-links", directory, *wanted)
    (tmp_path / "test_plum.py").write_text(USERS_TEST)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    said = environment.run("pytest", "-q", "-W", "error", "test_plum.py", cwd=tmp_path)
    assert "1 passed" in said


def test_only_what_was_installed_is_offered(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    needs = MEMBERS["perdure-core"].project["dependencies"]
    environment.install_from_index(*needs)
    environment.install("--no-index", "--no-deps", wheels["perdure-core"])
    program = (
        "from perdure.plugins import open_backend\n"
        "try: open_backend('sqlite:///s.db')\n"
        "except LookupError as error: print(error)"
    )
    assert (
        environment.run("python", "-I", "-W", "error", "-c", program, cwd=tmp_path).strip()
        == "no backend for sqlite://: pip install 'perdure-sqlite'"
    )
