"""The document: one whole value per session, apart from the log. ``save`` and ``load``.

Kept in parts of bounded size that are replaced together in one commit, so that a torn
document cannot exist. The first part is the manifest: it says how many follow.
"""

from collections.abc import Sequence
from typing import Any

from perdure.cells import Versioned
from perdure.codec import Codec
from perdure.errors import Corrupt
from perdure.layout import DOCUMENT, DOCUMENT_PART, DOCUMENT_STOP, WHOLE_DOCUMENT
from perdure.request import Request, View
from perdure.types import Item, KeyRange, Read, Scan, SessionKey

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
        count, size = codec.open(view.key, manifest)
        body = b"".join(codec.open_bytes(view.key, part) for part in parts)
        if len(parts) != count or len(body) != size:
            raise Corrupt(f"the document of {view.key} is not whole")
        return Versioned(codec.decode(view.key, body), manifest.version)


def encode_document(
    codec: Codec, key: SessionKey, value: Any
) -> tuple[tuple[bytes | KeyRange, ...], tuple[tuple[bytes, bytes], ...]]:
    """(deletes, puts) that replace a document whole. Raises ``InvalidValue``, ``TooLarge``."""
    body = codec.encode(key, value, path="data")
    parts = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]
    puts = [(DOCUMENT, codec.seal(key, (len(parts), len(body))))]
    puts += [
        (DOCUMENT_PART + number.to_bytes(4, "big"), codec.seal_bytes(key, part))
        for number, part in enumerate(parts)
    ]
    return (WHOLE_DOCUMENT,), tuple(puts)
