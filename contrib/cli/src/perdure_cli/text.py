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
    if not isinstance(value, dict):
        return "", dumps(value)
    whole: object = cast("object", value)
    entry = cast("dict[object, object]", value)
    inner = entry.get("message") or entry.get("data") or entry.get("kwargs")
    message = cast("dict[object, object]", inner) if isinstance(inner, dict) else entry
    speaker = next(
        (
            found
            for found in (message.get("role"), entry.get("role"), entry.get("type"))
            if isinstance(found, str) and found != "constructor"
        ),
        "",
    )
    parts = [part for part in (_content(message.get("content")), _calls(message)) if part]
    return speaker, "\n".join(parts) or dumps(whole)


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(_block(block) for block in cast("list[object]", content))


def _block(block: object) -> str:
    if isinstance(block, str):
        return block
    if not isinstance(block, dict):
        return dumps(block)
    members = cast("dict[object, object]", block)
    for name in ("text", "thinking"):
        if isinstance(text := members.get(name), str):
            return text
    if members.get("type") == "tool_use":
        return f"→ {members.get('name')} {dumps(members.get('input'))}"
    if members.get("type") == "tool_result":
        return f"← {_content(members.get('content')) or dumps(members.get('content'))}"
    return dumps(cast("object", block))


def _calls(message: dict[object, object]) -> str:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return ""
    lines: list[str] = []
    for call in cast("list[object]", calls):
        members = cast("dict[object, object]", call) if isinstance(call, dict) else {}
        inner = members.get("function")
        function = cast("dict[object, object]", inner) if isinstance(inner, dict) else members
        arguments = function.get("arguments", function.get("args"))
        shown = arguments if isinstance(arguments, str) else dumps(arguments)
        lines.append(f"→ {function.get('name')} {shown}")
    return "\n".join(lines)
