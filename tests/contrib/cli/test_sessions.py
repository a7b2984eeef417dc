"""``ls``, ``show``, ``tail`` and ``rm``: what they print for scripts, and what they refuse."""

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perdure import Store

from tests.contrib.cli.command import Command

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def message(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"message {number}"}


async def furnish(store: Store) -> None:
    """A session with one of everything."""
    session = store.session("chat-7")
    await session.append(message(1), {"role": "assistant", "content": "Grüße\n\t\x1b[31m"})
    await session.append(b"hi")
    await session.cells.put("step", 3)
    await session.cells.put("two\twords", {"a": None})
    await session.set(
        labels=("red, green", 'say "hi"'),
        meta=b"m",
        expires_at=datetime(2200, 1, 1, tzinfo=UTC),
    )
    await store.save("chat-7", {"plan": ["a"]})


# ls


def test_ls_in_a_pipe_has_a_row_per_session(command: Command) -> None:
    command.put("b", 1)
    command.put("a\tb\x1b[2J\\", 1)
    command.do(furnish)
    listed = command("ls").rows
    assert [row[0] for row in listed] == ["a\\tb\\x1b[2J\\\\", "b", "chat-7"]
    assert all(len(row) == 6 for row in listed)
    assert [row[4:] for row in listed[1:]] == [
        ["-", "-"],
        ["2200-01-01T00:00:00.000Z", 'red, green,say "hi"'],
    ]


def test_ls_as_json_has_an_object_per_session(command: Command) -> None:
    command.do(furnish)
    (listed,) = command("ls", "--json").json
    assert listed["session"] == "chat-7"
    assert listed["version"] == 6
    assert listed["labels"] == ["red, green", 'say "hi"']
    assert listed["meta"] == {"$bytes": "bQ=="}
    assert listed["expires_at"] == "2200-01-01T00:00:00.000Z"


def test_ls_narrows_what_it_lists(command: Command) -> None:
    for id in ("a2", "b1", "a1"):
        command.put(id, 1)
        time.sleep(0.002)  # the resolution of what --recent goes by
    command.do(lambda store: store.session("a2").set(labels=("red",)))

    def ids(*arguments: str) -> list[str]:
        return [row[0] for row in command("ls", *arguments).rows]

    assert ids() == ["a1", "a2", "b1"]
    assert ids("--prefix", "a") == ["a1", "a2"]
    assert ids("--label", "red") == ["a2"]
    assert ids("--limit", "2") == ["a1", "a2"]
    assert ids("--limit", "0") == []
    assert ids("--recent") == ["a1", "b1", "a2"]
    assert ids("--kind", "other") == []


def test_ls_of_nothing_is_nothing(command: Command) -> None:
    done = command("ls")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_ls_lists_tenants(command: Command) -> None:
    command.put("a", 1)
    command.do(lambda store: store.tenant("acme").session("a").append(1))
    assert command("ls", "--tenants").lines == ["acme", "default"]
    assert command("ls", "--tenants", "--json").json == [
        {"tenant": "acme"},
        {"tenant": "default"},
    ]


def test_ls_refuses_what_does_not_go_together(command: Command) -> None:
    said = command("ls", "--recent", "--prefix", "a").error(2)
    assert said == "--prefix goes with the order by id, not with --recent"


# show


def test_show_in_a_pipe_has_a_line_for_everything(command: Command) -> None:
    command.do(furnish)
    shown = command("show", "chat-7")
    assert "\x1b" not in shown.out
    facts = {row[1]: row[2] for row in shown.rows if row[0] == "head"}
    assert facts["version"] == "6"
    assert json.loads(facts["labels"]) == ["red, green", 'say "hi"']
    rest = [row for row in shown.rows if row[0] != "head"]
    assert rest[0] == ["document", '{"plan":["a"]}']
    assert [row[0] for row in rest[1:]] == ["entry"] * 3 + ["cell"] * 2
    assert [json.loads(row[2]) for row in rest[1:4]] == [
        message(1),
        {"role": "assistant", "content": "Grüße\n\t\x1b[31m"},
        {"$bytes": "aGk="},
    ]
    assert rest[4:] == [["cell", "step", "3"], ["cell", "two\\twords", '{"a":null}']]


def test_show_as_json_is_one_object(command: Command) -> None:
    command.do(furnish)
    (shown,) = command("show", "--json", "chat-7").json
    assert list(shown) == [
        "session",
        "kind",
        "tenant",
        "head",
        "lineage",
        "document",
        "cells",
        "streams",
        "attachments",
        "entries",
    ]
    assert shown["document"] == {"plan": ["a"]}
    assert shown["cells"] == {"step": 3, "two\twords": {"a": None}}
    assert [entry["value"] for entry in shown["entries"]][::2] == [
        message(1),
        {"$bytes": "aGk="},
    ]


def test_show_takes_only_the_last_entries(command: Command) -> None:
    command.put("a", *map(message, range(1200)))

    def shown(*arguments: str) -> list[Any]:
        (whole,) = command("show", "--json", "a", *arguments).json
        return [entry["value"] for entry in whole["entries"]]

    assert shown() == [message(n) for n in range(1200)]
    assert shown("--last", "2") == [message(1198), message(1199)]
    assert shown("-n", "0") == []


