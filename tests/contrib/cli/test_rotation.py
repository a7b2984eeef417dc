"""``rotate`` and ``new-key``: what they tell, and what is encrypted when they are done."""

from datetime import UTC, datetime

import pytest

from perdure import KeyRing, Store
from perdure.encryption.keys import KEYS_VARIABLE

from tests.contrib.cli.command import Command

FIRST, SECOND = KeyRing.generate("first"), KeyRing.generate("second")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)


async def furnish(store: Store) -> None:
    for tenant, id in (("default", "a"), ("default", "b"), ("acme", "c")):
        session = store.tenant(tenant).session(id)
        await session.append({"n": 1}, {"n": 2})
        await session.cells.put("step", id)


def test_a_new_key_is_one_line_that_a_ring_reads(command: Command) -> None:
    this_month = f"{datetime.now(UTC):%Y-%m}"
    assert KeyRing.parse(command.bare("new-key").out.rstrip("\n")).ids == (this_month,)
    assert KeyRing.parse(command.bare("new-key", "mine").out.rstrip("\n")).ids == ("mine",)
    assert "a key's id" in command.bare("new-key", "not one").error()


def test_a_store_is_encrypted_and_its_key_replaced(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.do(furnish)
    monkeypatch.setenv(KEYS_VARIABLE, f"{FIRST},plaintext")
    done = command("rotate")
    assert done.code == 0
    assert done.rows == [
        ["c", "acme", "session", "2", "2", "0"],
        ["a", "default", "session", "2", "2", "0"],
        ["b", "default", "session", "2", "2", "0"],
    ]
    assert done.err == "6 rows sealed, 3 sessions seen\n"
    monkeypatch.setenv(KEYS_VARIABLE, f"{SECOND},{FIRST}")
    assert command("rotate", "--tenant", "acme").rows == [
        ["c", "acme", "session", "2", "2", "0"]
    ]
    again = command("rotate", "--json")
    assert {row["session"]: row["sealed"] for row in again.json} == {"a": 2, "b": 2, "c": 0}
    monkeypatch.setenv(KEYS_VARIABLE, SECOND)
    assert command("verify").code == 0
    assert command("show", "a").code == 0
    monkeypatch.setenv(KEYS_VARIABLE, FIRST)
    assert "the key 'second'" in command("show", "a").error()


def test_what_cannot_be_sealed_is_told_and_the_rest_is_done(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.do(furnish)
    monkeypatch.setenv(KEYS_VARIABLE, FIRST)
    refused = command("rotate")
    assert refused.code == 1
    assert refused.err.count("is in plain") == 3
    assert refused.err.endswith("0 rows sealed, 3 sessions seen, 3 failed\n")


def test_without_keys_or_with_bad_ones_nothing_is_done(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.do(furnish)
    assert KEYS_VARIABLE in command("rotate").error()
    monkeypatch.setenv(KEYS_VARIABLE, "first:c2VjcmV0")
    for arguments in (("rotate",), ("ls",), ("show", "a")):
        told = command(*arguments).error()
        assert "'first' must be 32 bytes" in told
        assert "c2VjcmV0" not in told
    monkeypatch.setenv(KEYS_VARIABLE, FIRST)
    assert "--kind" in command("rotate", "--kind", "draft").error(2)
