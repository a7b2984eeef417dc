"""The document: one whole value per session, apart from the log. ``save`` and ``load``.

Kept in parts of bounded size that are replaced together in one commit, so that a torn
document cannot exist. The first item is the manifest: it says how many parts there are. Parts
beyond it are left over from a longer document and mean nothing.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from perdure.cells import Versioned
from perdure.codec import Codec
from perdure.errors import Corrupt, PerdureError
from perdure.handle import Handle
from perdure.layout import DOCUMENT, DOCUMENT_PART, DOCUMENT_STOP
from perdure.request import Request, View
from perdure.types import Condition, Item, KeyRange, Read, Scan, SessionKey

PART_BYTES = 256 * 1024
"""No part is longer: below every backend's limit for one item."""


class Document(Request["Versioned[Any] | None"]):
    """The session's document with its version; ``None`` if none was saved."""

    def compile(self) -> Read:
        return Scan(DOCUMENT, DOCUMENT_STOP)

    def answer(self, items: Sequence[Item], view: View) -> "Versioned[Any] | None":
        if not items:
            return None
        manifest, *parts = items
        if manifest.key != DOCUMENT:
            raise Corrupt(f"the document of {view.key} has parts but no manifest")
        codec = view.codec
        count, size = codec.open(view.key, manifest, type=tuple[int, int])
        body = b"".join(codec.open_bytes(view.key, part) for part in parts[:count])
        if len(parts) < count or len(body) != size:
            raise Corrupt(f"the document of {view.key} is not whole")
        return Versioned(codec.decode(view.key, body), manifest.version)


def encode_document(codec: Codec, key: SessionKey, value: Any) -> list[tuple[bytes, bytes]]:
    """The items that hold a document, manifest first. Raises ``InvalidValue``, ``TooLarge``."""
    body = codec.encode(key, value, path="data")
    parts = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]
    return [
        (DOCUMENT, codec.seal(key, (len(parts), len(body)))),
        *((part_key(number), codec.seal_bytes(key, part)) for number, part in enumerate(parts)),
    ]


def part_key(number: int) -> bytes:
    """The item key of a part."""
    return DOCUMENT_PART + number.to_bytes(4, "big")


async def save_document(handle: Handle, value: Any, expect: int | None) -> int:
    """Replace the document and return its version.

    One commit, without deletions, so that nobody's cache of the log is disturbed by it. The
    same round trip tells whether parts of a longer document are left over, where the backend
    can; removing those is a second one, which the new document does not depend on.
    """
    puts = encode_document(handle.client.codec, handle.key, value)
    rest = part_key(len(puts) - 1)
    behind = Scan(rest, DOCUMENT_STOP, limit=1)
    result = await handle.commit(
        puts=tuple(puts),
        conditions=() if expect is None else (Condition(DOCUMENT, expect),),
        returning=(behind,),
    )
    # What becomes of the rest does not matter to the document, which is saved; the next save
    # tries again.
    with suppress(PerdureError):
        rows = result.rows or (await handle.client.snapshot(handle.key, behind)).rows
        if rows[0].items:
            # Only if no one has saved again meanwhile: the parts would be theirs.
            await handle.commit(
                deletes=(KeyRange(rest, DOCUMENT_STOP),),
                conditions=(Condition(DOCUMENT, result.version),),
            )
    return result.version
