"""Commands that other distributions bring: mounted, loaded late, and kept from doing harm."""

import os
import textwrap
from pathlib import Path

import click
import pytest

from perdure.entry_points import EntryPoint

from perdure_cli import commands
from tests.contrib.cli.command import Result, environment, run_process
from tests.plugins.distributions import install

SHELF = """
import click
from perdure.errors import Unavailable

@click.group(help="Look after shelves.")
def shelf():
    pass

@shelf.command()
@click.argument("jars", nargs=-1)
@click.pass_context
def put(context, jars):
    "Put JARS on the shelf."
    click.echo(f"{context.find_root().params['url']}: {' '.join(jars)}")
    return len(jars)

@shelf.command()
def fall():
    raise Unavailable("the shelf has\\nfallen")

@shelf.command()
@click.option("--left", type=int)
def move(left):
    if left is None:
        raise click.ClickException("Where to?")
"""

LOADED = "print('loaded', flush=True)"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def bring(site: Path, name: str, command: str, source: str, *, version: str = "1.2") -> None:
    """Install a distribution that brings ``command``."""
    package = name.replace("-", "_")
    attribute = command.replace("-", "_").lower()
    install(
        site,
        name,
        version,
        {"commands": textwrap.dedent(source)},
        f"[perdure.commands]\n{command} = {package}.commands:{attribute}\n",
    )


def run(site: Path, *arguments: str) -> Result:
    """The command, in a process that also has ``site``."""
    path = os.pathsep.join((str(site), environment()["PYTHONPATH"]))
    return run_process(*arguments, cwd=site, PYTHONPATH=path)


def test_a_command_of_another_distribution_is_run(site: Path) -> None:
    bring(site, "perdure-jar", "shelf", SHELF)
    done = run(site, "--url", "jar://", "shelf", "put", "plum", "fig")
    assert (done.code, done.out, done.err) == (2, "jar://: plum fig\n", "")
    assert run(site, "shelf", "put").code == 0


def test_its_help_is_its_own(site: Path) -> None:
    bring(site, "perdure-jar", "shelf", SHELF)
    done = run(site, "shelf", "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: perdure shelf ")
    assert "Look after shelves." in done.out
    assert "Put JARS on the shelf." in done.out


def test_its_failures_are_one_line_like_ours(site: Path) -> None:
    bring(site, "perdure-jar", "shelf", SHELF)
    assert run(site, "shelf", "fall").error() == "the shelf has fallen"
    assert run(site, "shelf", "move").error() == "where to?"
    assert run(site, "shelf", "move", "--left", "x").error(2) == (
        "invalid value for '--left': 'x' is not a valid integer "
        "(try 'perdure shelf move --help')"
    )


def test_it_is_imported_only_when_it_is_asked_for(site: Path) -> None:
    bring(site, "perdure-jar", "shelf", f"{LOADED}\n{textwrap.dedent(SHELF)}")
    shown = run(site, "--help")
    assert shown.code == 0
    assert "shelf" in shown.out
    assert "Brought by perdure-jar 1.2." in shown.out
    assert "loaded" not in shown.out
    assert "loaded" not in run(site, "backends").out
    assert "loaded" in run(site, "shelf", "put").out


def test_ours_cannot_be_replaced(site: Path) -> None:
    bring(site, "perdure-jar", "backends", f"{LOADED}\nbackends = None")
    done = run(site, "backends")
    assert done.code == 0
    assert "loaded" not in done.out
    done = run(site, "doctor", "--url", "memory://")
    assert done.code == 1
    assert [
        "check",
        "command backends = perdure_jar.commands:backends",
        "failed",
        "-",
        "perdure-jar 1.2 is broken: perdure has a command of this name itself",
    ] in done.rows


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_driver", "ModuleNotFoundError: No module named 'no_such_driver'"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("raise ValueError('one\\n\\ntwo')", "ValueError: one two"),
        ("raise RuntimeError", "RuntimeError"),
        ("", "AttributeError: module 'perdure_jar.commands' has no attribute 'shelf'"),
        ("def shelf(): pass", "it is a function, not a click.Command"),
    ],
)
def test_a_broken_one_hurts_no_other_and_doctor_tells(
    site: Path, source: str, reason: str
) -> None:
    bring(site, "perdure-jar", "shelf", source)
    bring(site, "perdure-tin", "tin", SHELF.replace("shelf", "tin"))
    assert run(site, "shelf", "put").error() == (
        f"the command 'shelf' of perdure-jar 1.2 does not work: {reason}"
    )
    assert run(site, "shelf", "--help").error().endswith(reason)
    assert run(site, "tin", "put").code == 0
    assert run(site, "--help").code == 0
    done = run(site, "doctor", "--url", "memory://")
    assert done.code == 1
    (failed,) = [row for row in done.rows if row[:1] == ["check"] and row[2] == "failed"]
    assert failed[1] == "command shelf = perdure_jar.commands:shelf"
    assert failed[4] == f"perdure-jar 1.2 is broken: {reason}"


def test_two_that_bring_one_name_are_both_named(site: Path) -> None:
    bring(site, "perdure-jar", "shelf", SHELF)
    bring(site, "perdure-clay", "shelf", SHELF, version="0.1")
    both = "perdure-clay 0.1 and perdure-jar 1.2"
    reason = "both bring a command of this name: uninstall all but one"
    assert run(site, "shelf", "put").error() == (
        f"the command 'shelf' of {both} does not work: {reason}"
    )
    done = run(site, "doctor", "--url", "memory://")
    assert ["check", "command shelf", "failed", "-", f"{both} is broken: {reason}"] in done.rows


def test_a_name_that_is_none_is_not_offered(site: Path) -> None:
    bring(site, "perdure-jar", "Shelf", SHELF)
    assert "Shelf" not in run(site, "--help").out
    assert run(site, "Shelf", "put").error(2).startswith("no such command 'Shelf'")
    done = run(site, "doctor", "--url", "memory://")
    assert "a name consists of lower-case letters" in done.out


def test_what_pip_is_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(group: str) -> list[EntryPoint]:
        del group
        return []

    monkeypatch.setattr(commands, "entry_points", nothing)
    with pytest.raises(click.UsageError) as raised:
        commands.Commands("perdure").main(["serve"], standalone_mode=False)
    assert str(raised.value) == "'serve' is not installed: pip install 'perdure[server]'"
