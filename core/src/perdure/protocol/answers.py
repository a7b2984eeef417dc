"""The bodies of answers to requests that were done."""

from typing import Annotated

import msgspec
from msgspec import Meta

from perdure.backend import Capabilities, Description
from perdure.protocol.limits import MAX_CURSOR_BYTES, VERSION
from perdure.protocol.messages import (
    Decoder,
    Id,
    Int,
    Malformed,
    Positive,
    WireHead,
    WireRows,
    encode,
    head_fields,
    head_of,
    rows_fields,
    rows_of,
)
from perdure.types import Committed, Head, HeadEntry, Page, SessionKey, Snapshot

_Epoch = Annotated[bytes, Meta(max_length=256)]
_Name = Annotated[str, Meta(min_length=1, max_length=512)]
_Cursor = Annotated[str, Meta(max_length=MAX_CURSOR_BYTES)]

_Snapshot = tuple[WireHead | None, Int, list[WireRows], _Epoch]
_decode_snapshot: Decoder[_Snapshot] = Decoder(_Snapshot)
_Committed = tuple[Positive, Id, WireHead | None, Int, bool, list[WireRows], _Epoch]
_decode_committed: Decoder[_Committed] = Decoder(_Committed)
_decode_staged: Decoder[None] = Decoder(None)
_decode_deleted: Decoder[bool] = Decoder(bool)
_Page = tuple[list[tuple[_Name, WireHead]], _Cursor | None]
_decode_page: Decoder[_Page] = Decoder(_Page)
_Names = tuple[list[_Name], _Cursor | None]
_decode_names: Decoder[_Names] = Decoder(_Names)
_decode_count: Decoder[int] = Decoder(Int)
_decode_head: Decoder[WireHead | None] = Decoder(WireHead | None)


class Hello(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    protocol: int
    software: str
    """Name and version, for people."""
    now: int
    """The server's clock."""
    capabilities: Capabilities
    """Whether it is bound to an event loop (``loop_bound``) does not travel."""
    description: Description


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The answer to ``read``."""
    rows = rows_fields(snapshot.rows)
    return encode((head_fields(snapshot.head), snapshot.now, rows, snapshot.epoch))


def decode_snapshot(body: bytes) -> Snapshot:
    """Raises ``Malformed``, as all functions here that decode."""
    head, now, rows, epoch = _decode_snapshot(body)
    return Snapshot(head_of(head), now, rows_of(rows), epoch)


def encode_committed(committed: Committed) -> bytes:
    """The answer to ``commit``."""
    return encode(
        (
            committed.version,
            committed.incarnation,
            head_fields(committed.head),
            committed.now,
            committed.replayed,
            rows_fields(committed.rows),
            committed.epoch,
        )
    )


def decode_committed(body: bytes) -> Committed:
    """The inverse of :func:`encode_committed`."""
    version, incarnation, head, now, replayed, rows, epoch = _decode_committed(body)
    return Committed(
        version=version,
        incarnation=incarnation,
        head=head_of(head),
        now=now,
        replayed=replayed,
        rows=rows_of(rows),
        epoch=epoch,
    )


def encode_staged() -> bytes:
    """The answer to ``stage``."""
    return encode(None)


def decode_staged(body: bytes) -> None:
    """The inverse of :func:`encode_staged`."""
    _decode_staged(body)


def encode_deleted(deleted: bool) -> bytes:
    """The answer to ``delete``."""
    return encode(deleted)


def decode_deleted(body: bytes) -> bool:
    """The inverse of :func:`encode_deleted`."""
    return _decode_deleted(body)


def encode_page(page: Page[HeadEntry]) -> bytes:
    """The answer to ``list``."""
    entries = [(entry.key.id, head_fields(entry.head)) for entry in page.items]
    return encode((entries, page.cursor))


def decode_page(body: bytes, tenant: str, kind: str) -> Page[HeadEntry]:
    """The inverse of :func:`encode_page`; tenant and kind are those that were asked for."""
    entries, cursor = _decode_page(body)
    items: list[HeadEntry] = []
    for id, fields in entries:
        head = head_of(fields)
        assert head is not None
        items.append(HeadEntry(SessionKey(tenant, kind, id), head))
    return Page(tuple(items), cursor)


def encode_names(page: Page[str]) -> bytes:
    """The answer to ``tenants`` and to ``kinds``."""
    return encode((page.items, page.cursor))


def decode_names(body: bytes) -> Page[str]:
    """The inverse of :func:`encode_names`."""
    names, cursor = _decode_names(body)
    return Page(tuple(names), cursor)


def encode_count(count: int) -> bytes:
    """The answer to ``sweep``."""
    return encode(count)


def decode_count(body: bytes) -> int:
    """The inverse of :func:`encode_count`."""
    return _decode_count(body)


def encode_head(head: Head | None) -> bytes:
    """The message that ends a wait."""
    return encode(head_fields(head))


def decode_head(body: bytes) -> Head | None:
    """The inverse of :func:`encode_head`."""
    return head_of(_decode_head(body))


def encode_hello(
    *, software: str, now: int, capabilities: Capabilities, description: Description
) -> bytes:
    """The answer to ``GET /v1``: a map, which later versions of a server may add to."""
    facts = msgspec.to_builtins(capabilities)
    assert isinstance(facts, dict)
    del facts["loop_bound"]
    return encode(
        {
            "protocol": VERSION,
            "software": software,
            "now": now,
            "capabilities": facts,
            "description": description,
        }
    )


_decode_hello: Decoder[Hello] = Decoder(Hello)


def decode_hello(body: bytes) -> Hello:
    """The inverse of :func:`encode_hello`. Members that are not known are left out."""
    hello = _decode_hello(body)
    facts = hello.capabilities
    if min(facts.max_item_bytes, facts.max_commit_bytes, facts.max_commit_items) < 1:
        raise Malformed("the limits that the server states are not above 0")
    return hello
