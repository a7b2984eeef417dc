"""What was true: every version of every session, as it was when it was made."""

from collections import defaultdict
from typing import Any

import msgspec

from perdure import Document, Position
from perdure.backend import Backend
from perdure.codec import Codec
from perdure.layout import CELL, CELL_STOP, DOCUMENT, DOCUMENT_STOP, LOG, rows_stop
from perdure.position import position_of
from perdure.request import View
from perdure.types import Commit, Committed, Head, Item, Scan, SessionKey

from tests.core.noting import Noting

CODEC = Codec()

Placed = list[tuple[Position, Any]]
"""Entries of a log with their positions. Every entry is ``[number, padding]``, and no two that
are appended have the same number."""


class State(msgspec.Struct, frozen=True):
    """What a session held at one version."""

    log: Placed
    cells: dict[str, Any]
    document: Any


class Truth(Noting):
    """Notes what every version of every session holds, read in the commit that made it."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.states: dict[tuple[str, bytes, int], State] = {}
        self.versions: defaultdict[tuple[str, bytes], list[int]] = defaultdict(list)
        self.places: defaultdict[int, set[tuple[SessionKey, bytes, Position]]] = defaultdict(
            set
        )
        self.positions: defaultdict[str, list[Position]] = defaultdict(list)
        """All that a session's entries ever had, forks' apart."""

    async def noted(self, key: SessionKey, commit: Commit) -> Committed:
        whole = msgspec.structs.replace(commit, returning=(*commit.returning, Scan()))
        made = await self.made(key, whole)
        assert made.head is not None or made.replayed
        if not made.replayed and made.head is not None:
            rows = made.rows[-1]
            assert not rows.more
            self._note(key, made.head, {item.key: item for item in rows.items})
        return msgspec.structs.replace(made, rows=made.rows[:-1])

    def _note(self, key: SessionKey, head: Head, items: dict[bytes, Item]) -> None:
        rows = [item for item in items.values() if LOG <= item.key < rows_stop(LOG)]
        log: Placed = []
        for item, values in zip(rows, CODEC.unpack(key, rows), strict=True):
            first, _ = CODEC.row_span(item.value)
            for index, value in enumerate(values):
                log.append((position_of(item.key, first + index), value))
        cells = {
            item.key[len(CELL) :].decode(): CODEC.open(key, item)
            for item in items.values()
            if CELL <= item.key < CELL_STOP
        }
        parts = [item for item in items.values() if DOCUMENT <= item.key < DOCUMENT_STOP]
        document = Document().answer(parts, View(key, head, 0, CODEC))
        self.states[key.id, head.incarnation, head.version] = State(
            log, cells, None if document is None else document.value
        )
        self.versions[key.id, head.incarnation].append(head.version)
        known = self.positions[key.id]
        for position, (number, _) in log:
            place = (key, head.incarnation, position)
            if place not in self.places[number]:
                self.places[number].add(place)
                known.append(position)
