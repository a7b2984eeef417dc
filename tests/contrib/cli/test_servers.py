"""The command on databases that are servers: every command works, every failure is a line."""

import json
import time
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from perdure.uri import URL, parse

from perdure_cli import target
from tests.contrib.cli.command import Command, Result, run_process
from tests.contrib.cli.test_copy import copying, put
from tests.services.server import free_port

SECRET = "s3cret-w0rd"

SOME = '{"role": "user", "content": "Hello"}\n{"role": "assistant", "content": "Good day"}\n'


@pytest.fixture(params=["valkey", "postgres"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> URL:
    """A server that others use, too."""
    monkeypatch.delenv("PERDURE_URL", raising=False)
    return parse(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def url(server: URL) -> str:
    """A store of these tests on it."""
    option = "schema" if server.scheme.startswith("postgres") else "prefix"
    return text(server, query={option: "cli"})


@pytest.fixture
def tenant() -> str:
    """A tenant that only this test uses."""
    return f"tenant {uuid4()}"


def text(server: URL, **changes: object) -> str:
    """A URL like the server's, but for ``changes``."""
    return msgspec.structs.replace(server, **changes).render(hide_secrets=False)


@pytest.fixture
def said(url: str, tenant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> "Said":
    return Said(Command(url, capsys), tenant, tmp_path)


class Said:
    """The command for one tenant of the store."""

    def __init__(self, command: Command, tenant: str, folder: Path) -> None:
        self.url = command.url
        self.tenant = tenant
        self._command = command
        self._folder = folder

    def __call__(self, *arguments: str) -> Result:
        return self._command.bare("--url", self.url, "--tenant", self.tenant, *arguments)

    def copy(self, source: str, target: str, *options: str) -> Result:
        return self._command.bare("copy", source, target, "--tenant", self.tenant, *options)

    def file(self, name: str, content: str) -> str:
        """The path of a file with this in it."""
        path = self._folder / name
        path.write_text(content)
        return str(path)


def test_every_command_works(said: Said) -> None:
    assert said("import", said.file("a.jsonl", SOME)).rows[0][:3] == ["a", "2", "0"]
    assert [row[0] for row in said("ls").rows] == ["a"]
    assert said.tenant in said("ls", "--tenants").lines
    shown = json.loads(said("show", "--json", "a").out)
    assert [entry["value"]["content"] for entry in shown["entries"]] == ["Hello", "Good day"]
    assert len(said("tail", "--last", "1", "a").rows) == 1
    exported = said.file("exported.jsonl", said("export").out)
    assert said("rm", "--yes", "a").out == "deleted a\n"
    assert said("ls").out == ""
    assert said("import", exported).rows[0][:3] == ["a", "2", "0"]
    assert said("import", exported).rows[0][:3] == ["a", "0", "2"]


def test_doctor_finds_it_well_and_says_how_durable_it_is(said: Said) -> None:
    done = said("doctor", "--json")
    (report,) = done.json
    assert (done.code, report["healthy"]) == (0, True)
    assert report["store"]["durability"]
    assert all(check["ok"] for check in report["checks"])


def test_the_demo_proves_its_point_and_leaves_nothing(said: Said, tmp_path: Path) -> None:
    options = ("--url", said.url, "--tenant", said.tenant, "--json")
    done = run_process("demo", *options, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["proved"] is True
    assert said("ls", "--kind", "demo").out == ""


def test_sessions_are_copied_there_and_back(said: Said, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        said("import", said.file(name, SOME))
    file = f"sqlite:///{tmp_path / 'sessions.db'}"
    assert [row[3] for row in said.copy(said.url, file).rows] == ["copied", "copied"]
    exported = said("export").out
    assert said("export", "--url", file).out == exported
    said("rm", "--yes", "a")
    back = said.copy(file, said.url, "--verify")
    assert {row[0]: row[3] for row in back.rows} == {"a": "copied", "b": "present"}
    assert said("export").out == exported
    assert said.copy(said.url, said.url).error(2) == "SRC and DST are the same store"


def test_a_copy_that_is_killed_is_completed(said: Said, tmp_path: Path) -> None:
    file = f"sqlite:///{tmp_path / 'sessions.db'}?synchronous=normal"
    put(file, 60, entries=20, tenants=(said.tenant,))
    for done in (0, 20):
        with copying(file, said.url, tmp_path) as process:
            assert process.stdout is not None
            for _ in range(done + 1):
                assert process.stdout.readline()
            process.kill()
    last = said.copy(file, said.url)
    fates = [row[3] for row in last.rows]
    assert (last.code, len(fates)) == (0, 60)
    assert 0 < fates.count("present") == 60 - fates.count("copied")
    assert {row[3] for row in said.copy(file, said.url, "--verify").rows} == {"present"}
    assert said("export").out == said("export", "--url", file).out


COMMANDS = (
    ("ls",),
    ("show", "a"),
    ("tail", "a"),
    ("export",),
    ("rm", "--yes", "a"),
    ("doctor",),
)


def failures(
    url: str, capsys: pytest.CaptureFixture[str], folder: Path, at_most: float
) -> set[str]:
    """What each command says of a store that cannot be used; all in one line, in time."""
    (folder / "a.jsonl").write_text(SOME)
    command = Command(url, capsys)
    reasons: set[str] = set()
    for name, *arguments in (*COMMANDS, ("import", str(folder / "a.jsonl"))):
        started = time.monotonic()
        done = command(name, *arguments)
        assert time.monotonic() - started < at_most
        assert SECRET not in done.out + done.err
        if name == "doctor":
            assert (done.code, done.err) == (1, "")
            assert done.rows[-1] == ["verdict", "not healthy"]
        else:
            reasons.add(done.error())
    for pair in ((url, f"sqlite:///{folder / 'b.db'}"), (f"sqlite:///{folder / 'b.db'}", url)):
        done = command.bare("copy", *pair)
        assert SECRET not in done.out + done.err
        reasons.add(done.error())
    return reasons


def test_a_server_that_is_not_there_is_said_in_one_line(
    server: URL,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(target, "DEADLINE", 0.5)
    port = free_port()
    url = text(server, port=port, username="me", password=SECRET)
    (reason,) = failures(url, capsys, tmp_path, at_most=8)
    assert f"127.0.0.1:{port}" in reason
    assert "refused" in reason


def test_credentials_that_are_refused_are_said_at_once(
    server: URL, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = text(server, username="nobody-like-this", password=SECRET)
    reasons = failures(url, capsys, tmp_path, at_most=8)
    assert all(f"127.0.0.1:{server.port}" in reason for reason in reasons)


def test_an_option_that_is_not_known_is_said_without_its_value(
    server: URL, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (reason,) = failures(text(server, query={"no": SECRET}), capsys, tmp_path, at_most=5)
    assert "no option 'no'" in reason
