"""How attachments get into a session: parts staged ahead, made visible by one small commit."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256

import msgspec

from perdure.ahead import Ahead
from perdure.attachment_parts import (
    ENVELOPE_BYTES,
    PART_BYTES,
    Manifest,
    ManifestRequest,
    ManifestsRequest,
    Packer,
    StoredManifest,
    manifest_key,
    pending_key,
    read_parts,
)
from perdure.attachment_sources import Blocks, off_loop
from perdure.client import Client, new_id, stage_parts
from perdure.errors import AttachmentNotFound, Conflict, SessionDeleted, StageMissing
from perdure.handle import Handle
from perdure.request import View
from perdure.retry import Deadline
from perdure.types import Condition, SessionKey

AT_ONCE = 2
"""Parts that go in one round trip: half a MiB. While one such lot is on its way, the next is
read and packed; no more is ever held."""

LOTS_OF_STAGE = 130
"""How many lots one commit makes visible at most: 65 MiB. Meanwhile others wait for SQLite or
Redis, for 0.2 s; longer content takes several commits (docs/decisions/0014)."""

CLOCK_SLACK = 60_000
"""By how many ms the time noted may be too early, as it is worked out without asking: after a
pause of this machine. Else it is corrected, since ``sweep`` goes by it."""

REDOS = 5
"""How often at most an upload begins again whose stage was gone."""


async def put(handle: Handle, blocks: Blocks, media_type: str | None) -> tuple[str, Manifest]:
    """See :meth:`perdure.Attachments.put`; the digest and the manifest."""
    client = handle.client
    room = client.backend.capabilities.max_item_bytes - ENVELOPE_BYTES
    part_bytes = min(PART_BYTES, room)
    for redo in range(REDOS):
        upload = Upload(handle, media_type, part_bytes)
        puts = await upload.lot(blocks)
        if upload.packer.size < AT_ONCE * part_bytes:
            return await upload.keep(puts=puts)
        try:
            return await upload.keep_long(blocks, puts)
        except StageMissing as error:
            if redo + 1 == REDOS or not await blocks.rewind():
                raise StageMissing(
                    "what was uploaded is gone: another writer has created the session "
                    "meanwhile, or it took more than a day; nothing was written: put it again"
                ) from error
    raise AssertionError("the last redo has returned or raised")


class Upload:
    """One attempt to put an attachment."""

    def __init__(self, handle: Handle, media_type: str | None, part_bytes: int) -> None:
        self.packer = Packer(handle.client.codec, handle.key, new_id(), part_bytes)
        self._handle = handle
        self._client = handle.client
        self._media_type = media_type

    async def lot(self, blocks: Blocks) -> list[tuple[bytes, bytes]]:
        """The next parts, as items; none at the end."""
        puts: list[tuple[bytes, bytes]] = []
        while len(puts) < AT_ONCE and (part := await blocks.read(self.packer.part_bytes)):
            puts.append(await off_loop(partial(self.packer.pack, part), len(part)))
        return puts

    async def keep_long(
        self, blocks: Blocks, puts: Sequence[tuple[bytes, bytes]]
    ) -> tuple[str, Manifest]:
        """Put what takes several lots, of which ``puts`` is the first."""
        handle = self._handle
        await handle.revalidate()  # nothing is staged for a session that is gone
        if blocks.view is not None:
            whole = await off_loop(partial(sha256, blocks.view), len(blocks.view))
            digest = whole.hexdigest()
            if (known := await self._renewed(digest)) is not None:
                return digest, known
        incarnation = handle.incarnation or new_id()
        stages = await self._stage(blocks, puts, incarnation)
        digest = self.packer.digest
        if blocks.view is None and (known := await self._renewed(digest)) is not None:
            return digest, known
        pending: Condition | None = None
        for stage in stages[:-1]:
            note: tuple[tuple[bytes, bytes], ...] = ()
            if pending is None:
                note = ((pending_key(self.packer.upload), self._seal(await self._now())),)
            made = await handle.commit(puts=note, stages=(stage,), new_incarnation=incarnation)
            if pending is None:
                pending = Condition(pending_key(self.packer.upload), made.version)
        return await self.keep(stages=stages[-1:], new_incarnation=incarnation, pending=pending)

    async def _stage(
        self, blocks: Blocks, puts: Sequence[tuple[bytes, bytes]], incarnation: bytes
    ) -> list[bytes]:
        """Stage all parts, of which ``puts`` are the first; the ids of the stages."""
        client, key = self._client, self._handle.key
        stages: list[bytes] = []
        lots = 0
        async with Ahead[None]() as staging:
            while puts:
                if lots % LOTS_OF_STAGE == 0:
                    stages.append(new_id())
                lots += 1
                await staging.result()
                staging.start(
                    stage_parts(
                        client.backend, key, incarnation, stages[-1], puts, client.deadline
                    )
                )
                del puts  # the task has them
                puts = await self.lot(blocks)
            await staging.result()
        return stages

    async def keep(
        self,
        *,
        puts: Sequence[tuple[bytes, bytes]] = (),
        stages: Sequence[bytes] = (),
        new_incarnation: bytes | None = None,
        pending: Condition | None = None,
    ) -> tuple[str, Manifest]:
        """Commit the manifest, with the parts or the stage that they are in.

        ``pending``: that the note of parts committed before is still there, and they with it.
        """
        handle, client, digest = self._handle, self._client, self.packer.digest
        key = manifest_key(digest)
        deadline = Deadline(client.deadline)
        noted = (pending,) if pending else ()
        while True:
            manifest = self.packer.manifest(await self._now(), self._media_type)
            try:
                made = await handle.commit(
                    deletes=tuple(condition.key for condition in noted if condition.key),
                    puts=(*puts, (key, self._seal(manifest))),
                    stages=tuple(stages),
                    new_incarnation=new_incarnation,
                    conditions=(Condition(key, 0), *noted),
                )
            except Conflict:
                if (known := await self._renewed(digest)) is not None:
                    return digest, known
                if not await deadline.pause():
                    raise
            else:
                if made.now - manifest.uploaded_at > CLOCK_SLACK:
                    manifest = await self._renewed(digest) or manifest
                return digest, manifest

    async def _renewed(self, digest: str) -> Manifest | None:
        """Note that content which is there already was put again; ``None`` if it is not."""
        handle, client, key = self._handle, self._client, manifest_key(digest)
        deadline = Deadline(client.deadline)
        while True:
            view, known = await find_manifest(client, handle.key, digest)
            if known is None:
                return None
            manifest = msgspec.structs.replace(
                known.manifest,
                uploaded_at=max(view.now, known.manifest.uploaded_at),
                media_type=self._media_type or known.manifest.media_type,
            )
            try:
                await handle.commit(
                    puts=((key, self._seal(manifest)),),
                    conditions=(Condition(key, known.version),),
                    on=view.head,
                )
            except Conflict:
                if not await deadline.pause():
                    raise
            else:
                return manifest

    async def _now(self) -> int:
        """The backend's time."""
        client = self._client
        now = client.now()
        return (await client.snapshot(self._handle.key)).now if now is None else now

    def _seal(self, value: object) -> bytes:
        return self._client.codec.seal(self._handle.key, value)


