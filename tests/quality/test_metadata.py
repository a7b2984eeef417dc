"""What the pyproject files say of the distributions agrees with one another."""

import re

import pytest

from tests.quality.workspace import ROOT, Member, members, pyproject, requirement_name

ROOT_PROJECT = Member(ROOT, pyproject()["project"])
MEMBERS = members()


def named(member: Member) -> str:
    return member.name


def test_the_root_depends_on_exactly_its_own_version_of_the_others() -> None:
    version = ROOT_PROJECT.project["version"]
    for requirement in ROOT_PROJECT.project["dependencies"]:
        assert requirement.endswith(f"=={version}")
    assert {member.project["version"] for member in MEMBERS} == {version}


@pytest.mark.parametrize("member", [ROOT_PROJECT, *MEMBERS], ids=named)
def test_a_distribution_says_what_it_is(member: Member) -> None:
    project = member.project
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "Apache-2.0"
    assert "Typing :: Typed" in project["classifiers"]
    for minor in range(11, 15):
        assert f"Programming Language :: Python :: 3.{minor}" in project["classifiers"]
    assert (member.directory / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (member.directory / "README.md").read_text().startswith("# perdure")


@pytest.mark.parametrize("member", MEMBERS, ids=named)
def test_a_distribution_lies_where_its_name_says(member: Member) -> None:
    if member.directory.name == "core":
        assert (member.name, member.package) == ("perdure-core", "perdure")
    else:
        assert member.name == f"perdure-{member.directory.name.replace('_', '-')}"
        assert member.package == member.name.replace("-", "_")
    assert (member.directory / "src" / member.package / "py.typed").exists()


@pytest.mark.parametrize("member", MEMBERS, ids=named)
def test_a_backend_is_a_plugin_and_an_adapter_is_none(member: Member) -> None:
    points = member.project.get("entry-points", {}).get("perdure", {})
    if member.directory.parent.name == "backends":
        assert points == {member.directory.name.replace("_", "-"): f"{member.package}.plugin"}
    else:
        assert points == {}


def test_extras_name_distributions_that_exist() -> None:
    """An extra for what is not there yet would install nothing and say so only in a warning."""
    names = {member.name for member in MEMBERS}
    for extra in ROOT_PROJECT.project.get("optional-dependencies", {}).values():
        assert {requirement_name(requirement) for requirement in extra} <= names


def test_every_package_of_the_development_environment_is_pinned() -> None:
    pins = {
        requirement_name(line)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)
    asked = [
        requirement
        for member in MEMBERS
        for requirement in (
            *member.project["dependencies"],
            *(
                text
                for extra in member.project.get("optional-dependencies", {}).values()
                for text in extra
            ),
        )
    ]
    asked += pyproject()["dependency-groups"]["dev"] + pyproject()["build-system"]["requires"]
    for requirement in asked:
        name = requirement_name(requirement)
        assert name in pins or name.startswith("perdure-")


def test_all_distributions_build_alike() -> None:
    systems = [pyproject(member.directory)["build-system"] for member in MEMBERS]
    assert all(system == pyproject()["build-system"] for system in systems)
