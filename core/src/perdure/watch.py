"""Watching a stream: its entries as they come, from any process."""

from collections.abc import AsyncGenerator

from perdure.client import Client
from perdure.errors import SessionDeleted
from perdure.log import Entry, Log
from perdure.position import START, Position
from perdure.retry import retrying
from perdure.schema import Schema, T
from perdure.types import Head, SessionKey, same_state

WAIT_SECONDS = 20.0
"""One wait: below the idle limits of common proxies and load balancers."""

PAGE = 1000
"""So many entries are read at once, at most."""


async def watch(
    client: Client, key: SessionKey, stream: str, schema: Schema[T], after: Position | None
) -> AsyncGenerator[Entry[T], None]:
    """Yield a stream's entries behind ``after`` (``None``: behind what is there), for ever."""
    last = after
    head: Head | None = None
    if last is None:
        newest = Log(last=1, stream=stream)
        view, found = await client.read(key, [newest])
        head = view.head
        last = (newest.answer(found[0], view).positions or [START])[-1]
    while True:
        request = Log(
            after=last, limit=PAGE, stream=stream, type=schema.type, migrate=schema.migrate
        )
        view, found = await client.read(key, [request])
        if head is not None and (
            view.head is None or view.head.incarnation != head.incarnation
        ):
            raise SessionDeleted(
                f"session {key.id!r} was deleted while watched", head=view.head
            )
        head = view.head
        entries = request.answer(found[0], view)
        for position, value in zip(entries.positions, entries, strict=True):
            yield Entry(position, value)
            last = position
        if len(entries) < PAGE:
            await _change(client, key, head)


async def _change(client: Client, key: SessionKey, head: Head | None) -> None:
    backend = client.backend
    while True:
        now = await retrying(
            lambda: backend.wait(key, after=head, timeout=WAIT_SECONDS),
            WAIT_SECONDS + client.deadline,
        )
        if not same_state(now, head):
            return
