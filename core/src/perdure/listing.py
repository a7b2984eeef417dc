"""Lists, page by page: what a page is asked for, and cursors that fit no other list."""

import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from hashlib import blake2b

import msgspec

from perdure.client import Client
from perdure.errors import InvalidKey, Unsupported
from perdure.retry import retrying
from perdure.types import (
    MAX_LABEL_BYTES,
    HeadEntry,
    ListQuery,
    Order,
    Page,
    check_identifier,
)

MAX_PAGE = 1000
"""Most sessions of one page."""

DIGEST_BYTES = 6
MAX_CURSOR_CHARACTERS = 4096


class Listing:
    """One list: of a tenant's sessions of one kind, in some order, narrowed or not.

    Raises ``InvalidKey`` for what cannot name anything, ``Unsupported`` for a prefix of
    anything but ids.
    """

    def __init__(
        self, tenant: str, kind: str, *, order: object, prefix: object, label: object
    ) -> None:
        if not isinstance(order, Order):
            raise InvalidKey(f"order must be Order.ID or Order.RECENCY, not {order!r}")
        starts = "" if prefix == "" else check_identifier("prefix", prefix)
        if starts and order is not Order.ID:
            raise Unsupported("a prefix goes with Order.ID only")
        self._tenant = tenant
        self._kind = kind
        self._query = ListQuery(order=order, prefix=starts, label=checked_label(label))

    async def page(self, client: Client, limit: int, cursor: str | None) -> Page[HeadEntry]:
        """At most ``limit`` sessions behind the backend's own ``cursor``."""
        backend = client.backend
        query = msgspec.structs.replace(self._query, limit=limit, cursor=cursor)
        page = await retrying(
            lambda: backend.list(self._tenant, self._kind, query), client.deadline
        )
        starts = query.prefix
        if not page.items or page.items[0].key.id.startswith(starts):  # in order: all do
            return page
        raise _not_of_this_list()

    async def entries(self, client: Client) -> AsyncGenerator[HeadEntry, None]:
        """All sessions, read page by page."""
        cursor: str | None = None
        while True:
            page = await self.page(client, self._query.limit, cursor)
            for entry in page.items:
                yield entry
            cursor = page.cursor
            if cursor is None:
                return

    def token(self, cursor: str | None) -> str | None:
        """A backend's cursor as text for URLs, which belongs to this list and to no other."""
        if cursor is None:
            return None
        behind = cursor.encode()
        return base64.urlsafe_b64encode(self._digest(behind) + behind).decode().rstrip("=")

    def cursor(self, token: object) -> str | None:
        """The backend's cursor that a token holds. Raises ``InvalidKey``."""
        if token is None:
            return None
        try:
            if not isinstance(token, str) or len(token) > MAX_CURSOR_CHARACTERS:
                raise ValueError
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            content = base64.b64decode(padded, altchars=b"-_", validate=True)
            behind = content[DIGEST_BYTES:]
            if content[:DIGEST_BYTES] != self._digest(behind):
                raise ValueError
            return behind.decode()
        except (ValueError, binascii.Error):
            raise _not_of_this_list() from None

    def _digest(self, behind: bytes) -> bytes:
        """Ties a backend's cursor to this list. Backends are given none that was altered, of
        which they may make anything; who forges one with care sees the rest of the list."""
        query = self._query
        content = (
            self._tenant,
            self._kind,
            query.order.value,
            query.prefix,
            query.label,
            behind,
        )
        return blake2b(msgspec.msgpack.encode(content), digest_size=DIGEST_BYTES).digest()


def _not_of_this_list() -> InvalidKey:
    """The error for a cursor that is of another list, or of none."""
    return InvalidKey(
        "this is no cursor of this list: a page goes on from the cursor of the one before, "
        "with the same order, label and prefix"
    )


def checked_label(label: object) -> str | None:
    """A label to narrow a list to, if any. Raises :class:`InvalidKey`."""
    return None if label is None else check_identifier("label", label, MAX_LABEL_BYTES)


def check_limit(limit: object) -> int:
    """The size of a page. Raises :class:`InvalidKey`."""
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE:
        raise InvalidKey(f"limit must be an int from 1 to {MAX_PAGE}, not {limit!r}")
    return limit


async def names(
    client: Client, page_from: Callable[[str | None], Awaitable[Page[str]]]
) -> AsyncGenerator[str, None]:
    """All tenants, or kinds, read page by page."""
    cursor: str | None = None
    while True:
        page = await retrying(partial(page_from, cursor), client.deadline)
        for name in page.items:
            yield name
        cursor = page.cursor
        if cursor is None:
            return
