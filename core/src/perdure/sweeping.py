"""Sweeping one session: what in it has lapsed, and attachments that nothing refers to.

What is removed goes on the condition that the session is still as it was looked at, so that an
attachment which is being referred to just now stays.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from itertools import zip_longest

import msgspec

from perdure.attachment_parts import is_pending, open_manifest, parts_of
from perdure.client import Client
from perdure.document import DOCUMENT_ITEMS, encoded_document
from perdure.erasure import sessions
from perdure.errors import Conflict, Corrupt, FormatTooNew, SessionDeleted
from perdure.handle import Handle
from perdure.layout import (
    ATTACHMENT,
    CELL,
    CELL_STOP,
    IDEMPOTENCY,
    PART,
    STREAMS,
    STREAMS_STOP,
    prefix_stop,
    successor,
)
from perdure.request import Stored, View
from perdure.types import (
    At,
    Head,
    HeadEntry,
    Item,
    KeyRange,
    Rows,
    Scan,
    SessionKey,
    same_state,
)
from perdure.workers import for_each

KEPT_MS = 24 * 3600 * 1000
"""An attachment is kept for so long after it was put, whether anything refers to it or not."""

PAGE_BYTES = 1 << 20
"""How much of a session is looked at at once."""

TRIES = 3
"""How often a session is looked at that others change meanwhile. Then it is left for the next
sweep."""

DIGITS = 64
"""Of a digest, in hexadecimal."""

HEXADECIMAL = re.compile(rb"[0-9a-fA-F]{64,}")
"""Where a digest may be: looking for each of a thousand everywhere would take ages."""

FEW = 32
"""Fewer digests are looked for one by one in a long run of digits."""

LAPSING = (
    Scan(ATTACHMENT, PART, max_bytes=PAGE_BYTES),
    Scan(CELL, CELL_STOP, max_bytes=PAGE_BYTES),
    Scan(IDEMPOTENCY, prefix_stop(IDEMPOTENCY), max_bytes=PAGE_BYTES),
)
"""Where there is what may lapse."""

NAMING = (
    Scan(CELL, CELL_STOP, max_bytes=PAGE_BYTES),
    Scan(STREAMS, STREAMS_STOP, max_bytes=PAGE_BYTES),
)
"""Where attachments may be named, beside the head and the document."""


AT_ONCE = 16
"""Sessions swept at the same time."""


class Changed(Exception):
    """The session is not what it was a moment ago."""


async def sweep_session(client: Client, key: SessionKey) -> int:
    """Remove from a session what has no use any more; how many things it removed.

    These are cells and idempotency keys that have lapsed, attachments that were put more than
    a day ago and whose digest stands nowhere in the session, and what is left of uploads of
    more than 65 MiB that ended in their last moments. Looks for the digests in meta, labels,
    entries, cells, derived values and the document, wherever text can be, and in the names of
    cells and streams. Reads all of the session only if there is an attachment of that age.
    Removes nothing where there is no session, or where it is being written to all the time.
    Raises ``Corrupt``.
    """
    removed = tries = 0
    while tries < TRIES:
        try:
            head, things, complete = await _look(client, key)
            if head is None or not things:
                return removed
            await Handle(client, key, idle=0).commit(
                expect=At(head.version, head.tip),
                deletes=tuple(target for thing in things for target in thing),
                on=head,
            )
        except (Changed, Conflict, SessionDeleted):
            tries += 1
            continue
        removed += len(things)
        if complete:
            break
    return removed


async def sweep_sessions(
    client: Client, tenants: AsyncIterator[str], advance: Callable[[int], object]
) -> int:
    """Sweep all sessions of some tenants; how many things that removed.

    Calls ``advance`` with the number removed each time that some were. Leaves alone what
    cannot be read: that is for ``perdure verify`` to tell.
    """
    total = 0

    async def sweep_one(entry: HeadEntry) -> None:
        nonlocal total
        with suppress(Corrupt, FormatTooNew):
            removed = await sweep_session(client, entry.key)
            if removed:
                total += removed
                advance(removed)

    async for tenant in tenants:
        async with aclosing(sessions(client, tenant, None)) as entries:
            await for_each(entries, sweep_one, at_once=AT_ONCE)
    return total


Thing = tuple[bytes | KeyRange, ...]
"""What to delete of one thing."""


async def _look(client: Client, key: SessionKey) -> tuple[Head | None, list[Thing], bool]:
    """The session's head, what to remove, and whether that is all."""
    codec = client.codec
    snapshot = await client.snapshot(key, *LAPSING)
    view = View(key, snapshot.head, snapshot.now, codec, snapshot.epoch)
    if view.head is None:
        return None, [], True
    lapsed: list[Thing] = []
    unused: dict[bytes, Thing] = {}
    async with aclosing(_rows(client, view, LAPSING, snapshot.rows)) as rows:
        async for row in rows:
            if not row.key.startswith(ATTACHMENT):
                until = codec.expires_at(row.value)
                if until is not None and until <= view.now:
                    lapsed.append((row.key,))
            elif is_pending(row.key):
                if view.now - codec.open_own(key, row, int) > KEPT_MS:
                    lapsed.append((row.key, parts_of(row.key[len(ATTACHMENT) :])))
            else:
                manifest = open_manifest(codec, key, row)
                if view.now - manifest.uploaded_at > KEPT_MS:
                    digest = row.key[len(ATTACHMENT) :].hex().encode()
                    unused[digest] = (row.key, parts_of(manifest.upload))
    await _strike_named(client, view, unused)
    things = [*lapsed, *unused.values()]
    most = client.backend.capabilities.max_commit_items // 2  # each has two targets at most
    return view.head, things[:most], len(things) <= most


