"""Stored values as JSON and back, and as text for people."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perdure_cli.text import ago, escape, moment, plural, readable, size, speaker_and_text
from perdure_cli.values import dumps, from_json, json_line, to_json
from tests.core.codec.values import exact, nested, texts, values

LOOKALIKES: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(["$bytes", "$$bytes", "$", "$$", "$int", "$unknown", "bytes"]),
    texts | st.just("aGk=") | st.just("0x1"),
    min_size=1,
    max_size=2,
)
"""Objects of a user's own that look like ours."""


@given(nested(values | LOOKALIKES))
@example({"$bytes": "aGk="})
@example({"$$bytes": {"$bytes": b"hi"}})
@example({"$float": float("nan")})
def test_any_stored_value_survives_as_json(value: Any) -> None:
    text = dumps(value)
    assert exact(from_json(json.loads(text))) == exact(value)


@given(nested(values | LOOKALIKES))
def test_json_is_one_line_that_commands_no_terminal(value: Any) -> None:
    text = dumps(value)
    assert text.splitlines() == [text]
    assert not {"\x1b", "\x7f", "\x9b", "\u202e", "\u2066"} & set(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"hi", {"$bytes": "aGk="}),
        (datetime(2026, 11, 22, tzinfo=UTC), {"$datetime": "2026-11-22T00:00:00+00:00"}),
        (Decimal("1.10"), {"$decimal": "1.10"}),
        (float("-inf"), {"$float": "-inf"}),
        (2**64, {"$int": "0x10000000000000000"}),
        (2**64 - 1, 2**64 - 1),
        (UUID(int=7), {"$uuid": "00000000-0000-0000-0000-000000000007"}),
        ({"$bytes": 1}, {"$$bytes": 1}),
        ({"$bytes": 1, "other": 2}, {"$bytes": 1, "other": 2}),
    ],
)
def test_the_form_that_is_documented(value: Any, shown: Any) -> None:
    assert to_json(value) == shown
    assert from_json(shown) == value


def test_a_datetime_written_by_hand_may_end_in_z() -> None:
    assert from_json({"$datetime": "2026-11-22T15:31:00Z"}) == datetime(
        2026, 11, 22, 15, 31, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "value",
    [
        {"$set": "a"},
        {"$bytes": 1},
        {"$bytes": "*"},
        {"$int": "ten"},
        {"$uuid": "7"},
        {"$decimal": "one"},
        {"$datetime": "tomorrow é"},
        {"$": ""},
    ],
    ids=json_line,
)
def test_an_unknown_or_malformed_tag_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"malformed"):
        from_json([{"inside": value}])


def test_what_no_store_returns_has_no_json() -> None:
    with pytest.raises(TypeError, match="set has no JSON form"):
        to_json({1})


@given(st.text(), st.text())
@example("\\n", "\n")
def test_escaped_text_is_one_harmless_line_and_tells_texts_apart(a: str, b: str) -> None:
    assert (escape(a) == escape(b)) == (a == b)
    assert len(escape(a).splitlines()) <= 1
    assert "\x1b" not in escape(a)
    assert "\t" not in escape(a)


def test_readable_text_keeps_its_lines_and_nothing_else_that_moves_a_cursor() -> None:
    assert readable("a\r\nb\tc\\d\x1b[2J\u202e\rx") == "a\nb    c\\d\\x1b[2J\\u202e\\rx"


def test_small_facts_read_well() -> None:
    assert moment(0) == "1970-01-01T00:00:00.000Z"
    assert moment(-5) == "-5 ms"
    assert [ago(0, ms) for ms in (0, 59_999, 60_000, 7_200_000, 172_800_000)] == [
        "0 s ago",
        "59 s ago",
        "1 min ago",
        "2 h ago",
        "2 d ago",
    ]
    assert [size(count) for count in (0, 1023, 1024, 1536, 2**30, 2**50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 GiB",
        "1024.0 TiB",
    ]
    assert [plural(1, "entry"), plural(2000, "entry"), plural(0, "session")] == [
        "1 entry",
        "2,000 entries",
        "0 sessions",
    ]


SPOKEN: dict[str, tuple[Any, tuple[str, str]]] = {
    "OpenAI": ({"role": "user", "content": "Hello"}, ("user", "Hello")),
    "OpenAI, parts": (
        {"role": "user", "content": [{"type": "text", "text": "This?"}, {"type": "image"}]},
        ("user", 'This?\n{"type":"image"}'),
    ),
    "OpenAI, call": (
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "stock", "arguments": '{"size":"M"}'}}],
        },
        ("assistant", '→ stock {"size":"M"}'),
    ),
    "Responses, call": (
        {"type": "function_call", "name": "weather", "arguments": "{}"},
        ("function_call", "→ weather {}"),
    ),
    "Responses, output": (
        {"type": "function_call_output", "output": "9.5"},
        ("function_call_output", "← 9.5"),
    ),
    "Responses, reasoning": (
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        ("reasoning", "Hm."),
    ),
    "Claude Code": (
        {
            "type": "assistant",
            "message": {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "tool_use", "name": "Read", "input": {"file": "a"}},
                ],
            },
        },
        ("assistant", 'Hm.\n→ Read {"file":"a"}'),
    ),
    "Claude Code, result": (
        {
            "type": "user",
            "message": {"role": "user", "content": [{"type": "tool_result", "content": "1"}]},
        },
        ("tool", "← 1"),
    ),
    "Claude Code, summary": ({"type": "summary", "summary": "Dates"}, ("summary", "Dates")),
    "LangChain": (
        {"type": "ai", "data": {"content": "", "tool_calls": [{"name": "f", "args": {}}]}},
        ("ai", "→ f {}"),
    ),
    "LangChain, constructor": (
        {"lc": 1, "type": "constructor", "kwargs": {"content": "Ciao", "type": "human"}},
        ("human", "Ciao"),
    ),
    "empty content": (
        {"role": "user", "content": ""},
        ("user", '{"role":"user","content":""}'),
    ),
    "no message": ({"step": 1}, ("", '{"step":1}')),
    "no object": ([b"hi"], ("", '[{"$bytes":"aGk="}]')),
}


@pytest.mark.parametrize("name", SPOKEN)
def test_an_entry_tells_who_speaks_and_what(name: str) -> None:
    entry, spoken = SPOKEN[name]
    assert speaker_and_text(entry) == spoken


@given(
    st.dictionaries(
        st.sampled_from(["role", "type", "content", "message", "tool_calls", "kwargs"]),
        nested(values),
    )
)
def test_any_entry_can_be_shown(entry: dict[str, Any]) -> None:
    speaker, text = speaker_and_text(entry)
    assert isinstance(speaker, str)
    assert text
