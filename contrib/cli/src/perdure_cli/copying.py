"""``perdure copy``: sessions from one store to another, and what became of each.

The work is :mod:`perdure.copying`'s; here it is shown.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

from perdure import PerdureError, Store
from perdure.copying import Copied, Fate, copy_sessions
from perdure.uri import parse

from perdure_cli.errors import FAILED, CommandError, UsageError
from perdure_cli.output import fail, flush, json_row, note, on_terminal, progress, row
from perdure_cli.target import Target
from perdure_cli.text import plural, size

DEADLINE = 60.0
"""Seconds. To make a very large session visible may take a while."""

AGAIN = "what is copied stays; run the command again to go on"


def run_copy(
    source: Target,
    target: Target,
    *,
    as_json: bool,
    tenants: tuple[str, ...],
    kinds: tuple[str, ...],
    prefix: str,
    overwrite: bool,
    verify: bool,
) -> int:
    """Copy sessions; 1 if any could not be. Raises ``CommandError``, ``PerdureError``."""
    for place, named in (("SRC", source), ("DST", target)):
        if named.is_volatile:
            raise UsageError(f"{place} is in this process only, and ends with it")
    assert source.url is not None
    assert target.url is not None
    _refuse_same(parse(source.url), parse(target.url))
    tally = Tally(as_json=as_json)
    copy = partial(
        copy_sessions,
        tenants=tenants or None,
        kinds=kinds or None,
        prefix=prefix,
        overwrite=overwrite,
        verify=verify,
        deadline=DEADLINE,
        report=tally.take,
        advance=tally.transferred,
    )
    try:
        with progress("copying", None, "sessions", lambda: size(tally.bytes)) as advance:
            tally.advance = advance
            asyncio.run(_between(source, target, copy))
    except KeyboardInterrupt:
        note(f"interrupted; {tally}: {AGAIN}")
        raise
    except PerdureError as error:
        if not tally.fates:
            raise
        raise CommandError(f"{error} ({tally}: {AGAIN})") from error
    note(str(tally) if tally.fates else "there is nothing at SRC to copy")
    if tally.fates[Fate.REFUSED]:
        note("what was refused is left as it is; --overwrite replaces it")
    return FAILED if tally.fates[Fate.REFUSED] or tally.fates[Fate.FAILED] else 0


async def _between(
    source: Target, target: Target, copy: Callable[[Store, Store], Awaitable[None]]
) -> None:
    async with source.store() as one, target.store() as other:
        here, there = await one.describe(), await other.describe()
        _refuse_same((here.backend, here.location), (there.backend, there.location))
        await copy(one, other)


def _refuse_same(source: object, target: object) -> None:
    if source == target:
        raise UsageError("SRC and DST are the same store")


class Tally:
    """What became of the sessions so far; shows each as it is done."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._terminal = on_terminal() and not as_json
        self.advance: Callable[[int], object] = int
        """Told of each session that is done."""
        self.fates: Counter[Fate] = Counter()
        self.bytes = 0

    def transferred(self, count: int) -> None:
        """So many more bytes were read."""
        self.bytes += count
        self.advance(0)

    def take(self, copied: Copied) -> None:
        """Count one session, and show it."""
        self.fates[copied.fate] += 1
        self.advance(1)
        key = copied.key
        if self._as_json:
            json_row(
                {
                    "session": key.id,
                    "tenant": key.tenant,
                    "kind": key.kind,
                    "fate": copied.fate.value,
                    "version": copied.version,
                    "items": copied.items,
                    "bytes": copied.size,
                    "digest": None if copied.digest is None else copied.digest.hex(),
                    "reason": copied.reason,
                }
            )
        elif not self._terminal:
            row(
                key.id,
                key.tenant,
                key.kind,
                copied.fate.value,
                "-" if copied.version is None else str(copied.version),
                str(copied.items),
                str(copied.size),
                copied.reason or "-",
            )
        flush()
        if copied.reason is not None:
            fail(f"{copied.fate.value}: {key.id!r} ({key.tenant}, {key.kind}): {copied.reason}")

    def __str__(self) -> str:
        fates = self.fates
        parts = [f"{plural(fates[Fate.COPIED], 'session')} copied"]
        parts += [
            f"{fates[fate]:,} {text}"
            for fate, text in (
                (Fate.REPLACED, "brought up to date"),
                (Fate.PRESENT, "there already"),
                (Fate.ABSENT, "gone meanwhile"),
                (Fate.REFUSED, "refused"),
                (Fate.FAILED, "failed"),
            )
            if fates[fate]
        ]
        return f"{', '.join(parts)}; {size(self.bytes)} read"
