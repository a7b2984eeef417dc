"""Stored things as text for people: nothing in it can move a cursor or start a new line."""

import unicodedata
from datetime import UTC, datetime
from typing import cast

from perdure_cli.values import dumps

_ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}

# Control and format characters (the latter turn text around), surrogates, line separators.
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def escape(text: str, *, keep: str = "") -> str:
    """``text`` on one line, harmless, and still telling any two texts apart.

    Control and format characters and backslashes become escapes; ``keep`` exempts some.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(character if character in keep else _escape(character) for character in text)


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if unicodedata.category(character) not in _UNSAFE:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def readable(text: str) -> str:
    """``text`` for a terminal: line breaks stay, tabs become spaces, controls are escaped."""
    return escape(text.replace("\t", "    ").replace("\r\n", "\n"), keep="\n\\")


def clip(text: str, width: int) -> str:
    """At most ``width`` characters of ``text``, the last of them an ellipsis if it is cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def moment(ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    if not 0 <= ms < 253_402_300_800_000:
        return f"{ms} ms"
    whole, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def ago(ms: int, now: int) -> str:
    """How long before ``now`` something was, as in ``3 min ago``."""
    seconds = max(now - ms, 0) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def size(count: float) -> str:
    """A number of bytes as in ``3.2 KiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def plural(count: int, noun: str) -> str:
    """``1 entry``, ``2 entries``, ``1,000 sessions``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def speaker_and_text(value: object) -> tuple[str, str]:
    """Who speaks in an entry, if it looks like a message, and what it says.

    Knows the shapes that chat transcripts have; anything else is its JSON, spoken by nobody.
    """
    entry = _members(value)
    if entry is None:
        return "", dumps(value)
    inner = entry.get("message") or entry.get("data") or entry.get("kwargs")
    message = _members(inner) or entry
    content = message.get("content")
    named = (message.get("role"), entry.get("role"), entry.get("type"), message.get("type"))
    names = [name for name in named if isinstance(name, str) and name != "constructor"]
    speaker = "tool" if _only_results(content) else next(iter(names), "")
    parts = [part for part in (_content(content), _calls(message), _step(entry)) if part]
    return speaker, "\n".join(parts) or dumps(value)


def _members(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _only_results(content: object) -> bool:
    """Whether a message only brings results of tools, in whoever's name it comes."""
    if not isinstance(content, list) or not content:
        return False
    blocks = map(_members, cast("list[object]", content))
    return all(block is not None and block.get("type") == "tool_result" for block in blocks)


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(_block(block) for block in cast("list[object]", content))


def _block(block: object) -> str:
    if isinstance(block, str):
        return block
    members = _members(block)
    if members is None:
        return dumps(block)
    for name in ("text", "thinking"):
        if isinstance(text := members.get(name), str):
            return text
    if members.get("type") == "tool_use":
        return _call(members.get("name"), members.get("input"))
    if members.get("type") == "tool_result":
        return _result(members.get("content"))
    return dumps(block)


def _calls(message: dict[str, object]) -> str:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return ""
    lines: list[str] = []
    for call in cast("list[object]", calls):
        members = _members(call) or {}
        function = _members(members.get("function")) or members
        arguments = function.get("arguments", function.get("args"))
        lines.append(_call(function.get("name"), arguments))
    return "\n".join(lines)


def _step(entry: dict[str, object]) -> str:
    """What an entry tells that is no message: a summary, a call or an output by itself."""
    if summary := _content(entry.get("summary")):
        return summary
    if entry.get("type") == "function_call":
        return _call(entry.get("name"), entry.get("arguments"))
    if entry.get("type") == "function_call_output":
        return _result(entry.get("output"))
    return ""


def _call(name: object, arguments: object) -> str:
    return f"→ {name} {arguments if isinstance(arguments, str) else dumps(arguments)}"


def _result(content: object) -> str:
    return f"← {_content(content) or dumps(content)}"
