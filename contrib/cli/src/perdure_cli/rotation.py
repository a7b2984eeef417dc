"""``perdure rotate``: seal everything with the primary key; ``perdure new-key`` makes one.

The work is :mod:`perdure.encryption.rotation`'s; here it is shown.
"""

from datetime import UTC, datetime
from functools import partial

from perdure import KeyRing, PerdureError, Store
from perdure.encryption.rotation import Rotated, rotate

from perdure_cli.errors import FAILED, CommandError, UsageError
from perdure_cli.output import fail, flush, json_row, line, note, on_terminal, progress, row
from perdure_cli.target import Target
from perdure_cli.text import plural

DEADLINE = 60.0
"""Seconds. Others may write to the same sessions meanwhile."""

AGAIN = "what is sealed stays so; run the command again to go on"


def run_rotate(target: Target, *, as_json: bool) -> int:
    """Seal sessions anew; 1 if any could not be finished. Raises ``CommandError``."""
    if target.kind is not None:
        raise UsageError("rotate takes every kind of session: --kind does not go with it")
    return target.run(partial(_rotate, tenant=target.tenant, as_json=as_json))


async def _rotate(store: Store, *, tenant: str | None, as_json: bool) -> int:
    tally = Tally(as_json=as_json)
    try:
        with progress("sealing", None, "sessions", lambda: f"{tally.sealed} rows") as advance:

            def report(rotated: Rotated) -> None:
                tally.take(rotated)
                advance(1)

            await rotate(
                store,
                tenants=None if tenant is None else (tenant,),
                deadline=DEADLINE,
                report=report,
                advance=tally.more,
            )
    except PerdureError as error:
        if not tally.sessions:
            raise
        raise CommandError(f"{error} ({tally}: {AGAIN})") from error
    note(str(tally))
    if tally.left:
        note(
            "others go on writing with another key, or in plain: give every process the new "
            "keys, then run the command again"
        )
    return FAILED if tally.left or tally.failed else 0


class Tally:
    """What became of the sessions so far; shows each that is not as it was."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._terminal = on_terminal() and not as_json
        self.sessions = self.sealed = self.left = self.failed = 0

    def more(self, rows: int) -> None:
        """So many more rows were sealed."""
        self.sealed += rows

    def take(self, rotated: Rotated) -> None:
        """Count one session, and show it."""
        self.sessions += 1
        self.left += not rotated.done and rotated.reason is None
        self.failed += rotated.reason is not None
        key = rotated.key
        if self._as_json:
            json_row(
                {
                    "session": key.id,
                    "tenant": key.tenant,
                    "kind": key.kind,
                    "items": rotated.items,
                    "sealed": rotated.sealed,
                    "left": rotated.left,
                    "reason": rotated.reason,
                }
            )
            flush()
        elif not self._terminal:
            counts = (rotated.items, rotated.sealed, rotated.left)
            row(key.id, key.tenant, key.kind, *map(str, counts))
            flush()
        if rotated.reason is not None:
            fail(f"{key.id!r} ({key.tenant}, {key.kind}): {rotated.reason}")

    def __str__(self) -> str:
        text = f"{plural(self.sealed, 'row')} sealed, {plural(self.sessions, 'session')} seen"
        if self.left:
            text += f", {self.left} not finished"
        if self.failed:
            text += f", {self.failed} failed"
        return text


def run_new_key(id: str | None) -> int:
    """Print a new key. Raises ``InvalidKeys``."""
    line(KeyRing.generate(id if id is not None else f"{datetime.now(UTC):%Y-%m}"))
    return 0