def test_show_tells_where_a_fork_came_from(command: Command) -> None:
    async def fork(store: Store) -> None:
        await store.session("a").append(1)
        await store.session("a").fork("b")

    command.do(fork)
    (shown,) = command("show", "--json", "b").json
    assert shown["lineage"]["session"] == "a"
    assert any(row[1] == "lineage" for row in command("show", "b").rows)


# tail


def test_tail_shows_the_last_entries(command: Command) -> None:
    command.put("a", *map(message, range(20)))
    assert [json.loads(row[1]) for row in command("tail", "a").rows] == [
        message(n) for n in range(10, 20)
    ]
    (last,) = command("tail", "-n", "1", "--json", "a").json
    assert last["value"] == message(19)
    assert len(last["position"]) == 32
    assert command("tail", "-n", "0", "a").out == ""


# rm


def test_rm_deletes_and_says_so(command: Command) -> None:
    for id in ("a", "b", "c"):
        command.put(id, 1)
    assert command("rm", "--yes", "a", "a").lines == ["deleted a"]
    assert command("rm", "-y", "b", "--json").json == [{"session": "b", "deleted": True}]
    assert command.ids() == ["c"]


def test_rm_of_a_missing_session_fails_and_deletes_the_others(command: Command) -> None:
    command.put("a", 1)
    done = command("rm", "--yes", "missing", "a")
    assert done.error() == "there is no session 'missing'"
    assert done.lines == ["deleted a"]
    assert command.ids() == []


# Streams and attachments


async def attach(store: Store) -> None:
    session = store.session("a")
    await session.append("main")
    await session.stream("su\tb").append("one", "two")
    await session.attachments.put(b"hi", media_type="text/plain")
    await session.attachments.put(b"")


HI = hashlib.sha256(b"hi").hexdigest()
EMPTY = hashlib.sha256(b"").hexdigest()


def test_show_tells_of_streams_and_attachments(command: Command) -> None:
    command.do(attach)
    rows = command("show", "a").rows
    assert [row for row in rows if row[0] == "stream"] == [["stream", "su\\tb"]]
    assert sorted(row for row in rows if row[0] == "attachment") == sorted(
        [["attachment", HI, "2", "text/plain"], ["attachment", EMPTY, "0", "-"]]
    )
    (shown,) = command("show", "--json", "a").json
    assert shown["streams"] == ["su\tb"]
    assert {found["digest"]: found["size"] for found in shown["attachments"]} == {
        HI: 2,
        EMPTY: 0,
    }


def test_the_entries_of_a_stream_are_shown_by_its_name(command: Command) -> None:
    command.do(attach)
    rows = command("show", "--stream", "su\tb", "a").rows
    assert [row[2] for row in rows if row[0] == "entry"] == ['"one"', '"two"']
    assert [row[1] for row in command("tail", "--stream", "su\tb", "-n1", "a").rows] == [
        '"two"'
    ]
    assert command("tail", "--stream", "none", "a").rows == []
    assert command("show", "--stream", "", "a").error() == "stream must not be empty"


# Errors


@pytest.mark.parametrize("arguments", [("show",), ("tail",), ("export",), ("show", "--json")])
def test_a_missing_session_is_said_to_be(command: Command, arguments: tuple[str, ...]) -> None:
    name, *options = arguments
    done = command(name, *options, "mis'sing")
    assert done.error() == (
        "there is no session \"mis'sing\" (tenant 'default', kind 'session')"
    )
    assert done.out == ""


def test_the_exit_code_of_wrong_use_is_2(command: Command) -> None:
    assert command.bare("quux").error(2) == "no such command 'quux' (try 'perdure --help')"
    assert command.bare("show").error(2) == "missing argument 'ID' (try 'perdure show --help')"
    said = command.bare("ls", "--limit", "-1").error(2)
    assert said.startswith("invalid value for '--limit': -1 is not in the range")
    assert command.bare("ls", "--colour").error(2).startswith("no such option")


def test_a_wrong_store_is_one_clear_line(command: Command, tmp_path: Path) -> None:
    def said(url: str) -> str:
        return command.bare("ls", "--url", url).error()

    assert said("sessions.db").startswith("a store URL starts with a scheme and '://'")
    assert "no backend for nosql://" in said("nosql://host")
    assert "did you mean 'postgres'?" in said("posgres://host")
    assert "sqlite:// has no option 'synch'" in said("sqlite:///a.db?synch=full")
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and longer than a header of one hundred bytes\n" * 4)
    assert said(f"sqlite:///{text}") == (
        f"{text} is not an SQLite database; it was left as it is"
    )
    assert command("show", "").error() == "session id must not be empty"
    assert command("ls", "--tenant", "").error() == "tenant must not be empty"


def test_an_option_counts_before_the_command_and_more_behind_it(
    command: Command, url: str
) -> None:
    command.do(lambda store: store.tenant("acme").session("a").append(1))
    before = command.bare("--url", url, "--tenant", "acme", "ls")
    assert before.rows[0][0] == "a"
    outer = ("--url", "memory://", "--tenant", "x")
    after = command.bare(*outer, "ls", "-u", url, "--tenant", "acme")
    assert after.rows == before.rows


def test_the_environment_names_the_store(
    command: Command, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.put("a", 1)
    monkeypatch.setenv("PERDURE_URL", url)
    assert command.bare("ls").rows[0][0] == "a"
