"""Short words for what many tests here do."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from secrets import token_hex

from perdure.plugins import open_backend
from perdure.types import Append, Commit, SessionKey

from perdure_durable_objects.backend import HttpBackend


def new_key() -> SessionKey:
    return SessionKey.of(f"tenant-{token_hex(4)}", "session", token_hex(4))


def commit_of(*values: bytes) -> Commit:
    """One that appends these."""
    return Commit(
        id=os.urandom(16),
        digest=b"8 bytes.",
        new_incarnation=os.urandom(16),
        appends=(Append(b"l\0", values),) if values else (),
    )


@asynccontextmanager
async def client_of(url: str, **options: object) -> AsyncGenerator[HttpBackend]:
    """A client that has not asked anything yet."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    backend = open_backend(f"{url}?{query}" if query else url)
    assert isinstance(backend, HttpBackend)
    try:
        yield backend
    finally:
        await backend.aclose()
