"""The README's example, as it stands but for the port."""

import subprocess
import sys
from pathlib import Path

from tests.contrib.cli.command import environment, run_process
from tests.contrib.server.served import PerdureServe
from tests.docs.markdown import blocks, files
from tests.quality.workspace import ROOT
from tests.services.server import free_port

README = ROOT / "contrib" / "server" / "README.md"


class AsShown(PerdureServe):
    """The command of the README."""

    def _command(self) -> list[str]:
        shown = next(block for block in blocks(README) if block.language == "sh")
        perdure, *words = shown.source.splitlines()[-1].split()
        assert perdure == "perdure"
        return [sys.executable, "-m", "perdure_cli", *words, "--port", str(self.port)]


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    shown = files(README)
    (tmp_path / "keys.json").write_text(shown["keys.json"])
    with AsShown(tmp_path, free_port(), "") as server:
        server.restart()
        program = shown["client.py"].replace(":8700", f":{server.port}")
        (tmp_path / "client.py").write_text(program)
        run(tmp_path, "client.py")
        run(tmp_path, "client.py")
    told = run_process("tail", "--url", "sqlite:///sessions.db", "chat-7", cwd=tmp_path)
    assert len(told.rows) == 2


class Elsewhere(PerdureServe):
    """The application on uvicorn's own command line."""

    def _command(self) -> list[str]:
        words = ["--lifespan", "on", "--port", str(self.port), "sessions:app"]
        return [sys.executable, "-m", "uvicorn", *words]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "PERDURE_URL": self.store_url}

    def _ready(self, said: str) -> bool:
        return "Uvicorn running on" in said


def test_the_application_in_another_server(tmp_path: Path) -> None:
    (tmp_path / "sessions.py").write_text(files(README)["sessions.py"])
    with Elsewhere(tmp_path, free_port(), "memory://") as server:
        server.restart()
        (tmp_path / "chat.jsonl").write_text('{"role": "user", "content": "Hello"}\n')
        for command in (("import", "chat.jsonl"), ("doctor",)):
            name, *rest = command
            done = run_process(name, "--url", server.url, *rest, cwd=tmp_path)
            assert done.code == 0, done
        server.stop()
        assert "Traceback" not in server.log()
