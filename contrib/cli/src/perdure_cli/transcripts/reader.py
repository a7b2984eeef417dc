"""A file to import as a stream of events, whatever its format.

JSON Lines are read one line at a time; a JSON document (a list, an object) as a whole.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import cast

from perdure_cli.errors import CommandError
from perdure_cli.transcripts.events import Begin, CellValue, End, Entry, Event
from perdure_cli.transcripts.exchange import is_export, read_export
from perdure_cli.transcripts.shapes import (
    Conversation,
    Format,
    claude_session_id,
    conversation,
    entry_format,
    fits,
)
from perdure_cli.transcripts.source import Malformed, Source

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_LOOK_AHEAD_LINES = 200
"""So far a Claude Code file is searched for its session id: it starts with lines without."""


def read_events(source: Source, *, as_lines: bool = False) -> Iterator[Event]:
    """What ``source`` holds. ``as_lines``: do not guess, every line of JSON is an entry.

    Raises ``Malformed`` with the place, or ``CommandError`` if no format fits.
    """
    if as_lines:
        yield from _one_session(source, Format.LINES, source.stem)
        return
    number, first = next(source.lines())
    try:
        value = source.parse(first, number)
    except Malformed as error:
        yield from _document(source, unless=error)
        return
    found = entry_format(value)
    if is_export(value):
        yield from read_export(source)
    elif _is_single(source) and conversation(value) is not None:
        yield from _document(source)
    elif conversation(value) is not None:
        yield from _conversation_per_line(source)
    elif found is Format.CLAUDE_CODE:
        yield from _one_session(source, found, _claude_id(source))
    elif found is not None:
        yield from _one_session(source, _lines_format(source, found), source.stem)
    elif _starts_like_claude(source):
        yield from _one_session(source, Format.CLAUDE_CODE, _claude_id(source))
    else:
        raise _unknown(source, value)


def _unknown(source: Source, value: object) -> CommandError:
    if value in ([], {}, {"messages": []}):
        return CommandError(f"{source.name} holds no messages")
    return CommandError(
        f"{source.name} is JSON, but none that perdure knows: a perdure export, a Claude Code "
        "session, OpenAI chat messages or Responses items, or LangChain messages (--lines "
        "takes any JSON Lines as they are, every line an entry)"
    )


def _misfit(source: Source, line: int, what: str, format: Format) -> Malformed:
    return source.malformed(line, f"{what} is not in the file's format, {format.value}")


def _is_single(source: Source) -> bool:
    return len(list(islice(source.lines(), 2))) == 1


def _document(source: Source, unless: Malformed | None = None) -> Iterator[Event]:
    """The file as one JSON document; ``unless`` is what its first line was found to be."""
    lines = source.lines()
    if unless is not None and not next(lines)[1].lstrip().startswith((b"[", b"{")):
        raise unless
    try:
        value = source.parse(source.whole(), 1)
    except Malformed:
        # Of JSON Lines with a bad first line, that line is to be named.
        if unless is not None and any(_is_json(source, *line) for line in islice(lines, 1)):
            raise unless from None
        raise
    found = conversation(value)
    if found is None and (format := entry_format(value)) is not None:
        found = Conversation(format, [value])
    if found is None:
        raise _unknown(source, value)
    yield from _conversation(source, found, source.stem, 1)


def _is_json(source: Source, number: int, line: bytes) -> bool:
    try:
        return isinstance(source.parse(line, number), dict)
    except Malformed:
        return False


def _conversation_per_line(source: Source) -> Iterator[Event]:
    """JSON Lines of whole conversations, as for fine-tuning: a session each."""
    for number, line in source.lines():
        found = conversation(source.parse(line, number))
        if found is None:
            raise source.malformed(number, "is not a conversation, but the first line is one")
        id = f"{source.stem}-{number}" if source.stem else None
        yield from _conversation(source, found, id, number)


def _conversation(
    source: Source, found: Conversation, id: str | None, line: int
) -> Iterator[Event]:
    yield Begin(id=id, format=found.format, line=line)
    for ordinal, entry in enumerate(found.entries, 1):
        if not fits(entry, found.format):
            raise _misfit(source, line, f"item {ordinal}", found.format)
        yield Entry(entry, line)
    for name, value in found.rest.items():
        yield CellValue(name, value, line)
    yield End()


def _one_session(source: Source, format: Format, id: str | None) -> Iterator[Event]:
    """JSON Lines of one session, an entry a line."""
    yield Begin(id=id, format=format, line=1)
    for number, line in source.lines():
        entry = source.parse(line, number)
        if not fits(entry, format):
            raise _misfit(source, number, "this line", format)
        yield Entry(entry, number)
    yield End()


def _objects(source: Source) -> Iterator[dict[str, object]]:
    """The first lines that are objects, for a look ahead."""
    for number, line in islice(source.lines(), _LOOK_AHEAD_LINES):
        value = source.parse(line, number)
        if isinstance(value, dict):
            yield cast("dict[str, object]", value)


def _starts_like_claude(source: Source) -> bool:
    """Some of its first lines (a summary, a file snapshot) name no session."""
    return any(entry_format(entry) is Format.CLAUDE_CODE for entry in _objects(source))


def _lines_format(source: Source, found: Format) -> Format:
    if found is Format.OPENAI_CHAT and any(
        entry_format(entry) is Format.OPENAI_RESPONSES for entry in _objects(source)
    ):
        return Format.OPENAI_RESPONSES
    return found


def _claude_id(source: Source) -> str | None:
    """The id of a Claude Code session: its file's name, which is the session's UUID.

    Lines may carry another: a resumed session starts with a copy of the one it resumes. Files
    of another name (a sub-agent's, a renamed one) go by the first line that names a session.
    """
    if source.stem is not None and _UUID.fullmatch(source.stem):
        return source.stem
    ids = (claude_session_id(entry) for entry in _objects(source))
    return next((id for id in ids if id is not None), source.stem)
