"""A session's rows as they are stored, for those who want to tamper with them."""

import os
from collections.abc import Mapping

from perdure.backend import Backend
from perdure.types import NEVER, Commit, Expect, Head, Item, Scan, SessionKey


class Stored:
    """Reads and writes rows past the encryption."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stamps: dict[tuple[SessionKey, bytes], int] = {}

    async def items(self, key: SessionKey) -> dict[bytes, Item]:
        (rows,) = (await self._backend.read(key, Scan())).rows
        return {item.key: item for item in rows.items}

    async def values(self, key: SessionKey) -> dict[bytes, bytes]:
        return {name: item.value for name, item in (await self.items(key)).items()}

    async def head(self, key: SessionKey) -> Head:
        head = (await self._backend.read(key)).head
        assert head is not None
        return head

    async def write(
        self,
        key: SessionKey,
        puts: Mapping[bytes, bytes],
        deletes: tuple[bytes, ...] = (),
        *,
        into: bytes | None = None,
    ) -> None:
        """As somebody does who has the database and not the keys. ``into``: create a session
        of that incarnation."""
        commit = Commit(
            id=os.urandom(16),
            digest=os.urandom(8),
            new_incarnation=into or os.urandom(16),
            puts=tuple(puts.items()),
            deletes=deletes,
        )
        await self._backend.commit(key, commit)

    async def forge(self, key: SessionKey, changed: Mapping[bytes, bytes | None]) -> None:
        """Put a session that differs in these values (``None``: without the item) in its
        place, with the same incarnation and version, and every stamp as it was.

        What a database's owner can do with its own tools: one commit per version.
        """
        head = await self.head(key)
        items = await self.items(key)
        wanted = {name: item.value for name, item in items.items()} | dict(changed)
        for name, item in items.items():  # also of what is taken out, to put it back
            self._stamps[key, name] = item.version
        versions = {name: self._stamps.get((key, name), head.version) for name in wanted}
        await self._backend.delete(key, id=os.urandom(16))
        await self.replay(key, head, wanted, versions)

    async def replay(
        self,
        key: SessionKey,
        head: Head,
        wanted: Mapping[bytes, bytes | None],
        versions: Mapping[bytes, int],
    ) -> None:
        """Build a session anew, each value written by the version it is to be stamped with."""
        for version in range(1, head.version + 1):
            puts = tuple(
                (name, value)
                for name, value in wanted.items()
                if value is not None and versions[name] == version
            )
            commit = Commit(
                id=os.urandom(16),
                digest=os.urandom(8),
                new_incarnation=head.incarnation,
                expect=Expect.ABSENT if version == 1 else Expect.PRESENT,
                puts=puts,
                expires_at=NEVER,
            )
            await self._backend.commit(key, commit)
