"""Session persistence for AI agents. Begin with :class:`Store`."""

from perdure.attachments import Attachment, Attachments
from perdure.backend import Backend, Capabilities, Description
from perdure.cells import Cell, Cells, CellVersion, Versioned
from perdure.derived import Derived, Resumed
from perdure.document import Document
from perdure.encryption import KeyRing
from perdure.errors import (
    AttachmentNotFound,
    BackendNotFound,
    CommitIdReused,
    Conflict,
    Corrupt,
    FormatTooNew,
    InvalidKey,
    InvalidKeys,
    InvalidURL,
    InvalidValue,
    LeaseHeld,
    LeaseLost,
    Outcome,
    OutcomeUnknown,
    PerdureError,
    PluginConflict,
    SessionDeleted,
    StageMissing,
    StoreClosed,
    TooLarge,
    Unavailable,
    Undecryptable,
    Unsupported,
)
from perdure.events import Event
from perdure.fork import Lineage
from perdure.lease import Lease
from perdure.log import Entries, Entry, Log
from perdure.position import START, Position
from perdure.session import Session
from perdure.store import Scope, Store
from perdure.stream import Stream
from perdure.turn import Turn
from perdure.types import Head, HeadEntry, Order, Page, SessionKey

__all__ = [
    "START",
    "Attachment",
    "AttachmentNotFound",
    "Attachments",
    "Backend",
    "BackendNotFound",
    "Capabilities",
    "Cell",
    "CellVersion",
    "Cells",
    "CommitIdReused",
    "Conflict",
    "Corrupt",
    "Derived",
    "Description",
    "Document",
    "Entries",
    "Entry",
    "Event",
    "FormatTooNew",
    "Head",
    "HeadEntry",
    "InvalidKey",
    "InvalidKeys",
    "InvalidURL",
    "InvalidValue",
    "KeyRing",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "Lineage",
    "Log",
    "Order",
    "Outcome",
    "OutcomeUnknown",
    "Page",
    "PerdureError",
    "PluginConflict",
    "Position",
    "Resumed",
    "Scope",
    "Session",
    "SessionDeleted",
    "SessionKey",
    "StageMissing",
    "Store",
    "StoreClosed",
    "Stream",
    "TooLarge",
    "Turn",
    "Unavailable",
    "Undecryptable",
    "Unsupported",
    "Versioned",
]
