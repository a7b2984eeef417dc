"""Credentials that lapse are renewed ahead, in a thread, by what botocore knows."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from perdure.errors import Unavailable

from perdure_dynamodb import account
from perdure_dynamodb.table import Table
from tests.backends.dynamodb.answering import Answering, answering, refuse

ISSUER = """
import json, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
here = Path(__file__).parent
count = len(list(here.glob("issued-*"))) + 1
(here / f"issued-{count}").touch()
lapse = json.loads((here / "lapse").read_text())
if lapse is None:
    sys.exit("nobody is at home")
expiration = datetime.now(timezone.utc) + timedelta(seconds=lapse)
print(json.dumps({"Version": 1, "AccessKeyId": f"KEY{count}", "SecretAccessKey": "secret",
                  "SessionToken": f"token-{count}", "Expiration": expiration.isoformat()}))
"""
"""A ``credential_process``: what it hands out lapses after so many seconds."""


class Issuer:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.lapse(3600)

    def lapse(self, seconds: int | None) -> None:
        """What is issued from now on lapses after so long; ``None``: nothing is issued."""
        (self._directory / "lapse").write_text(json.dumps(seconds))

    @property
    def issued(self) -> int:
        return len(list(self._directory.glob("issued-*")))


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Issuer:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "issuer.py"
    script.write_text(ISSUER)
    config = tmp_path / "config"
    config.write_text(f"[profile plum]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Issuer(tmp_path)


@pytest.fixture
async def server() -> AsyncGenerator[Answering]:
    async with answering() as server:
        yield server


@pytest.fixture
async def table(server: Answering, issuer: Issuer) -> AsyncGenerator[Table]:
    table = Table(server.settings(profile="plum"))
    yield table
    await table.aclose()


async def ask(table: Table) -> None:
    await table.query(b"p", b"a", b"b")


def keys(server: Answering) -> list[str]:
    """The access keys that signed the requests."""
    return [
        asked.request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        for asked in server.asked
    ]


async def test_credentials_that_serve_are_asked_for_once(
    server: Answering, issuer: Issuer, table: Table
) -> None:
    for _ in range(3):
        await ask(table)
    assert issuer.issued == 1
    assert set(keys(server)) == {"KEY1"}
    assert server.asked[-1].request.headers["X-Amz-Security-Token"] == "token-1"


async def test_they_are_renewed_while_requests_go_on_with_the_old(
    server: Answering, issuer: Issuer, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.lapse(60)  # botocore renews what lapses within ten minutes
    await ask(table)
    issuer.lapse(3600)
    monkeypatch.setattr(account, "RENEW_AFTER", 0.0)
    first = keys(server)[-1]
    await ask(table)
    assert keys(server)[-1] == first
    async with asyncio.timeout(10):
        while keys(server)[-1] == first:
            await asyncio.sleep(0.01)
            await ask(table)


async def test_after_a_long_pause_a_request_waits_for_new_ones(
    server: Answering, issuer: Issuer, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.lapse(60)
    await ask(table)
    issuer.lapse(3600)
    monkeypatch.setattr(account, "RENEW_AFTER", 0.0)
    monkeypatch.setattr(account, "TRUST_FOR", 0.0)
    first = keys(server)[-1]
    await ask(table)
    assert keys(server)[-1] != first


async def test_looking_for_them_does_not_block_the_loop(
    issuer: Issuer, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_runs = threading.Event()
    found = account.find

    def find(settings: object) -> object:
        assert loop_runs.wait(10), "the event loop was blocked"
        return found(settings)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("perdure_dynamodb.requests.find", find)
    asking = asyncio.create_task(ask(table))
    await asyncio.sleep(0.01)
    loop_runs.set()
    await asking


async def test_a_renewal_that_fails_leaves_the_old_in_use(
    server: Answering, issuer: Issuer, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.lapse(60)
    await ask(table)
    issuer.lapse(None)
    monkeypatch.setattr(account, "RENEW_AFTER", 0.0)
    issued = issuer.issued
    async with asyncio.timeout(10):
        while issuer.issued == issued:
            await ask(table)
            await asyncio.sleep(0.01)
    await ask(table)
    assert len(set(keys(server))) == 1


async def test_a_request_that_waits_for_a_renewal_that_fails(
    issuer: Issuer, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.lapse(60)
    await ask(table)
    issuer.lapse(None)
    monkeypatch.setattr(account, "RENEW_AFTER", 0.0)
    monkeypatch.setattr(account, "TRUST_FOR", -1.0)
    monkeypatch.setattr(
        "botocore.credentials.RefreshableCredentials._mandatory_refresh_timeout", 3000
    )
    with pytest.raises(Unavailable, match="nobody is at home") as caught:
        await ask(table)
    assert not caught.value.lasting


async def test_refused_credentials_are_looked_for_anew(
    server: Answering, issuer: Issuer, table: Table
) -> None:
    await ask(table)
    server.answers.append(refuse("ExpiredTokenException"))
    await ask(table)
    assert keys(server)[-2:] == ["KEY1", "KEY2"]
    server.answers += [refuse("ExpiredTokenException")] * 2
    with pytest.raises(Unavailable, match="have expired") as caught:
        await ask(table)
    assert caught.value.lasting


async def test_callers_who_are_refused_together_look_once(
    server: Answering, issuer: Issuer, table: Table
) -> None:
    await ask(table)
    server.answers += [refuse("ExpiredTokenException")] * 5
    await asyncio.gather(*(ask(table) for _ in range(5)))
    assert issuer.issued == 2


async def test_a_new_session_token_in_the_file_is_taken(
    server: Answering, issuer: Issuer, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    text = "[plain]\naws_access_key_id = {}\naws_secret_access_key = secret\n"
    file.write_text(text.format("OLD"))
    table = Table(server.settings(profile="plain"))
    await ask(table)
    file.write_text(text.format("NEW"))
    server.answers.append(refuse("ExpiredTokenException"))
    await ask(table)
    assert keys(server)[-2:] == ["OLD", "NEW"]
    await table.aclose()


async def test_closing_during_a_renewal(
    server: Answering, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(server.settings(profile="plum"))
    await ask(table)
    monkeypatch.setattr(account, "RENEW_AFTER", 0.0)
    issuer.lapse(60)
    await ask(table)
    await table.aclose()
