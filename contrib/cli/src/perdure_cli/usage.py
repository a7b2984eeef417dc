"""``perdure du``: how many bytes and items sessions take."""

import heapq
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

import msgspec

from perdure import Store
from perdure.copying.reading import Changed, Reading
from perdure.encryption import as_stored
from perdure.types import SessionKey
from perdure.workers import for_each

from perdure_cli.output import json_row, line, on_terminal, print_table, progress, row
from perdure_cli.target import DEADLINE, Target
from perdure_cli.text import escape, plural, size
from perdure_cli.walk import walk

AT_ONCE = 8
"""Sessions read at the same time."""

ATTEMPTS = 5
"""How often a session that others change is read at most, until it is counted as far as it was
read."""


class Usage(msgspec.Struct):
    """What some sessions take."""

    sessions: int = 0
    items: int = 0
    bytes: int = 0
    """Of keys and values, as stored."""

    def add(self, items: int, count: int) -> None:
        """One more session."""
        self.sessions += 1
        self.items += items
        self.bytes += count


class Survey:
    """What has been counted so far."""

    def __init__(self, top: int) -> None:
        self.total = Usage()
        self.kinds: dict[tuple[str, str], Usage] = {}
        """By tenant and kind."""
        self._top = top
        self._largest: list[tuple[int, int, SessionKey]] = []
        """A heap of the largest sessions: bytes, items, key."""

    def take(self, key: SessionKey, items: int, count: int) -> None:
        """Count one session."""
        self.total.add(items, count)
        self.kinds.setdefault((key.tenant, key.kind), Usage()).add(items, count)
        heapq.heappush(self._largest, (count, items, key))
        if len(self._largest) > self._top:
            heapq.heappop(self._largest)

    @property
    def largest(self) -> list[tuple[int, int, SessionKey]]:
        """The largest sessions first."""
        return sorted(self._largest, reverse=True)

    @property
    def by_size(self) -> list[tuple[tuple[str, str], Usage]]:
        """Tenants and kinds, the largest first."""
        return sorted(self.kinds.items(), key=lambda pair: (-pair[1].bytes, pair[0]))


def run_du(target: Target, *, as_json: bool, top: int) -> int:
    """Count what sessions take."""
    return target.run(partial(_du, target=target, as_json=as_json, top=top))


async def _du(store: Store, *, target: Target, as_json: bool, top: int) -> int:
    survey = Survey(top)
    with progress("reading", None, "sessions", lambda: size(survey.total.bytes)) as advance:
        await _count(store, target, survey, advance)
    if as_json:
        _as_json(survey)
    elif on_terminal():
        _for_people(survey)
    else:
        _as_rows(survey)
    return 0


async def _count(
    store: Store, target: Target, survey: Survey, advance: Callable[[int], object]
) -> None:
    backend = as_stored(store.backend)

    async def count(key: SessionKey) -> None:
        attempts = 1
        while True:
            reading = Reading(backend, key, DEADLINE)
            try:
                await reading.finish()
                break
            except Changed:
                if attempts == ATTEMPTS:
                    break
                attempts += 1
        if reading.head is not None:
            survey.take(key, reading.count, reading.size)
            advance(1)

    async with aclosing(walk(store, target)) as keys:
        await for_each(keys, count, at_once=AT_ONCE)


def _as_json(survey: Survey) -> None:
    for (tenant, kind), usage in survey.by_size:
        json_row({"of": "kind", "tenant": tenant, "kind": kind} | msgspec.structs.asdict(usage))
    for count, items, key in survey.largest:
        names = {"of": "session", "tenant": key.tenant, "kind": key.kind, "session": key.id}
        json_row(names | {"items": items, "bytes": count})
    json_row({"of": "total"} | msgspec.structs.asdict(survey.total))


def _as_rows(survey: Survey) -> None:
    for (tenant, kind), usage in survey.by_size:
        row("kind", tenant, kind, "-", *_numbers(usage))
    for count, items, key in survey.largest:
        row("session", key.tenant, key.kind, key.id, "1", str(items), str(count))
    row("total", "-", "-", "-", *_numbers(survey.total))


def _numbers(usage: Usage) -> tuple[str, str, str]:
    return str(usage.sessions), str(usage.items), str(usage.bytes)


def _for_people(survey: Survey) -> None:
    total = survey.total
    if not total.sessions:
        line("no sessions")
        return
    print_table(
        ("tenant", "kind", "sessions", "items", "size"),
        [
            (
                escape(tenant),
                escape(kind),
                f"{usage.sessions:,}",
                f"{usage.items:,}",
                size(usage.bytes),
            )
            for (tenant, kind), usage in survey.by_size
        ],
    )
    if survey.largest:
        line()
        print_table(
            ("largest sessions", "tenant", "kind", "items", "size"),
            [
                (
                    escape(key.id),
                    escape(key.tenant),
                    escape(key.kind),
                    f"{items:,}",
                    size(count),
                )
                for count, items, key in survey.largest
            ],
        )
    line()
    line(
        f"{plural(total.sessions, 'session')}, {plural(total.items, 'item')}, "
        f"{size(total.bytes)}"
    )
