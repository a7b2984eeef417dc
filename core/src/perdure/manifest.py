"""The manifest of a document: of which pieces it consists, and what is in which slot.

``docs/format.md`` has its bytes. A document is runs: literal bytes, then pieces. A piece is an
item of its own, in a numbered slot, and known by its digest; so a document that differs little
from the one before is written by its manifest and the pieces that are new.
"""

import struct
import threading
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import count

import msgspec

from perdure.codec import MAX_VALUE_BYTES, Codec
from perdure.codec.pieces import cut
from perdure.errors import Corrupt
from perdure.layout import DOCUMENT, DOCUMENT_PART
from perdure.types import Head, Item, KeyRange, SessionKey

INLINE_BYTES = 32 * 1024
"""A document up to this size is one literal: its manifest holds all of it."""

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""Above what the longest document needs."""

REMEMBERED_BYTES = 4 * 1024 * 1024
"""What a client keeps of the manifests that it has seen last: about 200 of 10 MB documents."""

OVERHEAD_BYTES = 600
"""What keeping a manifest takes beside its table, as measured."""

LAST_SLOT = 2**32 - 1

MOST_GAPS = 16
"""Most ranges of slots that one commit deletes."""

FREE_SLOTS = 64
"""As many unused slots as used ones, and these, are kept for pieces to come."""

_DIGEST_BYTES = 16
_ENTRY = struct.Struct(">16sHI")
"""A piece: its digest, its length, its slot."""


class Manifest(msgspec.Struct, frozen=True, gc=False):
    """Of which pieces a document consists."""

    runs: tuple[tuple[bytes, int], ...] = ()
    """(literal, number of pieces that follow it)."""
    slots: int = 0
    """No piece is in a slot from this one on, also none left over from an earlier document."""
    table: bytes = b""
    """An entry for each piece, in order."""

    def pieces(self) -> Iterator[tuple[bytes, int, int]]:
        """(digest, length, slot) of each piece, in order."""
        return _ENTRY.iter_unpack(self.table)

    def seal(self, codec: Codec, key: SessionKey) -> bytes:
        """The row that holds it."""
        body = _encode((self.runs, self.slots, self.table))
        return codec.seal_bytes(key, _digest(body) + body)


EMPTY = Manifest()
"""Where nothing is known of what the slots hold."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[tuple[tuple[bytes, int], ...], int, bytes]).decode


