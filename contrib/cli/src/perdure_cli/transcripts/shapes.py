"""Telling the formats of chat transcripts apart, by what the data looks like.

Sources of the shapes:

* Claude Code: ``~/.claude/projects/*/<session>.jsonl`` as its 1.x and 2.x releases write it
  (not documented by its makers); also ``claude --output-format stream-json``.
* OpenAI: the API reference's chat completion messages, the fine-tuning guide's JSON Lines, and
  the items of the Responses API.
* LangChain: ``langchain_core.messages.messages_to_dict`` and ``langchain_core.load.dumpd``.
"""

from enum import Enum
from typing import cast

import msgspec


class Format(Enum):
    """A format that can be imported. The value is its name for people."""

    PERDURE = "perdure export"
    CLAUDE_CODE = "Claude Code session"
    OPENAI_CHAT = "OpenAI chat messages"
    OPENAI_RESPONSES = "OpenAI Responses items"
    LANGCHAIN = "LangChain messages"
    LINES = "JSON Lines"


class Conversation(msgspec.Struct, frozen=True):
    """A whole conversation that was one JSON value."""

    format: Format
    entries: list[object]
    rest: dict[str, object] = {}
    """What stood beside the messages, by name: tools, model, metadata."""


_CLAUDE_MARKS = frozenset(
    {"sessionId", "session_id", "parentUuid", "leafUuid", "isSidechain", "isSnapshotUpdate"}
)

_RESPONSES_TYPES = frozenset(
    {
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "computer_call",
        "computer_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "file_search_call",
        "function_call",
        "function_call_output",
        "image_generation_call",
        "item_reference",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "message",
        "reasoning",
        "shell_call",
        "shell_call_output",
        "web_search_call",
    }
)


def entry_format(value: object) -> Format | None:
    """The format of which ``value`` can be one entry, or ``None``."""
    if not isinstance(value, dict):
        return None
    entry = cast("dict[str, object]", value)
    if _is_langchain(entry):
        return Format.LANGCHAIN
    kind = entry.get("type")
    if isinstance(kind, str) and not _CLAUDE_MARKS.isdisjoint(entry):
        return Format.CLAUDE_CODE
    if isinstance(kind, str) and kind in _RESPONSES_TYPES:
        return Format.OPENAI_RESPONSES
    if isinstance(entry.get("role"), str):
        return Format.OPENAI_CHAT
    return None


def fits(value: object, format: Format) -> bool:
    """Whether ``value`` can be one entry of a conversation known to be of ``format``.

    Laxer than :func:`entry_format`: formats grow new kinds of entries.
    """
    if format is Format.LINES:
        return True
    if not isinstance(value, dict):
        return False
    entry = cast("dict[str, object]", value)
    if format is Format.LANGCHAIN:
        return _is_langchain(entry)
    if format is Format.OPENAI_CHAT:
        return isinstance(entry.get("role"), str)
    if format is Format.OPENAI_RESPONSES:
        return isinstance(entry.get("type"), str) or isinstance(entry.get("role"), str)
    return isinstance(entry.get("type"), str)


def _is_langchain(entry: dict[str, object]) -> bool:
    if "lc" in entry:
        return entry.get("type") == "constructor" and isinstance(entry.get("kwargs"), dict)
    data = entry.get("data")
    return (
        isinstance(entry.get("type"), str)
        and isinstance(data, dict)
        and not entry.keys() - {"type", "data"}
        and "content" in data
    )


def conversation(value: object) -> Conversation | None:
    """The conversation that ``value`` is as a whole, or ``None``.

    A list of entries, an object with ``messages``, a response object with ``output`` (its
    ``input`` items, where they are kept, come first), or a LangChain prompt value.
    """
    if isinstance(value, list):
        entries = cast("list[object]", value)
        found = _common_format(entries)
        return Conversation(found, entries) if found else None
    if not isinstance(value, dict):
        return None
    members = cast("dict[str, object]", value)
    if isinstance(members.get("messages"), list):
        return _inside(members, ("messages",))
    if isinstance(members.get("output"), list):
        names = ("input", "output") if isinstance(members.get("input"), list) else ("output",)
        return _inside(members, names)
    kwargs = members.get("kwargs")
    if "lc" in members and isinstance(kwargs, dict) and "messages" in kwargs:
        return _inside(cast("dict[str, object]", kwargs), ("messages",))
    return None


def _inside(members: dict[str, object], names: tuple[str, ...]) -> Conversation | None:
    entries = [item for name in names for item in cast("list[object]", members[name])]
    found = _common_format(entries)
    if found is None:
        return None
    rest = {name: item for name, item in members.items() if name not in names}
    return Conversation(found, entries, rest)


def _common_format(entries: list[object]) -> Format | None:
    """Of a list, what its entries are. A user's turn looks alike in both of OpenAI's."""
    found = [entry_format(entry) for entry in entries]
    if Format.OPENAI_RESPONSES in found and found[0] is Format.OPENAI_CHAT:
        return Format.OPENAI_RESPONSES
    return found[0] if found else None


def claude_session_id(entry: dict[str, object]) -> str | None:
    """The session that a line of Claude Code's belongs to.

    A sub-agent's transcript names its parent's session and adds its own id.
    """
    session = entry.get("sessionId", entry.get("session_id"))
    if not isinstance(session, str) or not session:
        return None
    agent = entry.get("agentId")
    if entry.get("isSidechain") is True and isinstance(agent, str) and agent:
        return f"{session}/agent-{agent}"
    return session
