"""What the pyproject files say of the distributions agrees with one another."""

import re

import pytest

from perdure.plugins import OFFICIAL, discover

from tests.quality.workspace import ROOT, Member, members, pyproject, requirement_name

ROOT_PROJECT = Member(ROOT, pyproject()["project"])
MEMBERS = members()


def named(member: Member) -> str:
    return member.name


def test_the_root_depends_on_exactly_its_own_version_of_the_others() -> None:
    version = ROOT_PROJECT.project["version"]
    extras = ROOT_PROJECT.project["optional-dependencies"]
    for requirements in (ROOT_PROJECT.project["dependencies"], *extras.values()):
        for requirement in requirements:
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


def test_every_distribution_comes_with_the_root_or_with_an_extra_of_its_name() -> None:
    """An extra for what is not there yet would install nothing and say so only in a warning."""
    extras = {
        name: {requirement_name(requirement) for requirement in extra}
        for name, extra in ROOT_PROJECT.project["optional-dependencies"].items()
    }
    everything = extras.pop("all") - {"perdure-core"}
    assert extras.pop("encryption") == {"perdure-core"}  # which has an extra of that name
    assert extras == {name.removeprefix("perdure-"): {name} for name in everything}
    always = {requirement_name(text) for text in ROOT_PROJECT.project["dependencies"]}
    assert not always & everything
    assert always | everything == {member.name for member in MEMBERS}


def test_the_backends_that_errors_name_are_there() -> None:
    named = {
        scheme
        for scheme, requirement in OFFICIAL.items()
        for member in MEMBERS
        if requirement_name(requirement) == member.name
        or requirement == f"perdure[{member.name.removeprefix('perdure-')}]"
    }
    assert named == set(OFFICIAL)
    assert named == {scheme for spec in discover().specs for scheme in spec.schemes}


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
    asked += pyproject()["build-system"]["requires"]
    for group in pyproject()["dependency-groups"].values():
        asked += (entry for entry in group if isinstance(entry, str))
    for requirement in asked:
        name = requirement_name(requirement)
        assert name in pins or name.startswith("perdure-")


def test_all_distributions_build_alike() -> None:
    systems = [pyproject(member.directory)["build-system"] for member in MEMBERS]
    assert all(system == pyproject()["build-system"] for system in systems)