def _digest(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


def slot_key(slot: int) -> bytes:
    """The item key of a slot."""
    return DOCUMENT_PART + slot.to_bytes(4, "big")


def open_manifest(codec: Codec, key: SessionKey, item: Item) -> Manifest:
    """The manifest in a row. Raises ``Corrupt`` and whatever reading rows does."""
    row = codec.open_bytes(key, item, limit=MAX_MANIFEST_BYTES)
    body = row[_DIGEST_BYTES:]
    if row[:_DIGEST_BYTES] != _digest(body):
        raise Corrupt(f"the manifest of the document of {key} is not what was written")
    try:
        manifest = Manifest(*_decode(body))
        pieces = list(manifest.pieces())
    except (msgspec.DecodeError, struct.error) as error:
        raise Corrupt(f"the manifest of the document of {key} is malformed") from error
    size = sum(length for _, length, _ in pieces)
    size += sum(len(literal) for literal, _ in manifest.runs)
    numbers = [number for _, number in manifest.runs]
    last = max((slot for _, _, slot in pieces), default=-1)
    if (
        size > MAX_VALUE_BYTES
        or not last < manifest.slots <= LAST_SLOT
        or sum(numbers) != len(pieces)
        or min(numbers, default=0) < 0
    ):
        raise Corrupt(f"the manifest of the document of {key} makes no sense")
    return manifest


def join(codec: Codec, key: SessionKey, manifest: Manifest, items: Sequence[Item]) -> bytes:
    """The encoded document, from ``items`` that hold its pieces. Raises ``Corrupt`` if one is
    missing or is not the one that the manifest speaks of."""
    found = {item.key: item for item in items}
    opened: dict[tuple[bytes, int, int], bytes] = {}
    for piece in set(manifest.pieces()):
        digest, length, slot = piece
        item = found.get(slot_key(slot))
        if item is None:
            raise Corrupt(f"piece {slot} of the document of {key} is missing")
        data = codec.open_bytes(key, item, limit=length)
        if len(data) != length or _digest(data) != digest:
            raise Corrupt(f"piece {slot} of the document of {key} is not what was written")
        opened[piece] = data
    pieces = manifest.pieces()
    parts: list[bytes] = []
    for literal, number in manifest.runs:
        parts.append(literal)
        parts += [opened[next(pieces)] for _ in range(number)]
    return b"".join(parts)


class Change(msgspec.Struct, frozen=True):
    """What brings one document in the place of another."""

    manifest: Manifest
    puts: tuple[tuple[bytes, bytes], ...]
    deletes: tuple[KeyRange, ...]


class Draft:
    """An encoded document that is to be saved, cut."""

    def __init__(self, body: bytes) -> None:
        self.size = len(body)
        self.short = len(body) <= INLINE_BYTES
        """Whether its manifest holds all of it."""
        self._runs: tuple[tuple[bytes, int], ...] = ((body, 0),)
        self._pieces: list[tuple[bytes, memoryview]] = []
        if not self.short:
            runs = cut(body)
            self._runs = tuple((run.literal, len(run.pieces)) for run in runs)
            self._pieces = [(_digest(piece), piece) for run in runs for piece in run.pieces]

    def change(self, codec: Codec, key: SessionKey, old: Manifest) -> Change:
        """How to write it where the slots hold what ``old`` says, at least.

        Pieces that are there already stay where they are, the others go into slots that are
        free; what nobody needs any more is overwritten with nothing. Only a document much
        shorter than before has slots deleted, as that makes caches of the log be read again.
        """
        held = {digest: slot for digest, _, slot in old.pieces()}
        kept = {digest: held[digest] for digest, _ in self._pieces if digest in held}
        taken = set(kept.values())
        free = (slot for slot in count() if slot not in taken)
        places = dict(kept)
        puts: list[tuple[bytes, bytes]] = []
        for digest, piece in self._pieces:
            if digest not in places:
                places[digest] = slot = next(free)
                puts.append((slot_key(slot), codec.seal_bytes(key, bytes(piece))))
        used = sorted(places.values())
        slots = max(old.slots, used[-1] + 1 if used else 0)
        left = sorted(set(held.values()).difference(used))
        gaps: list[range] = []
        if left and (not used or slots - len(used) > len(used) + FREE_SLOTS):
            slots = used[-1] + 1 if used else 0
            gaps = _gaps(used)
        blank = codec.seal_bytes(key, b"")
        puts += [(slot_key(n), blank) for n in left if not any(n in gap for gap in gaps)]
        table = b"".join(
            [_ENTRY.pack(digest, len(piece), places[digest]) for digest, piece in self._pieces]
        )
        manifest = Manifest(self._runs, slots, table)
        return Change(
            manifest,
            ((DOCUMENT, manifest.seal(codec, key)), *puts),
            tuple(KeyRange(slot_key(gap.start), slot_key(gap.stop)) for gap in gaps),
        )


def _gaps(used: list[int]) -> list[range]:
    """The widest ranges of slots that are not among these, which are sorted."""
    bounds = zip([-1, *used], [*used, LAST_SLOT], strict=True)
    gaps = [range(low + 1, high) for low, high in bounds if high > low + 1]
    return sorted(gaps, key=len, reverse=True)[:MOST_GAPS]


class Known(msgspec.Struct, frozen=True, gc=False):
    """A document's manifest as it was seen last."""

    version: int
    """Of the commit that wrote it; 0: there is none."""
    manifest: Manifest
    head: Head | None
    """The session's, then."""
    epoch: bytes


class Manifests:
    """What a client knows of the documents that it has saved and loaded last.

    For use from any thread. Bounded: those not used for longest are forgotten.
    """

    def __init__(self, *, limit: int = REMEMBERED_BYTES) -> None:
        self._limit = limit
        self._known: dict[SessionKey, Known] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def recall(self, key: SessionKey) -> Known | None:
        """What is known of a session's document."""
        with self._lock:
            known = self._known.pop(key, None)
            if known is not None:
                self._known[key] = known
            return known

    def remember(self, key: SessionKey, known: Known) -> None:
        """Keep what was seen of a session's document, unless it is older than what is kept."""
        bare = Manifest(slots=known.manifest.slots, table=known.manifest.table)
        with self._lock:
            old = self._known.get(key)
            if (
                old is not None
                and _incarnation(old) == _incarnation(known)
                and old.epoch == known.epoch
                and old.version > known.version
            ):
                return
            self._drop(key)
            self._known[key] = msgspec.structs.replace(known, manifest=bare)
            self._bytes += _size(key, bare)
            while self._bytes > self._limit:
                self._drop(next(iter(self._known)))

    def advance(self, key: SessionKey, head: Head, epoch: bytes) -> None:
        """A commit of this process has made ``head``: what is known of the session as of the
        commit before is known as of this one, as far as the document has not changed."""
        if key not in self._known:
            return
        with self._lock:
            known = self._known.get(key)
            if (
                known is not None
                and known.head is not None
                and known.head.incarnation == head.incarnation
                and known.head.version == head.version - 1
                and known.epoch == epoch
            ):
                self._known[key] = msgspec.structs.replace(known, head=head)

    def forget(self, key: SessionKey) -> None:
        """Keep nothing of a session's document."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: SessionKey) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._bytes -= _size(key, known.manifest)


def _incarnation(known: Known) -> bytes:
    return known.head.incarnation if known.head else b""


def _size(key: SessionKey, manifest: Manifest) -> int:
    """What is taken by a manifest that is kept, about."""
    return len(manifest.table) + len(key.id) + OVERHEAD_BYTES
