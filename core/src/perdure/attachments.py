"""Attachments: immutable bytes beside the log, named by their SHA-256."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from perdure.ahead import Ahead
from perdure.attachment_parts import (
    Manifest,
    ManifestRequest,
    ManifestsRequest,
    Opener,
    StoredManifest,
    manifest_key,
    parts_of,
    read_parts,
)
from perdure.attachment_sources import Blocks, Source
from perdure.attachment_uploads import find_manifest, put
from perdure.errors import AttachmentNotFound, Conflict, SessionDeleted
from perdure.handle import Handle
from perdure.log import check_count
from perdure.operations import OnSession
from perdure.retry import Deadline
from perdure.types import Condition, Expect, Item, check_identifier

MAX_MEDIA_TYPE_BYTES = 255

PAGE_PARTS = 2
"""Parts that are read in one round trip: half a MiB."""

PAGES_AHEAD = 2
"""How many round trips are under way while what the last one brought is checked and used."""


class Attachment(msgspec.Struct, frozen=True):
    """What is known of an attachment beside its content."""

    digest: str
    """The SHA-256 of its content in hexadecimal: its name."""
    size: int
    """Bytes."""
    media_type: str | None
    """As it was given."""
    uploaded_at: int
    """When it was put last: ms since the Unix epoch, by the backend's clock, or a little later:
    by as much as the backend took to tell its time."""


class Attachments(OnSession):
    """A session's attachments: bytes of any length up to 3.9 GiB, each kept once.

    ``session.attachments``. They are part of the session: gone with it, copied by a fork. An
    entry, a cell or the document refers to one by having its digest in some string;
    ``sweep`` removes those that nothing refers to a day after they were put. Methods raise
    what those of :class:`perdure.Session` do.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __repr__(self) -> str:
        return f"Attachments(of {self._handle.key})"

    @OnSession._operation("attachments.put")
    async def put(self, source: Source, *, media_type: str | None = None) -> Attachment:
        """Keep bytes, and return what to call them. Creates the session if it is absent.

        ``source``: bytes, a binary file (also one whose ``read`` is awaited), or a sync or
        async iterable of bytes, read 255 KiB at a time, of which a few are held. Content that
        is there already is not kept again: it counts as put now, under the media type given
        last.

        Nothing shows before the whole is there. Less than 510 KiB go in one commit, which is
        one round trip (two, on a store that has not asked its backend anything). More is
        staged, 510 KiB per round trip, after one round trip and before two. What an upload
        that ends in between has staged is removed by ``sweep`` a day later. Beyond 65 MiB,
        each 65 MiB take a further commit at the end; these do not show either, but for the
        session that the first may create.

        Raises ``InvalidValue`` for what is no source of bytes, ``TooLarge``,
        ``SessionDeleted``, and ``StageMissing`` if somebody else creates the session
        meanwhile, or a day passes, and the source cannot be read again. What the source itself
        raises goes through. In all these cases nothing was written.
        """
        checked_media_type(media_type)
        digest, manifest = await put(self._handle, Blocks(source), media_type)
        return _attachment(digest, manifest)

    @OnSession._generator("attachments.open")
    async def open(
        self, digest: str, *, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The content in pieces of up to 255 KiB, or its bytes from ``start`` to ``stop``::

            async for piece in session.attachments.open(digest): ...

        Reads only the parts that it needs, half a MiB per round trip, the next two while one is
        being used. No byte is given out before the part that it is in was checked and, before
        the last one, the digest of the whole, if all of it was read: raises ``Corrupt``.
        ``start`` and ``stop`` may be beyond the end. Raises ``AttachmentNotFound``, also if it
        is deleted meanwhile.
        """
        check_count("start", start)
        check_count("stop", stop)
        handle = self._handle
        client, key = handle.client, handle.key
        manifest = await self._manifest(digest)
        end = manifest.size if stop is None else min(stop, manifest.size)
        number = start // manifest.part_bytes
        last = -(-end // manifest.part_bytes) if start < end else number
        opener = Opener(client.codec, key, digest, number)
        if not manifest.parts:
            opener.finish()

        async with Ahead[tuple[Manifest, Sequence[Item]]]() as ahead:
            asked = number

            def ask() -> None:
                nonlocal asked
                while asked < last and len(ahead) < PAGES_AHEAD:
                    first, asked = asked, min(asked + PAGE_PARTS, last)
                    ahead.start(read_parts(client, key, digest, manifest, first, asked))

            ask()
            while (page := await ahead.result()) is not None:
                manifest, items = page[0], deque(page[1])
                del page  # each row goes when its part has been taken
                ask()
                while items:
                    await asyncio.sleep(0)  # checking takes a while: let others go on
                    part = opener.open(manifest, items.popleft())
                    at = number * manifest.part_bytes
                    yield part[max(0, start - at) : end - at]
                    number += 1

    @OnSession._operation("attachments.read")
    async def read(self, digest: str) -> bytes:
        """The whole content, checked, in memory. Raises as :meth:`open` does."""
        async with aclosing(self.open(digest)) as pieces:
            return b"".join([piece async for piece in pieces])

    @OnSession._operation("attachments.stat")
    async def stat(self, digest: str) -> Attachment | None:
        """What is known of an attachment; ``None`` if there is none. One round trip."""
        request = ManifestRequest(manifest_key(digest))
        _, (known,) = await self._handle.read([request])
        return None if known is None else _attachment(digest, known.manifest)

    @OnSession._operation("attachments.list")
    async def list(self) -> list[Attachment]:
        """All attachments, the one put last at the end. One round trip, and one more for
        every so many thousand; contents are not read."""
        _, (manifests,) = await self._handle.read([ManifestsRequest()])
        return listed(manifests)

    @OnSession._operation("attachments.delete")
    async def delete(self, digest: str) -> bool:
        """Remove an attachment; whether there was one. Two round trips.

        What refers to it stays as it is.
        """
        handle = self._handle
        key = manifest_key(digest)
        deadline = Deadline(handle.client.deadline)
        while True:
            view, known = await find_manifest(handle.client, handle.key, digest)
            if known is None:
                return False
            try:
                await handle.commit(
                    expect=Expect.PRESENT,
                    deletes=(key, parts_of(known.manifest.upload)),
                    conditions=(Condition(key, known.version),),
                    on=view.head,
                )
                return True
            except Conflict:  # put again, or deleted, meanwhile
                if not await deadline.pause():
                    raise
            except SessionDeleted:
                if handle.incarnation is not None:
                    raise
                return False

    async def _manifest(self, digest: str) -> Manifest:
        request = ManifestRequest(manifest_key(digest))
        _, (known,) = await self._handle.read([request])
        if known is None:
            raise AttachmentNotFound(f"{self._handle.key} has no attachment {digest}")
        return known.manifest


def checked_media_type(media_type: object) -> str | None:
    """A media type that can be kept, if any. Raises ``InvalidKey``."""
    if media_type is None:
        return None
    return check_identifier("media type", media_type, MAX_MEDIA_TYPE_BYTES)


def listed(manifests: Mapping[str, StoredManifest]) -> list[Attachment]:
    """The attachments of these manifests, the one put last at the end."""
    found = sorted(
        manifests.items(), key=lambda each: (each[1].version, each[1].manifest.uploaded_at)
    )
    return [_attachment(digest, known.manifest) for digest, known in found]


def _attachment(digest: str, manifest: Manifest) -> Attachment:
    return Attachment(digest, manifest.size, manifest.media_type, manifest.uploaded_at)
