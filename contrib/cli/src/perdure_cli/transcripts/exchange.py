"""The format of ``perdure export``: JSON Lines, one session after another, nothing lost.

::

    {"perdure":1,"session":"chat-7","kind":"session","tenant":"default", … head facts …}
    {"document":VALUE}               if there is one (``null`` is a document, too)
    {"entry":VALUE}                  for each entry of the log, oldest first
    {"cell":"step","value":VALUE}    for each cell, by key
    {"end":"chat-7","entries":12,"cells":1}

``VALUE`` is as :mod:`perdure_cli.values` describes. Of the head facts an import restores
``labels``, ``meta`` and ``expires_at``; the others (``version``, ``incarnation``,
``created_at``, ``updated_at``, ``lineage``) tell people about the session that was exported.
When a single cell expires is not exported: a store does not tell. The last line tells a whole
export from one that was cut off. Unknown members are ignored, unknown lines are refused.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import cast

from perdure.types import Head

from perdure_cli.text import moment
from perdure_cli.transcripts.events import Begin, CellValue, Document, End, Entry, Event
from perdure_cli.transcripts.shapes import Format
from perdure_cli.transcripts.source import Source
from perdure_cli.values import from_json, to_json

VERSION = 1
"""The version of the format. A reader refuses a higher one."""


def head_facts(head: Head) -> dict[str, object]:
    """A head for people and scripts: times in ISO 8601, ids in hexadecimal."""
    facts: dict[str, object] = {
        "version": head.version,
        "incarnation": head.incarnation.hex(),
        "created_at": moment(head.created_at),
        "updated_at": moment(head.updated_at),
        "expires_at": None if head.expires_at is None else moment(head.expires_at),
        "labels": list(head.labels),
    }
    if head.meta:
        facts["meta"] = to_json(head.meta)
    return facts


def begin_line(
    tenant: str, kind: str, id: str, head: Head, lineage: dict[str, object] | None
) -> dict[str, object]:
    """The line that opens a session."""
    line: dict[str, object] = {
        "perdure": VERSION,
        "session": id,
        "kind": kind,
        "tenant": tenant,
    }
    line.update(head_facts(head))
    if lineage is not None:
        line["lineage"] = lineage
    return line


def document_line(value: object) -> dict[str, object]:
    """The line of a document."""
    return {"document": to_json(value)}


def entry_line(value: object) -> dict[str, object]:
    """The line of an entry."""
    return {"entry": to_json(value)}


def cell_line(key: str, value: object) -> dict[str, object]:
    """The line of a cell."""
    return {"cell": key, "value": to_json(value)}


def end_line(id: str, entries: int, cells: int) -> dict[str, object]:
    """The line that closes a session."""
    return {"end": id, "entries": entries, "cells": cells}


def is_export(value: object) -> bool:
    """Whether a file's first line opens an export."""
    return isinstance(value, dict) and isinstance(
        cast("dict[str, object]", value).get("perdure"), int
    )


def read_export(source: Source) -> Iterator[Event]:
    """An export's events. Raises ``Malformed`` where it is not one, or is not whole."""
    reader = _Reader(source)
    for number, text in source.lines():
        line = source.parse(text, number)
        if not isinstance(line, dict):
            raise source.malformed(number, "is not an object")
        yield reader.read(number, cast("dict[str, object]", line))
    reader.finish()


class _Reader:
    """What has been read of the session that is open."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._id: str | None = None
        self._entries = self._cells = 0
        self._has_document = False
        self._line = 0

    def read(self, number: int, line: dict[str, object]) -> Event:
        self._line = number
        if "perdure" in line:
            return self._begin(line)
        if self._id is None:
            raise self._bad("stands outside any session")
        if "entry" in line:
            self._entries += 1
            return Entry(self._value(line, "entry"), number)
        if "cell" in line:
            self._cells += 1
            if "value" not in line:
                raise self._bad('is a cell without a "value"')
            return CellValue(self._text(line, "cell"), self._value(line, "value"), number)
        if "document" in line:
            if self._has_document:
                raise self._bad("is a second document")
            self._has_document = True
            return Document(self._value(line, "document"), number)
        if "end" in line:
            return self._end(line)
        raise self._bad("is no line of an export: no entry, cell, document or end")

    def finish(self) -> None:
        if self._id is not None:
            raise self._bad(f"the export of {self._id!r} breaks off after this line")

    def _begin(self, line: dict[str, object]) -> Begin:
        version = line["perdure"]
        if version != VERSION:
            raise self._bad(
                f"is version {version!r} of the export format; this perdure reads {VERSION}"
            )
        if self._id is not None:
            raise self._bad(f"opens a session, but {self._id!r} has no end line")
        self._id = self._text(line, "session")
        self._entries = self._cells = 0
        self._has_document = False
        return Begin(
            id=self._id,
            format=Format.PERDURE,
            line=self._line,
            tenant=self._text(line, "tenant"),
            kind=self._text(line, "kind"),
            labels=self._labels(line),
            meta=self._meta(line),
            expires_at=self._expires_at(line),
        )

    def _end(self, line: dict[str, object]) -> End:
        counted = (self._id, self._entries, self._cells)
        if (line["end"], line.get("entries"), line.get("cells")) != counted:
            raise self._bad(
                f"ends {line['end']!r} with {line.get('entries')!r} entries and "
                f"{line.get('cells')!r} cells, but there were {self._entries} and "
                f"{self._cells} in {self._id!r}: lines are missing or were added"
            )
        self._id = None
        return End()

    def _text(self, line: dict[str, object], name: str) -> str:
        found = line.get(name)
        if not isinstance(found, str):
            raise self._bad(f'"{name}" must be text')
        return found

    def _labels(self, line: dict[str, object]) -> tuple[str, ...]:
        labels = line.get("labels", [])
        if isinstance(labels, list):
            found = tuple(x for x in cast("list[object]", labels) if isinstance(x, str))
            if len(found) == len(cast("list[object]", labels)):
                return found
        raise self._bad('"labels" must be a list of texts')

    def _meta(self, line: dict[str, object]) -> bytes:
        meta = self._value(line, "meta") if "meta" in line else b""
        if not isinstance(meta, bytes):
            raise self._bad('"meta" must be {"$bytes":…}')
        return meta

    def _expires_at(self, line: dict[str, object]) -> datetime | None:
        if line.get("expires_at") is None:
            return None
        try:
            moment = datetime.fromisoformat(self._text(line, "expires_at"))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise self._bad('"expires_at" must be a time as in 2026-11-22T15:31:00Z')
        return moment

    def _value(self, line: dict[str, object], name: str) -> object:
        try:
            return from_json(line[name])
        except ValueError as error:
            raise self._bad(str(error)) from None

    def _bad(self, reason: str) -> Exception:
        return self._source.malformed(self._line, reason)
