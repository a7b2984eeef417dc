"""Exact accounting of a race: what writers were told, against what is there in the end.

Every writer notes its operations as :class:`Operation`; :func:`violations` then compares the
notes with the items found afterwards and names everything that does not add up.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from perdure.types import Head, Item


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One append of one value, as its writer saw it. Values must differ."""

    writer: str
    number: int
    """Counts this writer's operations; each began after the one before had returned."""
    value: bytes
    version: int | None
    """What the acknowledgement said; ``None``: none came, the outcome is unknown."""
    refused: bool = False
    """The backend said that it was not applied."""
    invoked: float = 0.0
    returned: float = 0.0
    """By one clock for all writers (``time.monotonic`` is one within a host), or both 0."""


def violations(
    operations: Iterable[Operation], items: Sequence[Item], head: Head | None
) -> list[str]:
    """Every way in which a session contradicts its history; empty if there is none.

    ``items`` are all that the operations may have written, in key order; every version of
    the session from 1 on must be one of the operations. Checked: acknowledged values are
    there once, at the version acknowledged; refused and foreign ones are not there; no
    version was given to two; none is missing up to the head's; each writer's operations, and
    any two that did not overlap in time, have versions in their order; keys order as versions.
    """
    operations = list(operations)
    found: list[str] = []
    found += _values(operations, items)
    found += _versions(operations, items, head)
    found += _order(operations, items)
    return found


def _values(operations: list[Operation], items: Sequence[Item]) -> list[str]:
    found: list[str] = []
    places: defaultdict[bytes, list[Item]] = defaultdict(list)
    for item in items:
        places[item.value].append(item)
    for operation in operations:
        there = places.pop(operation.value, [])
        name = f"{operation.value!r} of writer {operation.writer}"
        if len(there) > 1:
            found.append(f"doubled: {name} is there {len(there)} times")
        if operation.refused:
            if there:
                found.append(f"refused, yet there: {name}")
        elif operation.version is not None:
            if not there:
                found.append(f"lost: {name}, acknowledged at version {operation.version}")
            elif all(item.version != operation.version for item in there):
                found.append(
                    f"moved: {name} is stamped {there[0].version}, "
                    f"acknowledged at {operation.version}"
                )
    found += [f"foreign: {value!r} was written by nobody" for value in places]
    return found


def _versions(
    operations: list[Operation], items: Sequence[Item], head: Head | None
) -> list[str]:
    found: list[str] = []
    given = Counter(o.version for o in operations if o.version is not None)
    for version, times in given.items():
        if times > 1:
            found.append(f"version {version} was acknowledged {times} times")
    top = head.version if head is not None else 0
    used = set(given) | {item.version for item in items}
    missing = [version for version in range(1, top + 1) if version not in used]
    if missing:
        found.append(f"gap: nobody made the versions {missing}")
    beyond = sorted(version for version in used if not 1 <= version <= top)
    if beyond:
        found.append(f"the head is at version {top}, but there are {beyond}")
    return found


def _order(operations: list[Operation], items: Sequence[Item]) -> list[str]:
    found: list[str] = []
    for earlier, later in pairwise(items):
        if earlier.key >= later.key:
            found.append(f"out of order: key {later.key!r} comes after {earlier.key!r}")
        elif earlier.version > later.version:
            found.append(
                f"out of order: version {later.version} sorts behind {earlier.version}"
            )
    stamps = {item.value: item.version for item in items}
    # An operation of unknown outcome whose value is there was applied at that version.
    settled = [
        (operation, version)
        for operation in operations
        if (version := operation.version or stamps.get(operation.value)) is not None
    ]
    last: dict[str, tuple[int, int]] = {}
    for operation, version in sorted(settled, key=lambda pair: pair[0].number):
        number, before = last.get(operation.writer, (-1, 0))
        if version <= before:
            found.append(
                f"reordered: writer {operation.writer}'s operation {operation.number} has "
                f"version {version}, its operation {number} had {before}"
            )
        last[operation.writer] = operation.number, version
    latest = 0.0
    for operation, version in sorted(settled, key=lambda pair: pair[1]):
        if operation.version is not None and operation.returned < latest:
            found.append(
                f"not linearizable: version {version} was acknowledged before an operation "
                "with an earlier version began"
            )
        latest = max(latest, operation.invoked)
    return found
