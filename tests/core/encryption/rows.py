"""Arbitrary bytes, as the contract's kit writes them, made rows and back."""

from collections.abc import Sequence

import msgspec

from perdure.backend import Backend
from perdure.codec.envelope import BYTES, FORMAT, LOG
from perdure.codec.log_rows import BODY, HEADER_BYTES
from perdure.errors import Conflict, OutcomeUnknown
from perdure.forwarding import Forwarding
from perdure.types import (
    Append,
    Commit,
    Committed,
    Item,
    Read,
    Rows,
    Scan,
    SessionKey,
    Snapshot,
)

_PLAIN = bytes((FORMAT, BYTES))
_LOGGED = bytes((FORMAT, LOG)) + bytes(HEADER_BYTES)


class RowsOf(Forwarding):
    """Wraps the values it is given in rows: appended ones, if they are to be ``linked``, in
    rows of a log."""

    def __init__(self, backend: Backend, *, linked: bool) -> None:
        super().__init__(backend)
        self._appended = _LOGGED if linked else _PLAIN
        limits = backend.capabilities
        self.capabilities = msgspec.structs.replace(
            limits, max_item_bytes=limits.max_item_bytes - BODY
        )

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        snapshot = await self.backend.read(key, *map(_unbounded, reads))
        return msgspec.structs.replace(snapshot, rows=_bare(reads, snapshot.rows))

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        wrapped = msgspec.structs.replace(
            commit,
            puts=tuple((item_key, _PLAIN + value) for item_key, value in commit.puts),
            appends=tuple(
                Append(append.prefix, tuple(self._appended + value for value in append.values))
                for append in commit.appends
            ),
            returning=tuple(map(_unbounded, commit.returning)),
        )
        try:
            result = await self.backend.commit(key, wrapped)
        except Conflict as error:
            error.rows = _bare(commit.returning, error.rows)
            raise
        except OutcomeUnknown as error:
            assert error.commit == wrapped
            error.commit = commit
            raise
        return msgspec.structs.replace(result, rows=_bare(commit.returning, result.rows))

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        wrapped = tuple((item_key, _PLAIN + value) for item_key, value in puts)
        await self.backend.stage(key, incarnation, stage, wrapped)


def _unbounded(read: Read) -> Read:
    """Without ``max_bytes``, which a backend counts in longer rows than the kit does."""
    return msgspec.structs.replace(read, max_bytes=None) if isinstance(read, Scan) else read


def _bare(reads: Sequence[Read], found: Sequence[Rows]) -> tuple[Rows, ...]:
    return tuple(_bare_rows(read, rows) for read, rows in zip(reads, found, strict=False))


def _bare_rows(read: Read, rows: Rows) -> Rows:
    items = [_bare_item(item) for item in rows.items]
    left = read.max_bytes if isinstance(read, Scan) else None
    if left is not None:
        for number, item in enumerate(items, 1):
            left -= len(item.value)
            if left <= 0:
                return Rows(items[:number], rows.more or number < len(items))
    return Rows(items, rows.more)


def _bare_item(item: Item) -> Item:
    header = _PLAIN if item.value.startswith(_PLAIN) else _LOGGED
    assert item.value.startswith(header)
    return Item(item.key, item.value[len(header) :], item.version)
