"""The programs that the guide shows do what it says of them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from perdure import InvalidURL

from tests.docs.markdown import files
from tests.quality.workspace import ROOT

GUIDE = ROOT / "docs" / "guide"


def program(page: str, name: str) -> dict[str, Any]:
    """What a program of a page defines."""
    names: dict[str, Any] = {"__name__": name}
    exec(compile(files(GUIDE / page)[name], name, "exec"), names)
    return names


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("PERDURE_URL", f"sqlite:///{tmp_path}/sessions.db")
    app: FastAPI = program("web.md", "app.py")["app"]
    with TestClient(app, headers={"X-Tenant": "acme"}) as client:
        yield client


def say(client: TestClient, text: object, key: str, **headers: str) -> Any:
    message = {"role": "user", "content": text}
    return client.post(
        "/chats/7/messages", json=message, headers={"Idempotency-Key": key, **headers}
    )


def test_the_application_answers_and_pages(client: TestClient) -> None:
    assert say(client, "Hi", "a").json() == {"role": "assistant", "content": "1 so far"}
    say(client, "Again", "b")
    page = client.get("/chats/7/messages", params={"limit": 3}).json()
    assert [message["role"] for message in page["messages"]] == ["user", "assistant", "user"]
    rest = client.get("/chats/7/messages", params={"after": page["next"]}).json()
    assert [message["content"] for message in rest["messages"]] == ["3 so far"]


def test_a_repeated_request_adds_nothing(client: TestClient) -> None:
    assert say(client, "Hi", "a").json() == say(client, "Hi", "a").json()
    assert len(client.get("/chats/7/messages").json()["messages"]) == 2


def test_tenants_do_not_meet(client: TestClient) -> None:
    say(client, "Hi", "a")
    other = client.get("/chats/7/messages", headers={"X-Tenant": "umbrella"}).json()
    assert other["messages"] == []


def test_what_is_refused_is_a_client_error(client: TestClient) -> None:
    assert client.get("/chats/7/messages", params={"after": "seven"}).status_code == 422
    say(client, "Hi", "a")
    assert say(client, "Other", "a").status_code == 409


def test_the_function_does_each_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_URL", f"sqlite:///{tmp_path}/sessions.db")
    handler = program("serverless.md", "handler.py")["handler"]
    event = {"tenant": "acme", "chat": "7", "id": "e1", "message": {"content": "Hi"}}
    assert [handler(event, None), handler(event, None)] == [{"entries": 1}] * 2
    assert handler({**event, "id": "e2"}, None) == {"entries": 2}


def test_a_function_without_a_database_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERDURE_URL", raising=False)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "agent")
    with pytest.raises(InvalidURL, match="does not last on AWS Lambda"):
        program("serverless.md", "handler.py")


@pytest.mark.parametrize("with_fixture_of_its_own", [False, True])
def test_the_tests_of_an_agent_pass(tmp_path: Path, with_fixture_of_its_own: bool) -> None:
    shown = files(GUIDE / "testing.md")
    (tmp_path / "test_agent.py").write_text(shown["test_agent.py"])
    deselected: list[str] = []
    if with_fixture_of_its_own:  # whose clock is that of the database
        (tmp_path / "conftest.py").write_text(shown["conftest.py"])
        deselected = ["-k", "not day"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *deselected],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 if with_fixture_of_its_own else 3} passed" in done.stdout
