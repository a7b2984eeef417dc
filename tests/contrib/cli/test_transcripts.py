"""Importing chat transcripts as they lie on disk: detected, kept exactly, named sensibly."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.contrib.cli.command import Command

TRANSCRIPTS = Path(__file__).parent / "transcripts"
SESSION = "5d0c7a52-91b4-4b0e-9c1f-2f6a3f0b8d11"


def objects(name: str) -> list[Any]:
    """The values of a JSON Lines file."""
    return [json.loads(line) for line in (TRANSCRIPTS / name).read_text().splitlines()]


def document(name: str) -> Any:
    return json.loads((TRANSCRIPTS / name).read_text())


LINES = [
    ("claude-code.jsonl", "Claude Code session", SESSION),
    ("claude-stream.jsonl", "Claude Code session", SESSION),
    ("agent-a81f.jsonl", "Claude Code session", f"{SESSION}/agent-a81f"),
    ("openai-chat.jsonl", "OpenAI chat messages", "openai-chat"),
    ("openai-items.jsonl", "OpenAI Responses items", "openai-items"),
]
LISTS = [
    ("openai-chat.json", "OpenAI chat messages"),
    ("openai-items.json", "OpenAI Responses items"),
    ("langchain-dict.json", "LangChain messages"),
    ("langchain-dumpd.json", "LangChain messages"),
]


@pytest.mark.parametrize(("name", "format", "id"), LINES)
def test_every_line_becomes_an_entry(command: Command, name: str, format: str, id: str) -> None:
    expected = objects(name)
    done = command("import", TRANSCRIPTS / name)
    assert done.rows == [[id, str(len(expected)), "0", format, str(TRANSCRIPTS / name)]]
    assert command.log(id) == expected
    assert command.cells(id) == {}


@pytest.mark.parametrize(("name", "format"), LISTS)
def test_every_item_of_a_list_becomes_an_entry(
    command: Command, name: str, format: str
) -> None:
    (report,) = command("import", "--json", TRANSCRIPTS / name).json
    id = name.removesuffix(".json")
    assert report == {
        "session": id,
        "tenant": "default",
        "kind": "session",
        "file": str(TRANSCRIPTS / name),
        "format": format,
        "created": True,
        "added": len(document(name)),
        "present": 0,
    }
    assert command.log(id) == document(name)


@pytest.mark.parametrize(
    ("name", "format", "member"),
    [
        ("openai-request.json", "OpenAI chat messages", "messages"),
        ("openai-response.json", "OpenAI Responses items", "output"),
    ],
)
def test_what_stands_beside_the_messages_becomes_cells(
    command: Command, name: str, format: str, member: str
) -> None:
    whole = document(name)
    done = command("import", TRANSCRIPTS / name)
    assert done.rows[0][3] == format
    id = name.removesuffix(".json")
    assert command.log(id) == whole.pop(member)
    assert command.cells(id) == whole


def test_a_response_that_keeps_its_input_has_it_first(command: Command, tmp_path: Path) -> None:
    response = document("openai-response.json")
    response["input"] = document("openai-items.json")[:1]
    (tmp_path / "r.json").write_text(json.dumps(response))
    command("import", tmp_path / "r.json")
    assert command.log("r") == response["input"] + response["output"]


def test_a_langchain_prompt_is_its_messages(command: Command) -> None:
    command("import", TRANSCRIPTS / "langchain-prompt.json")
    messages = document("langchain-prompt.json")["kwargs"]["messages"]
    assert command.log("langchain-prompt") == messages


def test_fine_tuning_lines_become_a_session_each(command: Command) -> None:
    done = command("import", TRANSCRIPTS / "fine-tuning.jsonl")
    assert [row[:2] for row in done.rows] == [
        ["fine-tuning-1", "3"],
        ["fine-tuning-2", "2"],
        ["fine-tuning-3", "2"],
    ]
    for number, line in enumerate(objects("fine-tuning.jsonl"), 1):
        assert command.log(f"fine-tuning-{number}") == line["messages"]
    assert command.cells("fine-tuning-2") == {"tools": [], "parallel_tool_calls": False}


def test_a_claude_code_file_named_by_a_uuid_is_that_session(
    command: Command, tmp_path: Path
) -> None:
    # A resumed session begins with lines copied from the one before, under its id.
    uuid = "0c8ae2f1-64b7-4d13-b3a5-1b3e0f6e7d20"
    shutil.copy(TRANSCRIPTS / "claude-code.jsonl", tmp_path / f"{uuid}.jsonl")
    command("import", tmp_path / f"{uuid}.jsonl")
    assert command.ids() == [uuid]


def test_id_names_the_session(command: Command) -> None:
    command("import", "--id", "chat/7", TRANSCRIPTS / "openai-chat.json")
    assert command.log("chat/7") == document("openai-chat.json")


def test_id_is_for_one_session(command: Command) -> None:
    done = command("import", "--id", "chat", TRANSCRIPTS / "fine-tuning.jsonl")
    assert done.error(2) == "--id names one session, but there are several to import"
    assert command.ids() == []


@pytest.mark.parametrize(
    "text",
    [
        "{rows}",
        "\ufeff{rows}",
        "\n\n{rows}\n\n",
        "{crlf}",
        "{unended}",
    ],
    ids=["plain", "byte order mark", "blank lines", "CRLF", "no final newline"],
)
def test_how_lines_are_set_does_not_matter(command: Command, tmp_path: Path, text: str) -> None:
    rows = (TRANSCRIPTS / "openai-chat.jsonl").read_text()
    filled = text.format(rows=rows, crlf=rows.replace("\n", "\r\n"), unended=rows.rstrip())
    (tmp_path / "a.jsonl").write_bytes(filled.encode())
    assert command("import", tmp_path / "a.jsonl").code == 0
    assert command.log("a") == objects("openai-chat.jsonl")


def test_a_single_message_is_a_transcript_on_one_line_or_on_several(
    command: Command, tmp_path: Path
) -> None:
    message = {"role": "user", "content": "Hello?"}
    (tmp_path / "line.json").write_text(json.dumps(message))
    (tmp_path / "lines.json").write_text(json.dumps(message, indent=2))
    assert command("import", tmp_path / "line.json", tmp_path / "lines.json").code == 0
    assert command.log("line") == command.log("lines") == [message]


def test_any_json_lines_are_taken_with_lines(command: Command, tmp_path: Path) -> None:
    rows: list[Any] = [{"a": 1}, [2.5, None], "text", 10**30, {"$bytes": "aGk="}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    unknown = command("import", tmp_path / "a.jsonl").error()
    assert unknown.startswith(f"{tmp_path / 'a.jsonl'} is JSON, but none that perdure knows")
    assert "--lines" in unknown
    assert command("import", "--lines", tmp_path / "a.jsonl").code == 0
    assert command.log("a") == rows


def test_numbers_and_text_are_kept_to_the_last_digit(command: Command, tmp_path: Path) -> None:
    content = [0.1, 1e308, -0.0, 2**63, 2**64, -(2**70), "e\u0301 \u2028 \x7f 👩‍🚀"]
    (tmp_path / "a.json").write_text(json.dumps([{"role": "user", "content": content}]))
    command("import", tmp_path / "a.json")
    ((entry,),) = (command.log("a"),)
    assert repr(entry["content"]) == repr(content)
