"""Importing: safe to repeat, never by halves, and clear about what is wrong where."""

import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Store

from tests.contrib.cli.command import Command

Write = Callable[..., Path]


def message(number: int) -> dict[str, Any]:
    return {"role": "user", "content": f"message {number}"}


def rows(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def messages(count: int) -> str:
    return rows(*map(message, range(count)))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "chat.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# Repeating


def test_an_import_repeated_adds_nothing(command: Command, write: Write) -> None:
    path = write(messages(3))
    command("import", path)
    again = command("import", path)
    assert again.rows == [["chat", "0", "3", "OpenAI chat messages", str(path)]]
    assert command.log("chat") == [message(n) for n in range(3)]


def test_a_transcript_that_has_grown_adds_its_new_lines(command: Command, write: Write) -> None:
    command("import", write(messages(3)))
    assert command("import", write(messages(1200))).rows[0][1:3] == ["1197", "3"]
    assert command.log("chat") == [message(n) for n in range(1200)]


def test_a_session_that_has_gone_on_is_left_as_it_is(command: Command, write: Write) -> None:
    path = write(messages(2))
    command("import", path)
    command.put("chat", message(7))
    assert command("import", path).rows[0][1:3] == ["0", "2"]
    assert command.log("chat") == [message(0), message(1), message(7)]


def test_a_session_with_other_entries_is_refused(command: Command, write: Write) -> None:
    command.put("chat", message(0), message(5))
    path = write(messages(3))
    assert command("import", path).error() == (
        f"{path}: session 'chat' exists and holds other entries, from the file's entry 2 on: "
        "nothing was imported (--id imports under another id, --append adds to it)"
    )
    assert command.log("chat") == [message(0), message(5)]


def test_a_session_with_something_else_altogether_is_refused(
    command: Command, write: Write
) -> None:
    async def put(store: Store) -> None:
        await store.session("chat").cells.put("step", 3)

    command.do(put)
    assert "holds nothing of this file" in command("import", write(messages(1))).error()
    assert command.log("chat") == []


def test_an_empty_session_may_be_filled(command: Command, write: Write) -> None:
    command.put("chat", message(9))
    command.do(lambda store: store.session("chat").clear())
    assert command("import", write(messages(2))).code == 0
    assert command.log("chat") == [message(0), message(1)]


def test_append_adds_to_other_entries(command: Command, write: Write) -> None:
    command.put("chat", message(5))
    assert command("import", "--append", write(messages(2))).rows[0][1:3] == ["2", "0"]
    assert command.log("chat") == [message(5), message(0), message(1)]


def test_append_replaces_a_longer_document(command: Command, write: Write) -> None:
    command.do(lambda store: store.save("chat", os.urandom(600_000)))
    begin = {"perdure": 1, "session": "chat", "kind": "session", "tenant": "default"}
    end = {"end": "chat", "entries": 1, "cells": 0}
    path = write(rows(begin, {"document": "short"}, {"entry": 1}, end))
    assert "holds another document" in command("import", path).error()
    assert command("import", "--append", path).code == 0
    assert command.do(lambda store: store.load("chat")) == "short"
    assert command.log("chat") == [1]


def test_what_an_interrupted_import_left_out_is_added(command: Command, write: Write) -> None:
    # As if it had been killed between two of its commits.
    command.put("chat", *map(message, range(500)))
    assert command("import", write(messages(1100))).rows[0][1:3] == ["600", "500"]
    assert command.log("chat") == [message(n) for n in range(1100)]


def test_several_files_are_imported_together(command: Command, write: Write) -> None:
    first, second = write(messages(1), "a.jsonl"), write(messages(2), "b.jsonl")
    assert [row[0] for row in command("import", first, second).rows] == ["a", "b"]
    assert command.ids() == ["a", "b"]


def test_a_file_named_twice_and_two_of_one_name_are_refused(
    command: Command, tmp_path: Path, write: Write
) -> None:
    path = write(messages(1))
    assert command("import", path, path).error(2) == "a file is named twice"
    (tmp_path / "more").mkdir()
    twin = write(messages(2), "more/chat.jsonl")
    assert command("import", path, twin).error() == (
        f"{twin}:1: session 'chat' is also in {path}:1; import one of them by itself, with --id"
    )
    assert command.ids() == []


def test_tenant_and_kind_are_where_it_goes(command: Command, write: Write) -> None:
    (report,) = command(
        "import", "--tenant", "acme", "--kind", "draft", "--json", write(messages(1))
    ).json
    assert (report["tenant"], report["kind"]) == ("acme", "draft")
    assert command.ids() == []
    assert command("ls", "--tenant", "acme", "--kind", "draft").rows[0][0] == "chat"


# Standard input


def with_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input_needs_a_name(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stdin(monkeypatch, messages(2).encode())
    assert command("import", "-").error(2) == (
        "<stdin>: the data names no session; give it one with --id"
    )
    with_stdin(monkeypatch, messages(2).encode())
    assert command("import", "-", "--id", "piped").rows[0][4] == "<stdin>"
    assert command.log("piped") == [message(0), message(1)]


def test_empty_standard_input_is_said_to_be(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_stdin(monkeypatch, b"")
    assert command("import", "-").error() == "<stdin> is empty"


def test_a_named_pipe_can_be_imported(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(messages(2),))
    writer.start()
    assert command("import", path).rows[0][:2] == ["pipe", "2"]
    writer.join()
    assert command.log("pipe") == [message(0), message(1)]


# What is wrong, and where

BEGIN = {"perdure": 1, "session": "a", "kind": "session", "tenant": "default"}
END = {"end": "a", "entries": 0, "cells": 0}
HI = hashlib.sha256(b"hi").hexdigest()

MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "cut off, one line": ('{"role":"user","content":"he\n', ":1: the JSON breaks off here"),
    "cut off after a comma": ('{"role":"user",\n', ":1: the JSON breaks off here"),
    "cut off, no newline": ('{"role":"user"', ":1: the JSON breaks off here"),
    "cut off, last line": (messages(2) + '{"role":"us', ":3: the JSON breaks off here"),
    "cut off, first line": ('{"role":"us\n' + messages(2), ":1: the JSON breaks off here"),
    "cut off, document": ('[\n{"role":"user",\n"content":', ":3: the JSON breaks off here"),
    "cut off, blank lines before": ('\n\n{"role":"us', ":3: the JSON breaks off here"),
    "not JSON": ("Hello there\n", ":1: not JSON: Expecting value (column 1)"),
    "not JSON, later": (
        messages(1) + "oops\n",
        ":2: not JSON: Expecting value (column 1)",
    ),
    "not UTF-8": (messages(1).encode() + b'{"role":"\xff"}\n', ":2: is not UTF-8 text"),
    "too deep": ("[" * 100_000, ":1: is nested too deeply"),
    "too deep to store": (
        rows({"role": "user", "content": json.loads("[" * 200 + "]" * 200)}),
        ": cannot store nested in more than 128 containers. Flatten it.",
    ),
    "surrogate": (
        '{"role":"user","content":"\\ud83d"}\n',
        ":1: cannot be stored: entry.content: cannot store a str with a lone surrogate. "
        "It has no UTF-8 form.",
    ),
    "cell without a name": (
        rows({"messages": [message(1)], "": 1}),
        ":1: cannot be stored: cell key must not be empty",
    ),
    "stranger among messages": (
        messages(1) + rows({"kind": "other"}),
        ":2: this line is not in the file's format, OpenAI chat messages",
    ),
    "stranger in a list": (
        json.dumps([message(1), "text"]),
        ":1: item 2 is not in the file's format, OpenAI chat messages",
    ),
    "stranger among conversations": (
        rows({"messages": [message(1)]}, {"messages": [message(1)]}, message(1)),
        ":3: is not a conversation, but the first line is one",
    ),
    "empty list": ("[]", " holds no messages"),
    "empty conversation": (rows({"messages": []}), " holds no messages"),
    "number": (
        "7",
        " is JSON, but none that perdure knows: a perdure export, a Claude Code "
        "session, OpenAI chat messages or Responses items, or LangChain messages (--lines "
        "takes any JSON Lines as they are, every line an entry)",
    ),
    "empty": ("", " is empty"),
    "blank": ("\n \n", " is empty"),
    "byte order mark": (b"\xef\xbb\xbf", " is empty"),
    "binary": (b"\x7fELF\0\0", " is binary, no transcript"),
    "gzip": (
        b"\x1f\x8b\x08",
        " is compressed with gzip: unpack it first (gunzip -c FILE | perdure import -)",
    ),
    "a store": (
        b"SQLite format 3\0",
        " is an SQLite database; if it is a store, name it with --url",
    ),
    "UTF-16": (
        "[]".encode("utf-16"),
        " is UTF-16 text: convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)",
    ),
    "export, newer": (
        rows({"perdure": 3, "more": "unknown"}),
        ":1: is version 3 of the export format; this perdure reads 2",
    ),
    "export, no end": (rows(BEGIN), ":1: the export of 'a' breaks off after this line"),
    "export, no end in between": (
        rows(BEGIN, BEGIN),
        ":2: opens a session, but 'a' has no end line",
    ),
    "export, entry missing": (
        rows(BEGIN, {"entry": 1}, {**END, "entries": 2}),
        ":3: ends 'a' with 2 entries, 0 cells and 0 attachments, but there were 1, 0 and 0 in "
        "'a': lines are missing or were added",
    ),
    "export, line outside": (rows(BEGIN, END, {"entry": 1}), ":3: stands outside any session"),
    "export, two documents": (
        rows(BEGIN, {"document": 1}, {"document": 2}),
        ":3: is a second document",
    ),
    "export, unknown line": (
        rows(BEGIN, {"blob": 1}),
        ":2: is no line of an export: no entry, cell, document, attachment or end",
    ),
    "export, bytes of nothing": (
        rows(BEGIN, {"bytes": "aGk="}),
        ":2: stands outside any attachment",
    ),
    "export, no Base64": (
        rows(BEGIN, {"attachment": "00"}, {"bytes": "a?"}),
        ':3: "bytes" must be Base64',
    ),
    "export, bytes changed": (
        rows(BEGIN, {"attachment": HI}, {"bytes": "aGo="}, {**END, "attachments": 1}),
        f":4: ends the attachment {HI}, whose content has another SHA-256: lines are missing "
        "or were changed",
    ),
    "export, bytes missing": (
        rows(BEGIN, {"attachment": HI}, {"attachment": HI}),
        f":3: ends the attachment {HI}, whose content has another SHA-256: lines are missing "
        "or were changed",
    ),
    "export, attachment missing": (
        rows(BEGIN, {"entry": 1}, {**END, "entries": 1, "attachments": 1}),
        ":3: ends 'a' with 1 entries, 0 cells and 1 attachments, but there were 1, 0 and 0 in "
        "'a': lines are missing or were added",
    ),
    "export, entry behind": (
        rows(BEGIN, {"attachment": HI}, {"bytes": "aGk="}, {"entry": 1}),
        ":4: stands behind an attachment, where only others and the end may",
    ),
    "export, stream without a name": (
        rows(BEGIN, {"entry": 1, "stream": "\0"}, {**END, "entries": 1}),
        ":2: cannot be stored: stream must not contain NUL",
    ),
    "export, unknown tag": (
        rows(BEGIN, {"entry": {"$set": [1]}}),
        ":2: $set is unknown or malformed (a user's own is written $$set)",
    ),
    "export, bad value": (
        rows(BEGIN, {"entry": {"$bytes": "?"}}),
        ":2: $bytes is malformed: '?'",
    ),
    "export, bad labels": (
        rows({**BEGIN, "labels": [1]}),
        ':1: "labels" must be a list of texts',
    ),
    "export, too many labels": (
        rows({**BEGIN, "labels": list("abcde")}, END),
        ":1: a session carries at most 4 labels, each once",
    ),
    "export, bad expiry": (
        rows({**BEGIN, "expires_at": "soon"}),
        ':1: "expires_at" must be a time as in 2026-11-22T15:31:00Z',
    ),
    "export, bad id": (
        rows({**BEGIN, "session": ""}, {**END, "end": ""}),
        ":1: session id must not be empty",
    ),
    "export, no media type": (
        rows(
            BEGIN,
            {"entry": 1},
            {"attachment": HI, "media_type": ""},
            {"bytes": "aGk="},
            {**END, "entries": 1, "attachments": 1},
        ),
        ":3: cannot be stored: media type must not be empty",
    ),
    "export, too deep to be walked": (
        rows(BEGIN) + '{"document":' + "[" * 900 + "]" * 900 + "}\n" + rows(END),
        ":2: is nested too deeply",
    ),
    "export, bad cell": (
        rows(BEGIN, {"cell": "a\0b", "value": 1}, {**END, "cells": 1}),
        ":2: cannot be stored: cell key must not contain NUL",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_wrong_is_said_with_its_place_and_nothing_is_imported(
    command: Command, write: Write, case: str
) -> None:
    data, reason = MALFORMED[case]
    bad, good = write(data, "bad.jsonl"), write(messages(2), "good.jsonl")
    said = command("import", good, bad).error()
    assert said.startswith(str(bad))
    assert said.endswith(reason), said
    assert command.ids() == []


def test_a_bad_line_far_down_leaves_nothing_behind(command: Command, write: Write) -> None:
    path = write(messages(3000) + '{"role":"user","con')
    assert command("import", path).error() == f"{path}:3001: the JSON breaks off here"
    assert command.ids() == []


def test_directories_and_missing_files_are_said_to_be(command: Command, tmp_path: Path) -> None:
    assert command("import", tmp_path).error() == (
        f"{tmp_path} is a directory: name the files in it"
    )
    missing = tmp_path / "missing.jsonl"
    assert command("import", missing).error() == f"{missing}: No such file or directory"


def test_a_file_that_cannot_be_read_is_said_to_be(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "loop.jsonl"
    path.symlink_to(path)
    assert command("import", path).error() == f"{path}: Too many levels of symbolic links"


def test_a_file_name_cannot_command_the_terminal(command: Command, tmp_path: Path) -> None:
    said = command("import", tmp_path / "a\x1b[2Jb").error()
    assert said == f"{tmp_path}/a\\x1b[2Jb: No such file or directory"
