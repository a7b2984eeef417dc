"""The command, on a store in a temporary file."""

from pathlib import Path

import pytest

from tests.contrib.cli.command import Command


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("PERDURE_URL", raising=False)
    # Durability is not what is tested here, and waiting for disks takes time.
    return f"sqlite:///{tmp_path / 'sessions.db'}?synchronous=normal"


@pytest.fixture
def command(url: str, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(url, capsys)
