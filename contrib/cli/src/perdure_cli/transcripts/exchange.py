"""The format of ``perdure export``: JSON Lines, one session after another, nothing lost.

::

    {"perdure":2,"session":"chat-7","kind":"session","tenant":"default", … head facts …}
    {"document":VALUE}               if there is one (``null`` is a document, too)
    {"cell":"step","value":VALUE}    for each cell, by key; "expires_at" if it expires
    {"entry":VALUE}                  for each entry of the log, oldest first
    {"entry":VALUE,"stream":"sub"}   then for each entry of each other stream, by its name
    {"attachment":"SHA-256","size":9000,"media_type":"image/png","uploaded_at":"…"}
    {"bytes":"BASE64"}               its content, in as many lines as it takes; none if empty
    {"end":"chat-7","entries":12,"cells":1,"attachments":1}

``VALUE`` is as :mod:`perdure_cli.values` describes. Of the head facts an import restores
``labels``, ``meta`` and ``expires_at``; the others (``version``, ``incarnation``,
``created_at``, ``updated_at``, ``lineage``) tell people about the session that was exported,
as an attachment's ``uploaded_at`` does. What is derived from the log is not exported, nor are
leases and idempotency keys. The last line tells a whole export from one that was cut off, and
the name of an attachment its content from another. Unknown members are ignored, unknown lines
are refused. Version 1 had no streams, attachments and ``expires_at`` of cells; it is read too.
"""

import base64
import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import cast

from perdure.attachments import Attachment as Stored
from perdure.exporting import EndRecord
from perdure.types import Head

from perdure_cli.text import moment
from perdure_cli.transcripts.events import (
    Attachment,
    Begin,
    CellValue,
    Document,
    End,
    Entry,
    Event,
    Piece,
)
from perdure_cli.transcripts.shapes import Format
from perdure_cli.transcripts.source import Source
from perdure_cli.values import from_json, to_json

VERSION = 2
"""The version of the format that is written. A reader refuses a higher one."""


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


def entry_line(value: object, stream: str) -> dict[str, object]:
    """The line of an entry."""
    line: dict[str, object] = {"entry": to_json(value)}
    return line | {"stream": stream} if stream else line


def cell_line(key: str, value: object, expires_at: int | None) -> dict[str, object]:
    """The line of a cell."""
    line: dict[str, object] = {"cell": key, "value": to_json(value)}
    return line if expires_at is None else line | {"expires_at": moment(expires_at)}


def attachment_line(attachment: Stored) -> dict[str, object]:
    """The line that begins an attachment."""
    return {
        "attachment": attachment.digest,
        "size": attachment.size,
        "media_type": attachment.media_type,
        "uploaded_at": moment(attachment.uploaded_at),
    }


def piece_line(data: bytes) -> dict[str, object]:
    """A line of an attachment's content."""
    return {"bytes": base64.b64encode(data).decode()}


def end_line(id: str, end: EndRecord) -> dict[str, object]:
    """The line that closes a session."""
    return {
        "end": id,
        "entries": end.entries,
        "cells": end.cells,
        "attachments": end.attachments,
    }


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
        self._entries = self._cells = self._attachments = 0
        self._has_document = False
        self._line = 0
        self._digest: str | None = None
        """The name of the attachment that has begun."""
        self._content = hashlib.sha256()

    def read(self, number: int, line: dict[str, object]) -> Event:
        self._line = number
        if "perdure" in line:
            return self._begin(line)
        if self._id is None:
            raise self._bad("stands outside any session")
        if "bytes" in line:
            return self._piece(line)
        if "attachment" in line:
            return self._attachment(line)
        if "end" in line:
            return self._end(line)
        if self._attachments:
            raise self._bad("stands behind an attachment, where only others and the end may")
        if "entry" in line:
            self._entries += 1
            stream = self._text(line, "stream") if "stream" in line else ""
            return Entry(self._value(line, "entry"), number, stream)
        if "cell" in line:
            self._cells += 1
            if "value" not in line:
                raise self._bad('is a cell without a "value"')
            name, value = self._text(line, "cell"), self._value(line, "value")
            return CellValue(name, value, number, self._expires_at(line))
        if "document" in line:
            if self._has_document:
                raise self._bad("is a second document")
            self._has_document = True
            return Document(self._value(line, "document"), number)
        raise self._bad("is no line of an export: no entry, cell, document, attachment or end")

    def finish(self) -> None:
        if self._id is not None:
            raise self._bad(f"the export of {self._id!r} breaks off after this line")

    def _begin(self, line: dict[str, object]) -> Begin:
        version = line["perdure"]
        if version not in (1, VERSION):
            raise self._bad(
                f"is version {version!r} of the export format; this perdure reads {VERSION}"
            )
        if self._id is not None:
            raise self._bad(f"opens a session, but {self._id!r} has no end line")
        self._id = self._text(line, "session")
        self._entries = self._cells = self._attachments = 0
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

    def _attachment(self, line: dict[str, object]) -> Attachment:
        self._check_content()
        self._attachments += 1
        self._digest = self._text(line, "attachment")
        self._content = hashlib.sha256()
        media_type = line.get("media_type")
        if media_type is not None:
            media_type = self._text(line, "media_type")
        return Attachment(self._digest, media_type, self._line)

    def _piece(self, line: dict[str, object]) -> Piece:
        if self._digest is None:
            raise self._bad("stands outside any attachment")
        try:
            data = base64.b64decode(self._text(line, "bytes"), validate=True)
        except ValueError:
            raise self._bad('"bytes" must be Base64') from None
        self._content.update(data)
        return Piece(data)

    def _check_content(self) -> None:
        """See that the attachment that ends here is what its name says."""
        if self._digest is not None and self._content.hexdigest() != self._digest:
            raise self._bad(
                f"ends the attachment {self._digest}, whose content has another SHA-256: lines "
                "are missing or were changed"
            )
        self._digest = None

    def _end(self, line: dict[str, object]) -> End:
        self._check_content()
        counted = (self._id, self._entries, self._cells, self._attachments)
        told = (line["end"], line.get("entries"), line.get("cells"), line.get("attachments", 0))
        if told != counted:
            raise self._bad(
                f"ends {line['end']!r} with {line.get('entries')!r} entries, "
                f"{line.get('cells')!r} cells and {line.get('attachments', 0)!r} attachments, "
                f"but there were {self._entries}, {self._cells} and {self._attachments} in "
                f"{self._id!r}: lines are missing or were added"
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
        except RecursionError:
            raise self._bad("is nested too deeply") from None

    def _bad(self, reason: str) -> Exception:
        return self._source.malformed(self._line, reason)
