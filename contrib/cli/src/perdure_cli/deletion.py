"""``perdure rm``: delete sessions by their ids, or all of a tenant or with a label."""

import sys
from functools import partial

from perdure import Store

from perdure_cli.errors import FAILED, UsageError
from perdure_cli.output import fail, json_row, line, note, progress
from perdure_cli.target import DEFAULT_TENANT, Target
from perdure_cli.text import escape, plural


def run_rm(
    target: Target,
    *,
    as_json: bool,
    ids: tuple[str, ...],
    label: str | None,
    forks: bool,
    yes: bool,
) -> int:
    """Delete sessions. Raises ``UsageError`` unless it is clear which."""
    if ids:
        if label is not None:
            raise UsageError("give ids or --label, not both")
        what = escape(ids[0]) if len(ids) == 1 else plural(len(ids), "session")
        work = partial(_delete, as_json=as_json, ids=ids, forks=forks)
    else:
        if label is None and target.tenant is None:
            raise UsageError(
                "name sessions by their ids, or all of them by --tenant or --label"
            )
        if target.kind is not None or forks:
            raise UsageError(
                "--tenant and --label take every kind: --kind and --forks go with ids"
            )
        tenant = DEFAULT_TENANT if target.tenant is None else target.tenant
        which = "" if label is None else f" that are labelled {escape(label)}"
        what = f"all sessions of the tenant {escape(tenant)}{which}, of every kind,"
        work = partial(_erase, tenant=tenant, as_json=as_json, label=label)
    if not yes and not _confirmed(what):
        note("nothing was deleted")
        return FAILED
    return target.run(work)


def _confirmed(what: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("rm deletes for good: without a terminal to ask on, give --yes")
    import click

    try:
        return click.confirm(f"Delete {what} for good?", err=True)
    except click.Abort:
        note("")  # the cursor stands behind the question
        raise


async def _delete(store: Store, *, as_json: bool, ids: tuple[str, ...], forks: bool) -> int:
    code = 0
    for id in dict.fromkeys(ids):
        deleted = await store.delete(id, forks=forks)
        if as_json:
            json_row({"session": id, "deleted": deleted})
        elif deleted:
            line(f"deleted {escape(id)}{' with its forks' if forks else ''}")
        if not deleted:
            fail(f"there is no session {id!r}")
            code = FAILED
    return code


async def _erase(store: Store, *, tenant: str, as_json: bool, label: str | None) -> int:
    with progress("deleting", None, "sessions") as advance:
        count = await store.tenant(tenant).erase(label=label, advance=advance)
    if as_json:
        json_row({"tenant": tenant, "label": label, "deleted": count})
    else:
        line(f"deleted {plural(count, 'session')} of {escape(tenant)}")
    return 0