async def find_manifest(
    client: Client, key: SessionKey, digest: str
) -> tuple[View, StoredManifest | None]:
    """The manifest of an attachment, past what handles know. Raises ``InvalidKey``."""
    request = ManifestRequest(manifest_key(digest))
    view, (items,) = await client.read(key, [request])
    return view, request.answer(items, view)


async def stage_copies(
    client: Client, source: SessionKey, life: bytes, target: SessionKey, incarnation: bytes
) -> tuple[tuple[bytes, ...], tuple[tuple[bytes, bytes], ...]]:
    """Stage a copy of all attachments of ``source``, as the incarnation ``life``, for another
    session: the stages, and the manifests to put, with the commit that creates ``target`` as
    ``incarnation``.

    A few parts at a time. Begins again if one is deleted meanwhile. Raises ``Corrupt``, and
    ``SessionDeleted`` if the source is gone.
    """
    request = ManifestsRequest()
    while True:
        stage = new_id()
        view, (rows,) = await client.read(source, [request])
        if view.head is None or view.head.incarnation != life:
            raise SessionDeleted("the session was deleted or has expired", head=view.head)
        puts: list[tuple[bytes, bytes]] = []
        staged = 0
        with suppress(AttachmentNotFound):
            for digest, known in request.answer(rows, view).items():
                manifest = await _stage_copy(
                    client, source, target, digest, known.manifest, incarnation, stage
                )
                puts.append((manifest_key(digest), client.codec.seal(target, manifest)))
                staged += manifest.parts
            return (stage,) if staged else (), tuple(puts)


async def _stage_copy(
    client: Client,
    source: SessionKey,
    target: SessionKey,
    digest: str,
    manifest: Manifest,
    incarnation: bytes,
    stage: bytes,
) -> Manifest:
    first = 0
    while first < manifest.parts:
        stop = min(first + AT_ONCE, manifest.parts)
        current, items = await read_parts(client, source, digest, manifest, first, stop)
        if current.upload != manifest.upload:  # put again meanwhile
            manifest, first = current, 0
            continue
        puts = [(item.key, item.value) for item in items]
        await stage_parts(client.backend, target, incarnation, stage, puts, client.deadline)
        first = stop
    return manifest
