"""Short forms of what a test of a backend does all the time."""

import secrets
from typing import TypedDict, Unpack

import msgspec

from perdure.backend import Backend
from perdure.types import (
    Append,
    At,
    Commit,
    Committed,
    Condition,
    Expect,
    Head,
    HeadEntry,
    Item,
    KeyRange,
    ListQuery,
    Order,
    Read,
    Restored,
    Scan,
    SessionKey,
)

Puts = tuple[tuple[bytes, bytes], ...]


class CommitFields(TypedDict, total=False):
    """The fields of a :class:`Commit`, each optional."""

    id: bytes
    digest: bytes
    new_incarnation: bytes
    restored: Restored | None
    expect: Expect | At
    incarnation: bytes | None
    conditions: tuple[Condition, ...]
    base: int
    resend: bool
    seen: int | None
    deletes: tuple[bytes | KeyRange, ...]
    puts: Puts
    appends: tuple[Append, ...]
    stages: tuple[bytes, ...]
    meta: bytes | None
    labels: tuple[str, ...] | None
    expires_at: int | None
    expires_in: int | None
    returning: tuple[Read, ...]


def new_id() -> bytes:
    """16 random bytes."""
    return secrets.token_bytes(16)


def new_commit(**fields: Unpack[CommitFields]) -> Commit:
    """A commit with an id, digest and incarnation of its own, unless they are given."""
    fresh = Commit(id=new_id(), digest=secrets.token_bytes(8), new_incarnation=new_id())
    return msgspec.structs.replace(fresh, **fields)


def resent(commit: Commit) -> Commit:
    """The commit as a store sends it again, after its reply was lost."""
    return msgspec.structs.replace(commit, resend=True)


def other_content(commit: Commit) -> Commit:
    """Another commit under the same id: what a reused id looks like."""
    digest = bytes(byte ^ 0xFF for byte in commit.digest)
    return msgspec.structs.replace(commit, digest=digest)


async def write(backend: Backend, key: SessionKey, **fields: Unpack[CommitFields]) -> Committed:
    """Make a commit with these fields and apply it."""
    return await backend.commit(key, new_commit(**fields))


async def write_times(backend: Backend, key: SessionKey, times: int) -> None:
    """So many small commits by others, each of whom knows the one before."""
    head = (await backend.read(key)).head
    for n in range(times):
        made = await write(
            backend,
            key,
            incarnation=None if head is None else head.incarnation,
            base=0 if head is None else head.version,
            puts=((b"others", b"%d" % n),),
        )
        head = made.head


async def read_items(backend: Backend, key: SessionKey) -> list[Item]:
    """All items of a session nobody writes to, in order; empty if it is absent."""
    found: list[Item] = []
    start = b""
    while True:
        (rows,) = (await backend.read(key, Scan(start=start))).rows
        found.extend(rows.items)
        if not rows.more:
            return found
        start = found[-1].key + b"\0"


async def read_values(backend: Backend, key: SessionKey) -> dict[bytes, bytes]:
    """All items of a session nobody writes to, as a dict in key order."""
    return {item.key: item.value for item in await read_items(backend, key)}


async def read_head(backend: Backend, key: SessionKey) -> Head:
    """The head of a session that must be there."""
    head = (await backend.read(key)).head
    assert head is not None, f"{key} is absent"
    return head


def at(head: Head) -> At:
    """Exactly this version, made by exactly this commit."""
    return At(head.version, head.tip)


async def list_pages(
    backend: Backend,
    key: SessionKey,
    *,
    order: Order = Order.ID,
    prefix: str = "",
    label: str | None = None,
    limit: int = 100,
) -> list[list[HeadEntry]]:
    """Every page of the list of ``key``'s tenant and kind."""
    pages: list[list[HeadEntry]] = []
    cursor: str | None = None
    while True:
        query = ListQuery(order=order, prefix=prefix, label=label, limit=limit, cursor=cursor)
        page = await backend.list(key.tenant, key.kind, query)
        pages.append(list(page.items))
        cursor = page.cursor
        if cursor is None:
            return pages
        assert len(pages) < 10_000, "paging does not come to an end"


async def list_ids(
    backend: Backend,
    key: SessionKey,
    *,
    order: Order = Order.ID,
    prefix: str = "",
    label: str | None = None,
    limit: int = 100,
) -> list[str]:
    """The ids of all sessions of ``key``'s tenant and kind, through all pages."""
    pages = await list_pages(backend, key, order=order, prefix=prefix, label=label, limit=limit)
    return [entry.key.id for page in pages for entry in page]
