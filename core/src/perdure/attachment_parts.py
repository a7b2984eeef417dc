"""How an attachment is stored: a manifest, and parts that it holds checks of.

Content is cut into parts of one length. Of each the manifest has two checks, 8 bytes each, cut
from SHA-256: of the content up to and including the part, and of the part alone. Who reads from
the beginning hashes everything once, and knows of each part whether it is right before it gives
it out, and at the end whether the whole is. Who reads a range checks its parts alone.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from perdure.client import Client
from perdure.codec import Codec
from perdure.errors import AttachmentNotFound, Corrupt, InvalidKey, TooLarge
from perdure.layout import ATTACHMENT, PART
from perdure.request import Request, Stored, View
from perdure.types import Get, Item, KeyRange, Scan, SessionKey

PART_BYTES = 255 * 1024
"""Length of a part. With the envelope, of at most a KiB, below every backend's limit for one
item."""

ENVELOPE_BYTES = 1024

MAX_PARTS = 16_000
"""So that the manifest, with 16 bytes for each, is not longer than a part."""

MAX_ATTACHMENT_BYTES = MAX_PARTS * PART_BYTES
"""Longest attachment: 3.9 GiB."""

CHECK_BYTES = 8

UPLOAD_BYTES = 16


class Manifest(msgspec.Struct, frozen=True, gc=False):
    """What is stored under the attachment's digest."""

    size: int
    part_bytes: int
    """Length of each part but the last, which may be shorter."""
    upload: bytes
    """What the keys of its parts begin with; random."""
    checks: bytes
    """Of each part in turn the check of all up to its end, and its own."""
    uploaded_at: int
    """When it was put last."""
    media_type: str | None = None

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.size // self.part_bytes)

    def scan(self, first: int, stop: int) -> Scan:
        """The read of some parts."""
        return Scan(part_key(self.upload, first), part_key(self.upload, stop))

    def length(self, number: int) -> int:
        """Bytes of a part."""
        return min(self.part_bytes, self.size - number * self.part_bytes)

    def check(self, number: int, *, alone: bool) -> bytes:
        """The check of a part alone, or of all content up to its end."""
        start = (2 * number + alone) * CHECK_BYTES
        return self.checks[start : start + CHECK_BYTES]


def part_key(upload: bytes, number: int) -> bytes:
    """The item key of a part."""
    return PART + upload + number.to_bytes(4, "big")


def parts_of(upload: bytes) -> KeyRange:
    """The keys of all parts of an upload."""
    return KeyRange(PART + upload, PART + upload + b"\xff" * 5)


def manifest_key(digest: object) -> bytes:
    """The item key of an attachment's manifest. Raises :class:`InvalidKey`."""
    if isinstance(digest, str) and len(digest) == 64:
        try:
            raw = bytes.fromhex(digest)
        except ValueError:
            raw = b""
        if raw.hex() == digest:
            return ATTACHMENT + raw
    raise InvalidKey(
        f"an attachment is named by the 64 hexadecimal digits of its SHA-256, not by {digest!r}"
    )


def pending_key(upload: bytes) -> bytes:
    """The item key of a note that parts of an upload are there whose manifest is not yet.

    It is shorter than those of manifests, among which it stands.
    """
    return ATTACHMENT + upload


def is_pending(key: bytes) -> bool:
    """Whether an item key among those of manifests is that of a note."""
    return len(key) == len(ATTACHMENT) + UPLOAD_BYTES


def open_manifest(codec: Codec, key: SessionKey, item: Item) -> Manifest:
    """The manifest in a row. Raises ``Corrupt``."""
    manifest = codec.open_own(key, item, Manifest)
    if (
        len(item.key) != 1 + sha256().digest_size
        or manifest.part_bytes < 1
        or manifest.size < 0
        or len(manifest.checks) != manifest.parts * 2 * CHECK_BYTES
    ):
        raise Corrupt(f"the manifest of an attachment of {key} is malformed")
    return manifest


class StoredManifest(msgspec.Struct, frozen=True, gc=False):
    """A manifest, and the version that wrote it."""

    manifest: Manifest
    version: int


