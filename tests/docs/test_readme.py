"""What the README promises a newcomer: its example, its commands, its links."""

import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import pytest

from perdure.plugins import open_backend

import dev
from perdure_cli.app import perdure as command_line
from tests.docs.capabilities import BEGIN, END, with_table
from tests.docs.markdown import DOCUMENTS, blocks, files
from tests.docs.urls import own_url
from tests.quality.workspace import ROOT

README = ROOT / "README.md"


def run_python(
    *arguments: str, cwd: Path, path: tuple[Path, ...] = (), url: str | None = None
) -> str:
    """Run Python as a person would, in a directory of their own; what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PERDURE_URL"}
    if url is not None:
        environment["PERDURE_URL"] = url
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("server", [None, "valkey_url", "postgres_url"])
def test_the_example_prints_what_is_shown_run_after_run(
    server: str | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = own_url(request.getfixturevalue(server)) if server else None
    for name, source in files(README).items():
        (tmp_path / name).write_text(source)
    (session,) = (block.source for block in blocks(README) if block.language == "console")
    printed = ""
    for line in session.splitlines():
        if line.startswith("$ python "):
            printed += line + "\n" + run_python(*shlex.split(line)[2:], cwd=tmp_path, url=url)
    assert printed == session


def test_the_example_is_about_ten_lines() -> None:
    (source,) = files(README).values()
    assert len([line for line in source.splitlines() if line.strip()]) <= 12


def commands(program: str) -> list[list[str]]:
    """The arguments of every line of shell in our documents that runs ``program``."""
    lines = [
        line.partition("#")[0].partition(">")[0]
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language == "sh"
        for line in block.source.splitlines()
    ]
    return [shlex.split(line[len(program) :]) for line in lines if line.startswith(program)]


def nothing(command: click.Command, context: click.Context) -> partial[int]:
    """Takes the place of carrying a command out."""
    del command, context
    return partial(int)


@pytest.mark.parametrize("arguments", commands("perdure "), ids=" ".join)
def test_a_command_shown_is_understood(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if arguments[0] in command_line.others:
        # Brought by another distribution: it would be carried out.
        monkeypatch.setattr(click.Command, "invoke", nothing)
    # Parsing returns what is to be done without doing it.
    action = command_line.main(arguments, prog_name="perdure", standalone_mode=False)
    assert isinstance(action, partial)


def test_commands_of_dev_py_shown_exist() -> None:
    shown = {arguments[0] for arguments in commands("python3 dev.py ")}
    assert shown == set(dev.COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


async def test_the_table_of_capabilities_is_what_the_backends_say(
    durable_objects_url: str,
) -> None:
    urls = {
        "memory": "memory://",
        "SQLite": "sqlite:///sessions.db",
        "Redis": "redis://localhost",
        "Postgres": "postgresql://localhost/app",
        "DynamoDB": "dynamodb://sessions?region=eu-west-1",
        "Durable Objects": durable_objects_url,
    }
    backends = {name: open_backend(url) for name, url in urls.items()}
    await backends["Durable Objects"].open()  # else it knows only what every server takes
    text = README.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    made = with_table(text, {name: made.capabilities for name, made in backends.items()})
    for backend in backends.values():
        await backend.aclose()
    if "PERDURE_WRITE_README" in os.environ:
        README.write_text(made)
    assert made == text, "PERDURE_WRITE_README=1 writes it"
