"""What a person sees: colours and tables on a terminal, and nothing that stored text says to
the terminal itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure import Store

from tests.contrib.cli.command import plain, run_in_terminal, run_process

TRANSCRIPTS = Path(__file__).parent / "transcripts"
URL = "sqlite:///sessions.db"


def store(directory: Path, *entries: Any, id: str = "a") -> None:
    async def append() -> None:
        async with Store(f"sqlite:///{directory / 'sessions.db'}") as store:
            await store.session(id).append(*entries)
            await store.session(id).cells.put("step", "\x1b]0;title\x07")

    asyncio.run(append())


def test_a_transcript_reads_like_a_conversation(tmp_path: Path) -> None:
    run_process("import", "-u", URL, TRANSCRIPTS / "claude-code.jsonl", cwd=tmp_path)
    id = "5d0c7a52-91b4-4b0e-9c1f-2f6a3f0b8d11"
    shown = run_in_terminal("show", "-u", URL, id, cwd=tmp_path)
    assert shown.code == 0
    assert "\x1b[" in shown.out
    lines = plain(shown.out).splitlines()
    assert lines[0] == id
    assert "tenant, kind  default, session" in lines
    start = lines.index("assistant")
    assert lines[start : start + 6] == [
        "assistant",
        "  CI runs in UTC; the test compares local dates.",
        "  Let me read the test first.",
        '  → Read {"file_path":"/home/ana/shop/tests/test_dates.py","limit":40}',
        "tool",
        "  ←      1→from shop.dates import today",
    ]


def test_sessions_are_a_table_without_empty_columns(tmp_path: Path) -> None:
    store(tmp_path, 1, id="chat-7")
    shown = run_in_terminal("ls", "-u", URL, cwd=tmp_path)
    title, row, total, *_ = plain(shown.out).splitlines()
    assert title.split() == ["id", "version", "created", "updated"]
    assert row.split()[0] == "chat-7"
    assert total == "1 session (tenant default, kind session)"
    empty = run_in_terminal("ls", "-u", URL, "--kind", "other", cwd=tmp_path)
    assert plain(empty.out) == "no sessions (tenant default, kind other)\n"


@pytest.mark.parametrize("arguments", [("show", "a"), ("tail", "a"), ("export",), ("ls",)])
def test_stored_text_cannot_command_the_terminal(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[bold]:boom:\r"
    store(tmp_path, {"role": hostile, "content": hostile}, hostile)
    store(tmp_path, hostile, id=hostile)
    shown = run_in_terminal(*arguments, "-u", URL, cwd=tmp_path).out
    for sequence in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "\r"):
        assert sequence not in shown
    assert "[bold]:boom:" in plain(shown).replace("\n", "")


def test_long_entries_are_shortened_unless_full_is_asked_for(tmp_path: Path) -> None:
    store(tmp_path, {"role": "user", "content": "x" * 1000})
    short = plain(run_in_terminal("show", "-u", URL, "a", cwd=tmp_path).out)
    assert "(400 more characters)" in short.replace("\n  ", "")
    full = plain(run_in_terminal("show", "-u", URL, "--full", "a", cwd=tmp_path).out)
    assert full.count("x") == 1000


def test_an_import_tells_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text('{"role":"user","content":"Hello"}\n')
    first = run_in_terminal("import", "-u", URL, "chat.jsonl", cwd=tmp_path)
    assert plain(first.out) == "chat: 1 entry added (OpenAI chat messages, chat.jsonl)\n"
    again = run_in_terminal("import", "-u", URL, "chat.jsonl", cwd=tmp_path)
    assert plain(again.out) == (
        "chat: 0 entries added, all are there already (OpenAI chat messages, chat.jsonl)\n"
    )


def test_doctor_fits_the_terminal(tmp_path: Path) -> None:
    shown = run_in_terminal("doctor", "-u", URL, cwd=tmp_path, width=80)
    lines = plain(shown.out).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1] == "healthy"
    assert any(line.startswith("✓ write ") for line in lines)
    assert not any("ok" in line.split() for line in lines)


def test_backends_are_a_table(tmp_path: Path) -> None:
    shown = plain(run_in_terminal("backends", cwd=tmp_path).out)
    assert shown.splitlines()[0].split() == [
        "scheme",
        "distribution",
        "contract",
        "state",
        "summary",
    ]
    assert "sqlite://" in shown


def test_a_terminal_that_is_dumb_gets_plain_text(tmp_path: Path) -> None:
    store(tmp_path, 1)
    shown = run_process("show", "-u", URL, "a", cwd=tmp_path, TERM="dumb", FORCE_COLOR="1")
    assert "\x1b" not in shown.out
