"""What a file to import holds, as a stream: ``Begin``, a session's contents, ``End``; again."""

from datetime import datetime

import msgspec

from perdure_cli.transcripts.shapes import Format


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """A session starts here."""

    id: str | None
    """``None`` where neither the data nor a file name gives one."""
    format: Format
    line: int
    tenant: str | None = None
    kind: str | None = None
    labels: tuple[str, ...] = ()
    meta: bytes = b""
    expires_at: datetime | None = None


class Document(msgspec.Struct, frozen=True):
    """The session's document."""

    value: object
    line: int


class Entry(msgspec.Struct, frozen=True):
    """The next entry of its log, or of another stream."""

    value: object
    line: int
    stream: str = ""


class CellValue(msgspec.Struct, frozen=True):
    """One of its cells."""

    key: str
    value: object
    line: int
    expires_at: datetime | None = None


class Attachment(msgspec.Struct, frozen=True):
    """One of its attachments begins; nothing but attachments come behind it."""

    digest: str
    media_type: str | None
    line: int


class Piece(msgspec.Struct, frozen=True):
    """The next bytes of the attachment."""

    data: bytes


class End(msgspec.Struct, frozen=True):
    """The session is complete."""


Event = Begin | Document | Entry | CellValue | Attachment | Piece | End