async def _strike_named(client: Client, view: View, unused: dict[bytes, Thing]) -> None:
    """Take those attachments out, by digest, that something in the session names."""

    def strike(text: bytes) -> None:
        for run in HEXADECIMAL.findall(text):
            digits = run.lower()
            if len(unused) < FEW:
                named = {digest for digest in unused if digest in digits}
            else:
                starts = range(len(digits) - DIGITS + 1)
                found = (digits[start : start + DIGITS] for start in starts)
                named = {each for each in found if each in unused}
            for digest in named:
                del unused[digest]

    if view.head is not None:
        strike(view.head.meta)
        strike(" ".join(view.head.labels).encode())
    tail = b""
    async with aclosing(_rows(client, view, NAMING if unused else ())) as rows:
        async for row in rows:
            # A long entry is in several rows, and a digest perhaps in two of them.
            text = tail + client.codec.body(view.key, row)
            strike(text)
            strike(row.key)
            if not unused:
                return
            tail = text[1 - DIGITS :]
    if unused:
        now, (items,) = await client.read(view.key, [Stored(DOCUMENT_ITEMS)])
        if not same_state(now.head, view.head) or now.epoch != view.epoch:
            raise Changed
        strike(encoded_document(items, now))


async def _rows(
    client: Client, view: View, scans: Sequence[Scan], first: Sequence[Rows] = ()
) -> AsyncGenerator[Item, None]:
    """The items of some ranges, page by page; ``first``: the first pages, if they were read.

    Raises ``Changed`` if they are not of one version with ``view``.
    """
    for scan, first_page in zip_longest(scans, first):
        rest, page = scan, first_page
        while True:
            if page is None:
                snapshot = await client.snapshot(view.key, rest)
                if not same_state(snapshot.head, view.head) or snapshot.epoch != view.epoch:
                    raise Changed
                (page,) = snapshot.rows
            for item in page.items:
                yield item
            if not page.more:
                break
            rest = msgspec.structs.replace(rest, start=successor(page.items[-1].key))
            page = None
