"""Backends that show what the store does to them."""

from collections.abc import Awaitable, Callable

import msgspec

from perdure.backend import Backend
from perdure.testing.faults import Forwarding
from perdure.types import Commit, Committed, Read, Scan, SessionKey, Snapshot


class Recorder(Forwarding):
    """Counts round trips and what they carry."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.reads = 0
        self.items_read = 0
        self.commits: list[Commit] = []

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self.reads += 1
        snapshot = await super().read(key, *reads)
        self.items_read += sum(len(rows.items) for rows in snapshot.rows)
        return snapshot

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.commits.append(commit)
        return await super().commit(key, commit)

    def reset(self) -> None:
        self.reads = self.items_read = 0
        self.commits.clear()


class Narrow(Forwarding):
    """Takes and gives little at a time, and lets something happen between two reads."""

    def __init__(
        self, backend: Backend, *, read_bytes: int = 1000, commit_bytes: int = 1 << 20
    ) -> None:
        super().__init__(backend)
        self.read_bytes = read_bytes
        self.capabilities = msgspec.structs.replace(
            backend.capabilities, max_commit_bytes=commit_bytes, max_item_bytes=commit_bytes
        )
        self.between: list[Callable[[], Awaitable[object]]] = []
        self.reads = 0
        self.stagings = 0

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self.reads += 1
        narrow = [
            msgspec.structs.replace(
                read, max_bytes=min(read.max_bytes or self.read_bytes, self.read_bytes)
            )
            if isinstance(read, Scan)
            else read
            for read in reads
        ]
        snapshot = await super().read(key, *narrow)
        if self.between and any(rows.more for rows in snapshot.rows):
            await self.between.pop(0)()
        return snapshot

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self.stagings += 1
        await super().stage(key, incarnation, stage, puts)
