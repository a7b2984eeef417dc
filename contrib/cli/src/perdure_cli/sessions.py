"""``perdure ls``, and what other commands read sessions with."""

import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from perdure import START, HeadEntry, Lineage, Order, Position, Session, Store, Stream
from perdure.types import Head

from perdure_cli.errors import CommandError, UsageError
from perdure_cli.output import json_row, line, on_terminal, print_table, row
from perdure_cli.target import Target
from perdure_cli.text import ago, escape, moment, plural
from perdure_cli.transcripts.exchange import head_facts

PAGE = 500
"""Entries read at a time."""


async def existing(session: Session) -> Head:
    """The head of a session that must exist. Raises ``CommandError``."""
    head = await session.head()
    if head is None:
        key = session.key
        raise CommandError(
            f"there is no session {key.id!r} (tenant {key.tenant!r}, kind {key.kind!r})"
        )
    return head


def lineage_facts(lineage: Lineage | None) -> dict[str, object] | None:
    """Where a session was forked from, for people and scripts."""
    if lineage is None:
        return None
    parent = lineage.parent
    return {
        "tenant": parent.tenant,
        "kind": parent.kind,
        "session": parent.id,
        "incarnation": lineage.incarnation.hex(),
        "position": lineage.position,
    }


async def log_pages(
    session: Session | Stream[Any], last: int | None = None
) -> AsyncGenerator[tuple[Position, object], None]:
    """The log, or a stream, oldest first, in bounded memory; with ``last``, only its end."""
    after = START
    if last is not None:
        end = await session.entries(last=last)
        for position, value in zip(end.positions, end, strict=True):
            yield position, value
        return
    while True:
        page = await session.entries(after=after, limit=PAGE)
        for position, value in zip(page.positions, page, strict=True):
            after = position
            yield position, value
        if len(page) < PAGE:
            return


# ls


def run_ls(
    target: Target,
    *,
    as_json: bool,
    prefix: str,
    label: str | None,
    recent: bool,
    limit: int | None,
    tenants: bool,
) -> int:
    """List sessions, or tenants."""
    if recent and prefix:
        raise UsageError("--prefix goes with the order by id, not with --recent")
    if tenants:
        return target.run(partial(_tenants, as_json=as_json))
    order = Order.RECENCY if recent else Order.ID
    return target.run(
        partial(_ls, as_json=as_json, prefix=prefix, label=label, order=order, limit=limit)
    )


async def _tenants(store: Store, *, as_json: bool) -> int:
    async for tenant in store.tenants():
        if as_json:
            json_row({"tenant": tenant})
        else:
            row(tenant)
    return 0


async def _ls(
    store: Store,
    *,
    as_json: bool,
    prefix: str,
    label: str | None,
    order: Order,
    limit: int | None,
) -> int:
    terminal = on_terminal() and not as_json
    shown: list[HeadEntry] = []
    count = 0
    if limit == 0:
        return 0
    async for entry in store.list(prefix=prefix, label=label, order=order):
        count += 1
        if as_json:
            key = entry.key
            names = {"session": key.id, "kind": key.kind, "tenant": key.tenant}
            json_row(names | head_facts(entry.head))
        elif terminal:
            shown.append(entry)
        else:
            row(entry.key.id, *_head_columns(entry.head))
        if count == limit:
            break
        if len(shown) == PAGE:
            _print_heads(shown)
            shown.clear()
    if terminal:
        if shown:
            _print_heads(shown)
        scope = _scope(store)
        line(f"{plural(count, 'session')} ({scope})" if count else f"no sessions ({scope})")
    return 0


def _scope(store: Store) -> str:
    key = store.key("-")
    return f"tenant {escape(key.tenant)}, kind {escape(key.kind)}"


def _head_columns(head: Head) -> tuple[str, ...]:
    expires = moment(head.expires_at) if head.expires_at is not None else "-"
    labels = ",".join(head.labels) or "-"
    return str(head.version), moment(head.created_at), moment(head.updated_at), expires, labels


def _print_heads(entries: list[HeadEntry]) -> None:
    now = time.time_ns() // 1_000_000
    print_table(
        ("id", "version", "created", "updated", "expires", "labels"),
        [
            (
                escape(entry.key.id),
                str(entry.head.version),
                moment(entry.head.created_at)[:16].replace("T", " "),
                ago(entry.head.updated_at, now),
                moment(entry.head.expires_at)[:16].replace("T", " ")
                if entry.head.expires_at is not None
                else "",
                escape(", ".join(entry.head.labels)),
            )
            for entry in entries
        ],
    )
