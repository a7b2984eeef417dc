"""``doctor`` and ``backends``: what is installed, and whether a store works."""

from pathlib import Path
from typing import Any

import pytest

from tests.contrib.cli.command import Command


def test_doctor_says_that_all_is_well(command: Command, tmp_path: Path) -> None:
    done = command("doctor")
    assert (done.code, done.err) == (0, "")
    facts = {row[1]: row[2] for row in done.rows if row[0] == "fact"}
    assert facts["backend"] == "sqlite"
    assert facts["location"] == str(tmp_path / "sessions.db")
    assert facts["chosen by"] == "--url"
    assert "perdure-core 0.1.0" in facts["packages"]
    checks = [row for row in done.rows if row[0] == "check"]
    assert [row[1:3] for row in checks] == [
        ["connect", "ok"],
        ["write", "ok"],
        ["write again", "ok"],
        ["read", "ok"],
        ["delete", "ok"],
        ["read after delete", "ok"],
    ]
    assert all(len(row) == 4 for row in checks)
    assert done.rows[-1] == ["verdict", "healthy"]


def test_doctor_leaves_nothing_behind(command: Command) -> None:
    command("doctor")
    assert command("ls", "--kind", "doctor").out == ""


def test_doctor_as_json(command: Command) -> None:
    (report,) = command("doctor", "--json").json
    assert report["healthy"] is True
    assert report["store"]["backend"] == "sqlite"
    assert report["url_from"] == "--url"
    assert {check["name"]: check["ok"] for check in report["checks"]}["write"] is True
    assert "perdure-sqlite" in {found.split()[0] for found in distributions(report)}


def distributions(report: dict[str, Any]) -> list[str]:
    return [backend["distribution"] for backend in report["backends"]]


def test_doctor_says_what_is_wrong(command: Command, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and longer than a header of one hundred bytes\n" * 4)
    reason = f"{text} is not an SQLite database; it was left as it is"
    done = command.bare("doctor", "--url", f"sqlite:///{text}")
    assert done.code == 1
    assert ["check", "store", "failed", "-", reason] in done.rows
    assert done.rows[-1] == ["verdict", "not healthy"]
    done = command.bare("doctor", "--json", "--url", f"sqlite:///{text}")
    (report,) = done.json
    assert done.code == 1
    assert report["healthy"] is False
    assert report["checks"] == [{"name": "store", "ok": False, "detail": reason, "ms": None}]


def test_doctor_tells_who_chose_the_store(
    command: Command, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (report,) = command.bare("doctor", "--json").json
    assert report["url_from"] == "default"
    assert (tmp_path / ".perdure" / "sessions.db").exists()
    monkeypatch.setenv("PERDURE_URL", url)
    (report,) = command.bare("doctor", "--json").json
    assert report["url_from"] == "PERDURE_URL"


def test_backends_are_listed(command: Command) -> None:
    listed = command.bare("backends")
    assert {"memory://", "sqlite://"} <= {row[0] for row in listed.rows}
    assert all(len(row) == 5 for row in listed.rows)
    found = {found["schemes"][0]: found for found in command.bare("backends", "--json").json}
    assert found["sqlite"]["contract"] == 1
    assert found["sqlite"]["state"] == "ready"
