"""A backend on a server, and a look at what it keeps there."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from secrets import token_hex

from perdure.backend import Backend
from perdure.plugins import open_backend

from tests.backends.redis.raw import Raw


@asynccontextmanager
async def opened(
    url: str, options: str = "", *, cluster: bool = False
) -> AsyncGenerator[tuple[Backend, Raw]]:
    """An open backend under a prefix of its own, and the same keys past it."""
    prefix = f"test-{token_hex(4)}"
    backend = open_backend(f"{url}?prefix={prefix}{options}")
    raw = Raw(url, prefix, cluster=cluster)
    try:
        await backend.open()
        yield backend, raw
    finally:
        await backend.aclose()
        raw.close()