class ManifestRequest(Request[StoredManifest | None]):
    """The manifest under an item key; ``None`` if there is none."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def compile(self) -> Get:
        return Get(self._key)

    def answer(self, items: Sequence[Item], view: View) -> StoredManifest | None:
        if not items:
            return None
        return StoredManifest(open_manifest(view.codec, view.key, items[0]), items[0].version)


class ManifestsRequest(Request[dict[str, StoredManifest]]):
    """All manifests of a session, by digest."""

    def compile(self) -> Scan:
        return Scan(ATTACHMENT, PART)

    def answer(self, items: Sequence[Item], view: View) -> dict[str, StoredManifest]:
        return {
            item.key[len(ATTACHMENT) :].hex(): StoredManifest(
                open_manifest(view.codec, view.key, item), item.version
            )
            for item in items
            if not is_pending(item.key)
        }


async def read_parts(
    client: Client, key: SessionKey, digest: str, manifest: Manifest, first: int, stop: int
) -> tuple[Manifest, Sequence[Item]]:
    """The rows of some parts, and the manifest that they belong to: another one if the
    attachment was deleted and put again meanwhile.

    One round trip. Raises ``AttachmentNotFound`` if it was deleted, ``Corrupt`` if the parts
    are not there though it was not.
    """
    while True:
        scan = Stored(manifest.scan(first, stop))
        _, (items,) = await client.read(key, [scan])
        if len(items) == stop - first:
            return manifest, items
        named = ManifestRequest(manifest_key(digest))
        view, (rows, items) = await client.read(key, [named, scan])
        if len(items) == stop - first:
            return manifest, items
        known = named.answer(rows, view)
        if known is None or known.manifest.part_bytes != manifest.part_bytes:
            raise AttachmentNotFound(f"attachment {digest} was deleted while it was read")
        if known.manifest.upload == manifest.upload:
            raise Corrupt(
                f"attachment {digest} of {key}: parts {first} to {stop - 1} lack some"
            )
        manifest = known.manifest


class Packer:
    """Makes items of parts as they come, and the manifest of them all."""

    def __init__(
        self, codec: Codec, key: SessionKey, upload: bytes, part_bytes: int = PART_BYTES
    ) -> None:
        self.upload = upload
        self.part_bytes = part_bytes
        self.size = 0
        self.count = 0
        self._codec = codec
        self._key = key
        self._whole = sha256()
        self._checks = bytearray()

    def pack(self, part: bytes) -> tuple[bytes, bytes]:
        """The next part, as an item. All but the last are full. Raises ``TooLarge``."""
        if self.count == MAX_PARTS:
            raise TooLarge(
                f"an attachment has at most {MAX_PARTS * self.part_bytes} bytes; nothing was "
                "written"
            )
        self._whole.update(part)
        self._checks += self._whole.copy().digest()[:CHECK_BYTES]
        self._checks += sha256(part).digest()[:CHECK_BYTES]
        put = part_key(self.upload, self.count), self._codec.seal_bytes(self._key, part)
        self.count += 1
        self.size += len(part)
        return put

    @property
    def digest(self) -> str:
        """Of all that was packed, in hexadecimal."""
        return self._whole.hexdigest()

    def manifest(self, uploaded_at: int, media_type: str | None) -> Manifest:
        """That of all that was packed."""
        return Manifest(
            self.size,
            self.part_bytes,
            self.upload,
            bytes(self._checks),
            uploaded_at,
            media_type,
        )


class Opener:
    """Opens parts one after another, and gives out none that is not right."""

    def __init__(self, codec: Codec, key: SessionKey, digest: str, first: int) -> None:
        """``first``: the number of the first part that will be opened."""
        self._codec = codec
        self._key = key
        self._digest = digest
        self._next = first
        self._whole = sha256() if first == 0 else None

    def open(self, manifest: Manifest, item: Item) -> bytes:
        """The content of the next part; with the last, the whole is checked too. Raises
        ``Corrupt``."""
        number, whole = self._next, self._whole
        part = self._codec.open_bytes(self._key, item, limit=manifest.part_bytes)
        if whole is None:
            found = sha256(part).digest()
        else:
            whole.update(part)
            found = whole.copy().digest()
        if (
            item.key != part_key(manifest.upload, number)
            or len(part) != manifest.length(number)
            or found[:CHECK_BYTES] != manifest.check(number, alone=whole is None)
        ):
            raise self._corrupt(f"part {number} is not what was put")
        self._next += 1
        if self._next == manifest.parts:
            self.finish()
        return part

    def finish(self) -> None:
        """After the last part: whether the whole is what its digest says, if all of it was
        opened. Raises ``Corrupt``."""
        if self._whole is not None and self._whole.hexdigest() != self._digest:
            raise self._corrupt("the whole does not have this digest")

    def _corrupt(self, reason: str) -> Corrupt:
        return Corrupt(f"attachment {self._digest} of {self._key}: {reason}")
