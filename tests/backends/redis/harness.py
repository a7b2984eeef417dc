"""A prefix for the kit, on a server or a cluster, and a look past the backend."""

import sys
from secrets import token_hex

from perdure.backend import Backend
from perdure.plugins import open_backend
from perdure.testing import Harness, Process
from perdure.types import SessionKey

from tests.backends.redis.moved_clock import MovedValkey
from tests.backends.redis.raw import Raw


class RedisHarness(Harness):
    def __init__(self, url: str, *, cluster: bool = False) -> None:
        prefix = f"kit-{token_hex(4)}"
        self.raw = Raw(url, prefix, cluster=cluster)
        self.url = f"{url}?prefix={prefix}"
        self.process = Process("perdure.plugins:open_backend", self.url)

    async def open(self) -> Backend:
        backend = open_backend(self.url)
        await backend.open()
        return backend

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes]:
        return await self.raw.items_of(key)


class MovedHarness(RedisHarness):
    """On a server whose clock the tests move, so that none is left out for taking a day."""

    def __init__(self, server: MovedValkey) -> None:
        super().__init__(server.url)
        self.server = server

    async def advance(self, ms: int) -> None:
        self.server.advance(ms)

    @property
    def patience(self) -> int:
        return sys.maxsize
