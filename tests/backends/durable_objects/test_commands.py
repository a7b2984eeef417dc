"""``perdure durable-objects``: a project is written, runs here, and is looked at."""

import asyncio
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perdure import Store
from perdure.errors import PerdureError

from perdure_durable_objects.commands import commands
from perdure_durable_objects.local import AlreadyRunning, prepare
from perdure_durable_objects.project import compatibility_date
from tests.services import node
from tests.services.server import free_port
from tests.services.workerd import COMPATIBILITY_DATE as TESTED


def invoke(*words: object) -> Result:
    return CliRunner().invoke(commands, [str(word) for word in words])


def url_of(project: Path, port: int, *, secret: str | None = None) -> str:
    (key,) = json.loads((project / "keys.json").read_text())
    return f"http://{key['id']}:{secret or key['secret']}@127.0.0.1:{port}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "sessions"
    assert invoke("init", directory).exit_code == 0
    return directory


@contextmanager
def running(project: Path, port: int) -> Generator[None]:
    """``dev``, with the tests' workerd on the path."""
    found = node.program(node.WORKERD).parent
    path = os.pathsep.join((str(found), os.environ["PATH"]))
    words = ["durable-objects", "dev", str(project), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure_cli", *words],
        env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


def test_a_project_has_all_that_wrangler_needs(project: Path) -> None:
    text = re.sub(r"^ *//.*", "", (project / "wrangler.jsonc").read_text(), flags=re.MULTILINE)
    configuration = json.loads(text)
    assert configuration["name"] == "perdure"
    assert (project / configuration["main"]).read_text()
    assert configuration["compatibility_date"] == compatibility_date(project) == TESTED
    bound = {b["name"]: b["class_name"] for b in configuration["durable_objects"]["bindings"]}
    assert bound == {"SESSIONS": "Session", "DIRECTORIES": "Directory"}
    (migration,) = configuration["migrations"]
    assert sorted(migration["new_sqlite_classes"]) == sorted(bound.values())
    exported = (project / "worker.js").read_text().rpartition("export {")[2]
    assert set(bound.values()) <= set(exported.replace(",", " ").split())
    assert (project / "src" / "index.ts").exists()
    scripts = json.loads((project / "package.json").read_text())["scripts"]
    assert {"build", "check"} <= set(scripts)


def test_a_project_has_a_key_of_its_own_that_only_we_can_read(
    project: Path, tmp_path: Path
) -> None:
    keys = project / "keys.json"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert "keys.json" in (project / ".gitignore").read_text().splitlines()
    result = invoke("init", tmp_path / "another", "--name", "other-1")
    (ours,), (other,) = (
        json.loads(path.read_text()) for path in (keys, tmp_path / "another" / "keys.json")
    )
    assert ours["secret"] != other["secret"]
    assert ours["secret"] not in result.output
    assert "wrangler deploy" in result.output
    assert '"name": "other-1"' in (tmp_path / "another" / "wrangler.jsonc").read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "package.json").write_text("mine")
    result = invoke("init", directory)
    assert isinstance(result.exception, PerdureError)
    assert "package.json" in str(result.exception)
    assert [path.name for path in directory.iterdir()] == ["package.json"]
    assert (directory / "package.json").read_text() == "mine"


@pytest.mark.parametrize("in_the_way", ["src", "keys.json", ".gitignore"])
def test_what_cannot_be_written_whole_is_not_begun(tmp_path: Path, in_the_way: str) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / in_the_way).symlink_to("nowhere")
    result = invoke("init", directory)
    assert isinstance(result.exception, PerdureError)
    assert in_the_way in str(result.exception)
    assert [path.name for path in directory.iterdir()] == [in_the_way]


@pytest.mark.parametrize("name", ["", "Upper", "a b", "-a", "a-", "a" * 64, "a;b"])
def test_a_name_that_no_worker_can_have_is_refused(tmp_path: Path, name: str) -> None:
    result = invoke("init", tmp_path / "x", "--name", name)
    assert result.exit_code == 2
    assert not (tmp_path / "x").exists()


def test_without_workerd_it_is_said_how_to_get_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project))
    result = invoke("dev", project)
    assert isinstance(result.exception, PerdureError)
    assert "npm install" in str(result.exception)


def test_without_a_project_it_is_said_how_to_write_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(node.program(node.WORKERD).parent))
    result = invoke("dev", tmp_path)
    assert isinstance(result.exception, PerdureError)
    assert "init" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


async def append(url: str, entry: object) -> list[object]:
    async with Store(url) as store:
        session = store.session("a")
        await session.append(entry)
        return list(await session.entries())


def test_what_runs_here_keeps_its_data_when_it_is_killed(project: Path) -> None:
    port = free_port()
    with running(project, port):
        assert asyncio.run(append(url_of(project, port), 1)) == [1]
    with running(project, port):
        assert asyncio.run(append(url_of(project, port), 2)) == [1, 2]
        with pytest.raises(AlreadyRunning):
            prepare(project, free_port())
        result = invoke("doctor", url_of(project, port))
        assert result.exit_code == 0, result.output
        assert [line.split()[:2] for line in result.output.splitlines()] == [
            ["ok", "reachable"],
            ["ok", "protocol"],
            ["ok", "key"],
            ["ok", "clock"],
            ["ok", "durability"],
        ]
        assert "workerd" in result.output

        wrong = url_of(project, port, secret="0123456789abcdef0123456789abcdef")
        result = invoke("doctor", wrong)
        assert result.exit_code == 1
        assert [line.split()[:2] for line in result.output.splitlines()] == [
            ["ok", "reachable"],
            ["NO", "key"],
        ]
    result = invoke("doctor", url_of(project, port))
    assert result.exit_code == 1
    assert result.output.startswith("NO  reachable")


@pytest.mark.parametrize("url", ["sqlite:///x", "https://host", "nonsense"])
def test_what_is_no_server_is_not_looked_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERDURE_HTTP_KEY", raising=False)
    result = invoke("doctor", url)
    assert isinstance(result.exception, PerdureError)
