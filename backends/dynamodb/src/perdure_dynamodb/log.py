"""The values that ride in slots: which slots a scan asks for, and the items in them."""

import msgspec

from perdure.types import Item, Scan, append_key

from perdure_dynamodb import keys
from perdure_dynamodb.actions import EXPIRY, SORT, Row
from perdure_dynamodb.parts import MAX_READ_BYTES, Part, Taking
from perdure_dynamodb.rows import (
    HEAD,
    META,
    STRIPPED,
    VALUE,
    Slot,
    optional,
    required,
    slot_of,
)
from perdure_dynamodb.state import State, decode, decode_values
from perdure_dynamodb.table import Found, Table

WHOLE = (SORT, HEAD, VALUE, META, STRIPPED, EXPIRY)

VERSION = 8

MOST = (0xFF << 8 * (VERSION - 1)) - 1
"""No version is larger. Under the prefix of a log there may be items behind all its values: the
store keeps some whose keys go on with FF."""

MOST_AT_ONCE = 1000
"""So many slots are asked for at once by who wants few items and has not found them."""


class Moved(Exception):
    """The session has changed, so that what was read does not belong together."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """The versions from whose values a scan may want some."""

    low: int
    high: int

    @property
    def empty(self) -> bool:
        """Whether it wants none."""
        return self.low > self.high

    def slots(self, state: State) -> tuple[int, int]:
        """The first and last slot that may have values of such versions, up to ``state``'s."""
        restored = state.segment - state.offset  # the version that the segment begins with
        low = self.low + state.offset if self.low >= restored else state.first
        high = self.high + state.offset if self.high >= restored else state.segment - 1
        return max(low, state.low), min(high, state.slot)


NOTHING = Span(1, 0)


class Lead(msgspec.Struct, frozen=True, gc=False):
    """Slots read up to the newest."""

    newest: Slot | None
    """``None``: the newest is not among them."""
    page: Found
    """What was read, in the order of the scan, and behind what to go on."""
    low: int
    """The first slot that was asked for."""
    pages: int


def span_of(prefix: bytes | None, scan: Scan) -> Span:
    """Of which versions a scan wants what was appended under ``prefix``."""
    if prefix is None:
        return NOTHING
    low, high = max(1, scan.since + 1), MOST
    if scan.start.startswith(prefix):
        low = max(low, _number(scan.start[len(prefix) :]))
    elif scan.start > prefix:
        return NOTHING
    if scan.stop is not None and scan.stop.startswith(prefix):
        rest = scan.stop[len(prefix) :]
        high = min(high, _number(rest) if len(rest) > VERSION else _number(rest) - 1)
    elif scan.stop is not None and scan.stop < prefix:
        return NOTHING
    return Span(low, high)


def within(prefix: bytes, scan: Scan) -> bool:
    """Whether all keys of the scan may be those of values appended under ``prefix``."""
    stop = scan.stop
    if stop is None or not scan.start.startswith(prefix):
        return False
    return stop.startswith(prefix) and stop <= keys.values_stop(prefix)


def leads(scan: Scan, span: Span) -> bool:
    """Whether reading what the scan wants comes by the newest slot anyway."""
    if span.high < MOST or span.empty:
        return False
    return scan.reverse or (scan.limit is None and scan.max_bytes is None)


async def lead(
    table: Table, partition: bytes, base: State | None, scan: Scan, span: Span
) -> Lead:
    """Read what a scan that leads wants, and the newest slot with it.

    ``base`` is the state as it was some time ago; ``None``: it is unknown, and every version
    taken to be in the slot of the same number.
    """
    # The newest slot must be in the range even if the scan wants only later ones.
    low = max(1, span.low - 1) if base is None else min(span.slots(base)[0], base.slot)
    first = keys.slot(low)
    if scan.reverse:
        limit = None if scan.limit is None else scan.limit + 1
        page = await table.query(
            partition, first, keys.LAST_SLOT, reverse=True, limit=limit, only=WHOLE
        )
        newest = slot_of(page.rows[0]) if page.rows else None
        return Lead(newest, page, low, 1)
    rows: list[Row] = []
    size = pages = 0
    last: bytes | None = None
    while True:
        page = await table.query(partition, first, keys.LAST_SLOT, only=WHOLE, start_after=last)
        rows += page.rows
        pages += 1
        last = page.last
        size += sum(len(optional(row, VALUE, bytes) or b"") for row in page.rows)
        if last is None or size >= MAX_READ_BYTES:
            break
        if base is None and not size:
            break  # all of it was deleted; the newest slot says where it goes on
    # It is in the last page, unless slots have gone since the page before was read.
    newest = slot_of(page.rows[-1]) if page.rows and last is None else None
    return Lead(newest, Found(rows, last), low, pages)


async def values(
    table: Table, partition: bytes, state: State, scan: Scan, span: Span, lead: Lead | None
) -> Part:
    """The items of a scan that ride in slots, as ``state`` sees them.

    ``state`` was in the newest slot when the first of the slots was read, or later. ``lead``
    is what was read of them already. Raises :class:`Moved`.
    """
    first, last = span.slots(state)
    taking = Taking(scan)
    if first > last:
        return Part([], more=False)
    if lead is not None and lead.low > first:
        raise Moved
    low, high = keys.slot(first), keys.slot(last)
    limit = None if scan.limit is None else scan.limit + 1
    expected = last if scan.reverse else first
    step = -1 if scan.reverse else 1
    page = None if lead is None else lead.page
    while True:
        if page is None:
            page = await table.query(
                partition, low, high, reverse=scan.reverse, limit=limit, only=WHOLE
            )
        for row in page.rows:
            sort = required(row, SORT, bytes)
            if not low <= sort <= high:
                continue
            number = keys.slot_number(sort)
            stripped = optional(row, STRIPPED, int) or 0
            if number != expected or EXPIRY in row or stripped > state.slot:
                raise Moved
            expected += step
            for item in _items(row, number, state, scan):
                if not taking.take(item, number):
                    return Part(taking.items, more=True)
        if page.last is None or not first <= expected <= last:
            break
        if taking.full:
            return Part(taking.items, more=True)
        if limit is not None:  # what was deleted may be long
            limit = max(limit, min(4 * limit, MOST_AT_ONCE))
        page = await table.query(
            partition,
            low,
            high,
            reverse=scan.reverse,
            limit=limit,
            only=WHOLE,
            start_after=page.last,
        )
    if first <= expected <= last:
        raise Moved  # some are gone
    return Part(taking.items, more=False)


def _items(row: Row, number: int, state: State, scan: Scan) -> list[Item]:
    stored = optional(row, VALUE, bytes)
    if stored is None or state.log is None:
        return []
    if number >= state.segment:
        version = number - state.offset
    else:
        version = decode(required(row, HEAD, bytes)).version
    if version <= scan.since:
        return []
    items: list[Item] = []
    for ordinal, value in enumerate(decode_values(stored)):
        if value is None:
            continue
        key = append_key(state.log, version, ordinal)
        if key < scan.start or (scan.stop is not None and key >= scan.stop):
            continue
        if not state.tombs or state.shows(key, number):
            items.append(Item(key, value, version))
    if scan.reverse:
        items.reverse()
    return items


def _number(rest: bytes) -> int:
    return int.from_bytes(rest[:VERSION].ljust(VERSION, b"\0"), "big")
