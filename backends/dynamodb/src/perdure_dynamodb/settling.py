"""Rows that do not show a commit yet whose slot shows.

DynamoDB isolates a transaction from single reads, not from several: between the moment at which
one shows in the first of its rows and that at which it shows in the last, readers may find some
as they were before (AWS, "DynamoDB Transactions: How it works", on isolation levels). So each
slot names the rows that its commit changes, and for some seconds readers look whether they did.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from perdure.types import Item, Scan, SessionKey

from perdure_dynamodb import keys
from perdure_dynamodb.actions import SORT, Row
from perdure_dynamodb.chain import SETTLING_MS, Chain
from perdure_dynamodb.items import Items
from perdure_dynamodb.parts import Found, Part, Taking
from perdure_dynamodb.rows import HEAD, TOUCHES, Slot, item_of, slot_of
from perdure_dynamodb.state import Kind, State

AT_ONCE = 4
MOST = 64
"""So many slots are looked at, the newest first: earlier ones are done by then."""

TRIES = 5

MOST_KEYS = 90
"""A transaction reads 100 rows."""


class Settling:
    """Looks after what was changed lately."""

    def __init__(self, chain: Chain, items: Items) -> None:
        self._chain = chain
        self._table = chain.table
        self._items = items

    async def shown(
        self, key: SessionKey, state: State, scans: Sequence[Scan], parts: Sequence[Part | None]
    ) -> bool:
        """Whether ``parts`` show all commits up to ``state``, which was read after them."""
        if self._chain.settled(key, state):
            return True
        slots = await self._lately(key, state)
        tombs = {tomb for slot in slots for tomb in slot.state.tombs}
        state = replace(state, tombs=tuple(tombs | {*state.tombs}))
        for slot in slots:
            for stage in slot.touches.stages:
                if not await self._items.adopted(keys.session(key), state.incarnation, stage):
                    return False
        changed: dict[bytes, tuple[Slot, bool]] = {}  # by whom last, and whether written
        for slot in slots:
            changed |= dict.fromkeys(slot.touches.removed, (slot, False))
            changed |= dict.fromkeys(slot.touches.written, (slot, True))
        for scan, part in zip(scans, parts, strict=True):
            if part is None:
                continue
            slot_of_key = {item.key: number for item, number in part.items}
            for item, (slot, written) in changed.items():
                if not _reached(scan, part, item) or slot.state.version <= scan.since:
                    continue
                found = slot_of_key.get(item, 0)
                hidden = not state.shows(item, slot.state.slot)
                if found < slot.state.slot and (found or (written and not hidden)):
                    return False
        return True

    async def _lately(self, key: SessionKey, state: State) -> list[Slot]:
        """The slots of what may not show yet, in order."""
        found: list[Slot] = []
        since = self._table.now() - SETTLING_MS
        high = state.touched
        limit = AT_ONCE
        while high >= state.first and len(found) < MOST:
            page = await self._table.query(
                keys.session(key),
                keys.slot(state.first),
                keys.slot(high),
                reverse=True,
                limit=limit,
                only=(SORT, HEAD, TOUCHES),
            )
            for row in page.rows:
                slot = slot_of(row)
                if slot.state.made_at < since:
                    return found[::-1]
                found.append(slot)
            if page.last is None:
                break
            high = keys.slot_number(page.last) - 1
            limit = MOST
        return found[::-1]

    async def caught_up(
        self,
        key: SessionKey,
        base: State,
        newest: State,
        scans: Sequence[Scan],
        parts: Sequence[Part | None],
    ) -> tuple[Slot, list[Part | None]] | None:
        """``parts`` as they are at the newest slot, which is handed back with them.

        They were read when ``base`` was known, and since then, up to ``newest`` at least,
        others have changed some rows: these are read again, and at one instant with the slots
        to come. ``None`` where that does not help.
        """
        partition = keys.session(key)
        page = await self._table.query(
            partition,
            keys.slot(base.slot + 1),
            keys.slot(newest.slot),
            limit=MOST,
            only=(SORT, HEAD, TOUCHES),
        )
        slots = [slot_of(row) for row in page.rows]
        changed: set[bytes] = set()
        for _ in range(TRIES):
            if page.last is not None or not slots or not _alike(slots, base):
                return None
            changed |= {
                item for slot in slots for item in _touched(slot) if _asked(scans, item)
            }
            if len(changed) > MOST_KEYS:
                return None
            order = sorted(changed)
            number = slots[-1].state.slot
            got = await self._table.get_together(
                [
                    *((partition, keys.item(base.incarnation, item)) for item in order),
                    *((partition, keys.slot(number + ahead)) for ahead in range(AT_ONCE)),
                ]
            )
            slots = [slot_of(row) for row in got[len(order) :] if row is not None]
            if len(slots) < AT_ONCE and all(
                item in changed or not _asked(scans, item)
                for slot in slots
                for item in _touched(slot)
            ):
                if not slots or not _alike(slots, base):
                    return None
                now = slots[-1]
                items = [_item(row, now.state) for row in got[: len(order)]]
                renewed = [
                    part and _renewed(scan, part, dict(zip(order, items, strict=True)))
                    for scan, part in zip(scans, parts, strict=True)
                ]
                return now, renewed
        return None


def _alike(slots: Sequence[Slot], base: State) -> bool:
    """Whether nothing but the rows that these slots name is otherwise than in ``base``."""
    return all(
        not slot.touches.stages
        and slot.state.kind is Kind.COMMIT
        and slot.state.first == base.first
        and slot.state.tombs == base.tombs
        and (slot.state.log, slot.state.log_rows) == (base.log, base.log_rows)
        for slot in slots
    )


def _touched(slot: Slot) -> tuple[bytes, ...]:
    return slot.touches.written + slot.touches.removed


def _asked(scans: Sequence[Scan], key: bytes) -> bool:
    return any(scan.start <= key and (scan.stop is None or key < scan.stop) for scan in scans)


def _item(row: Row | None, state: State) -> Found | None:
    """What a row shows that is not staged; a key that others changed lately has no other."""
    if row is None:
        return None
    found = item_of(row)
    if found.value is None or not state.shows(found.key, found.slot):
        return None
    return Item(found.key, found.value, found.version), found.slot


def _renewed(scan: Scan, part: Part, changed: dict[bytes, Found | None]) -> Part:
    """A part with the items that were read again. It may hold none although there are more."""
    found = {item.key: (item, slot) for item, slot in part.items}
    for key, now in changed.items():
        if _reached(scan, part, key):
            found.pop(key, None)
            if now is not None and now[0].version > scan.since:
                found[key] = now
    taking = Taking(scan)
    more = part.more
    for key in sorted(found, reverse=scan.reverse):
        if not taking.take(*found[key]):
            more = True
            break
    return Part(taking.items, more)


def _reached(scan: Scan, part: Part, key: bytes) -> bool:
    """Whether the part of a scan that was read would hold this key."""
    if key < scan.start or (scan.stop is not None and key >= scan.stop):
        return False
    if not part.more:
        return True
    last = part.items[-1][0].key
    return key >= last if scan.reverse else key <= last
