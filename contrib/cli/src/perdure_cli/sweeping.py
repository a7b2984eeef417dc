"""``perdure sweep``: remove what nobody can see or refers to any more."""

from functools import partial

from perdure import Store

from perdure_cli.output import json_row, line, progress
from perdure_cli.target import Target
from perdure_cli.text import plural


def run_sweep(target: Target, *, as_json: bool) -> int:
    """Sweep the store."""
    return target.run(partial(_sweep, as_json=as_json))


async def _sweep(store: Store, *, as_json: bool) -> int:
    with progress("sweeping", None, "removed") as advance:
        removed = await store.sweep(advance=advance)
    if as_json:
        json_row({"removed": removed})
    else:
        line(f"removed {plural(removed, 'thing')}" if removed else "nothing to remove")
    return 0
