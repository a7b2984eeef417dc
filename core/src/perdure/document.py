"""The document: one whole value per session, apart from the log. ``save`` and ``load``.

It is kept in pieces that are replaced together in one commit, so that a torn document cannot
exist, and only those that are new are sent: see :mod:`perdure.manifest`.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar, overload

import msgspec

from perdure.cells import Versioned
from perdure.errors import Conflict, Corrupt, PerdureError, SessionDeleted, Unavailable
from perdure.handle import Handle
from perdure.layout import DOCUMENT, DOCUMENT_STOP
from perdure.manifest import EMPTY, Draft, Known, Manifest, join, open_manifest, slot_key
from perdure.request import Request, Stored, View
from perdure.retry import Deadline
from perdure.schema import T
from perdure.types import (
    At,
    Committed,
    Condition,
    Expect,
    Get,
    Item,
    KeyRange,
    Scan,
)

V = TypeVar("V")

WHOLE_BYTES = 512 * 1024
"""A document up to this size is written whole where its manifest is not known: a second round
trip would cost more than it saves."""

DOCUMENT_ITEMS = Scan(DOCUMENT, DOCUMENT_STOP)


class Document(Request["Versioned[T] | None"], Generic[T]):
    """The session's document with its version; ``None`` if none was saved.

    With a ``type``, it is decoded to that.
    """

    @overload
    def __init__(self: "Document[Any]") -> None: ...
    @overload
    def __init__(self, type: type[T]) -> None: ...
    @overload
    def __init__(self: "Document[Any]", type: Any) -> None: ...
    def __init__(self, type: Any = Any) -> None:
        self._type = type

    def compile(self) -> Scan:
        return DOCUMENT_ITEMS

    def answer(self, items: Sequence[Item], view: View) -> "Versioned[T] | None":
        if not items:
            return None
        body = join(view.codec, view.key, _manifest(items, view), items)
        return Versioned(view.codec.decode(view.key, body, self._type), items[0].version)


def encoded_document(items: Sequence[Item], view: View) -> bytes:
    """The MessagePack of the document that these items hold, all that ``DOCUMENT_ITEMS`` are;
    ``b""`` if there is none. Raises ``Corrupt``."""
    if not items:
        return b""
    return join(view.codec, view.key, _manifest(items, view), items)


def _manifest(items: Sequence[Item], view: View) -> Manifest:
    if items[0].key != DOCUMENT:
        raise Corrupt(f"the document of {view.key} has pieces but no manifest")
    return open_manifest(view.codec, view.key, items[0])


@overload
async def load_document(handle: Handle) -> Any | None: ...
@overload
async def load_document(handle: Handle, type: type[V]) -> V | None: ...
@overload
async def load_document(handle: Handle, type: Any) -> Any | None: ...
async def load_document(handle: Handle, type: Any = Any) -> Any | None:
    """The document, as a ``type`` if given; ``None`` if there is none.

    One round trip. What it has seen makes the next save a small one. Raises ``Corrupt``, and
    ``InvalidValue`` for a document that does not fit the type.
    """
    view, (items,) = await handle.read([Stored(DOCUMENT_ITEMS)])
    if not items:
        return None
    known = Known(items[0].version, EMPTY, view.head, view.epoch)
    try:
        manifest = _manifest(items, view)
        body = join(view.codec, view.key, manifest, items)
    except Corrupt:  # the next save is to write all of it again
        handle.client.manifests.remember(handle.key, known)
        raise
    known = msgspec.structs.replace(known, manifest=manifest)
    handle.client.manifests.remember(handle.key, known)
    return view.codec.decode(view.key, body, type)


async def save_document(handle: Handle, value: Any, expect: int | None = None) -> int:
    """Replace the document and return its version.

    One commit of what is new, if the manifest that is there is known or the document is short
    enough to be written whole; else that is read first. ``expect``: the version that must be
    there, 0 for none. Raises ``InvalidValue``, ``TooLarge``, ``Conflict`` if another version
    than expected is there, and ``Unavailable``.
    """
    client, key = handle.client, handle.key
    draft = Draft(client.codec.encode(key, value, path="data"))
    deadline = Deadline(client.deadline)
    known = client.manifests.recall(key)
    if known is not None and not _usable(known, handle, expect):
        known = None
    if known is None and draft.size > WHOLE_BYTES:
        known = await _look(handle, expect)
    while True:
        try:
            return await _write(handle, draft, known, expect)
        except (Conflict, SessionDeleted) as error:
            # What is known was out of date. What was required by the caller must still hold.
            if known is None or (isinstance(error, SessionDeleted) and handle.incarnation):
                raise
            known = await _look(handle, expect)
            if not await deadline.pause():
                raise Unavailable(
                    "others changed the session each time that the document was to be saved; "
                    "nothing was written: try again"
                ) from error


def _usable(known: Known, handle: Handle, expect: int | None) -> bool:
    """Whether a save may build on what is known."""
    incarnation = known.head.incarnation if known.head else None
    return handle.incarnation in (None, incarnation) and expect in (None, known.version)


async def _look(handle: Handle, expect: int | None) -> Known:
    """What manifest there is now. Raises ``Conflict`` if another version is expected."""
    client, key = handle.client, handle.key
    snapshot = await client.snapshot(key, Get(DOCUMENT))
    item = snapshot.rows[0].items[0] if snapshot.rows[0].items else None
    version = item.version if item else 0
    if expect not in (None, version):
        raise Conflict(
            f"the document is of version {version}, not {expect}",
            head=snapshot.head,
            now=snapshot.now,
            rows=snapshot.rows,
        )
    manifest = EMPTY
    with suppress(Corrupt):  # it is replaced whole
        manifest = open_manifest(client.codec, key, item) if item else EMPTY
    return Known(version, manifest, snapshot.head, snapshot.epoch)


async def _write(handle: Handle, draft: Draft, known: Known | None, expect: int | None) -> int:
    """Commit a document on what is known, which a short one does not depend on."""
    client, key = handle.client, handle.key
    change = draft.change(client.codec, key, known.manifest if known else EMPTY)
    required = expect
    on, at = None, Expect.ANY
    if known is not None and not draft.short:
        required, on = known.version, known.head
        if known.epoch and known.head is not None:
            # A failover may have brought another document into the same version.
            at = At(known.head.version, known.head.tip)
    behind = Scan(slot_key(change.manifest.slots), DOCUMENT_STOP, limit=1)
    result = await handle.commit(
        expect=at,
        conditions=() if required is None else (Condition(DOCUMENT, required),),
        deletes=change.deletes,
        puts=change.puts,
        on=on,
        returning=(behind,),
    )
    _remember(handle, change.manifest, result.version, result)
    # The document is saved. What becomes of pieces that are left over from one that was not
    # known does not matter to it; the next save tries again.
    with suppress(PerdureError):
        rows = result.rows
        if not rows and known is None:
            rows = (await client.snapshot(key, behind)).rows
        if rows and rows[0].items:
            # Only if no one has saved again meanwhile: the pieces would be theirs.
            removed = await handle.commit(
                deletes=(KeyRange(behind.start, DOCUMENT_STOP),),
                conditions=(Condition(DOCUMENT, result.version),),
            )
            _remember(handle, change.manifest, result.version, removed)
    return result.version


def _remember(handle: Handle, manifest: Manifest, version: int, result: Committed) -> None:
    """Keep the manifest that a commit has left."""
    key = handle.key
    head = result.head
    if head is None or head.incarnation != result.incarnation:
        handle.client.manifests.forget(key)
    else:
        known = Known(version, manifest, head, result.epoch)
        handle.client.manifests.remember(key, known)
