"""``perdure ls``, ``show``, ``tail`` and ``rm``: sessions one by one."""

import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

from perdure import (
    START,
    Entry,
    HeadEntry,
    Lineage,
    Order,
    Position,
    Session,
    Store,
)
from perdure.types import Head

from perdure_cli.errors import FAILED, CommandError, UsageError
from perdure_cli.output import (
    console,
    fail,
    flush,
    json_row,
    line,
    on_terminal,
    print_table,
    row,
)
from perdure_cli.target import Target
from perdure_cli.text import ago, clip, escape, moment, plural, readable, speaker_and_text
from perdure_cli.transcripts.exchange import head_facts
from perdure_cli.values import dumps, json_line, to_json

if TYPE_CHECKING:
    from rich.console import Console

PAGE = 500
"""Entries read at a time."""

CLIPPED = 600
"""Characters of an entry shown on a terminal, unless --full."""

_COLOURS = {
    "user": "green",
    "human": "green",
    "assistant": "blue",
    "ai": "blue",
    "tool": "yellow",
    "system": "magenta",
}


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
    session: Session, last: int | None = None
) -> AsyncIterator[tuple[Position, object]]:
    """The log, oldest first, in bounded memory; with ``last``, only its end."""
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
    for tenant in await store.tenants():
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


# show


def run_show(target: Target, *, as_json: bool, id: str, last: int | None, full: bool) -> int:
    """Show one session."""
    return target.run(partial(_show, as_json=as_json, id=id, last=last, full=full))


async def _show(store: Store, *, as_json: bool, id: str, last: int | None, full: bool) -> int:
    session = store.session(id)
    head = await existing(session)
    lineage = lineage_facts(await session.lineage())
    document = await store.load(id)
    if as_json:
        await _show_json(session, head, lineage, document, last)
    elif on_terminal():
        await _show_terminal(session, head, lineage, document, last, full=full)
    else:
        for name, value in head_facts(head).items():
            row("head", name, value if isinstance(value, str) else json_line(value))
        if lineage is not None:
            row("head", "lineage", json_line(lineage))
        if document is not None:
            line(f"document\t{dumps(document)}")
        async for position, value in log_pages(session, last):
            line(f"entry\t{position}\t{dumps(value)}")
        for key, value in (await session.cells.scan()).items():
            line(f"cell\t{escape(key)}\t{dumps(value)}")
    return 0


async def _show_json(
    session: Session,
    head: Head,
    lineage: dict[str, object] | None,
    document: object,
    last: int | None,
) -> None:
    key = session.key
    cells = await session.cells.scan()
    facts = {
        "session": key.id,
        "kind": key.kind,
        "tenant": key.tenant,
        "head": head_facts(head),
        "lineage": lineage,
        "document": to_json(document),
        "cells": {name: to_json(value) for name, value in cells.items()},
    }
    # The log may be long: it is the last member, and written as it is read.
    write = sys.stdout.write
    write(json_line(facts)[:-1] + ',"entries":[')
    separator = ""
    async for position, value in log_pages(session, last):
        write(separator + json_line({"position": position, "value": to_json(value)}))
        separator = ","
    write("]}\n")


async def _show_terminal(
    session: Session,
    head: Head,
    lineage: dict[str, object] | None,
    document: object,
    last: int | None,
    *,
    full: bool,
) -> None:
    screen = console()
    now = time.time_ns() // 1_000_000
    screen.print(escape(session.key.id), style="bold cyan", soft_wrap=True)
    facts = [
        ("tenant, kind", f"{escape(session.key.tenant)}, {escape(session.key.kind)}"),
        ("version", str(head.version)),
        ("created", moment(head.created_at)),
        ("updated", f"{moment(head.updated_at)} ({ago(head.updated_at, now)})"),
    ]
    if head.expires_at is not None:
        facts.append(("expires", moment(head.expires_at)))
    if head.labels:
        facts.append(("labels", escape(", ".join(head.labels))))
    if lineage is not None:
        facts.append(("forked from", escape(str(lineage["session"]))))
    for name, value in facts:
        _fact(screen, name, value)
    if document is not None:
        _heading(screen, "document")
        text = dumps(document)
        screen.print(readable(text if full else clip(text, CLIPPED)))
    _heading(screen, "log" if last is None else f"log, last {last}")
    count = 0
    async for _, value in log_pages(session, last):
        count += 1
        print_entry(screen, value, full=full)
    if not count:
        screen.print("(no entries)", style="dim")
    cells = await session.cells.scan()
    if cells:
        _heading(screen, "cells")
        for name, value in cells.items():
            text = dumps(value)
            _fact(screen, escape(name), text if full else clip(text, CLIPPED))


def _heading(screen: "Console", title: str) -> None:
    screen.print()
    screen.rule(title, align="left", style="dim")


def _fact(screen: "Console", name: str, value: str) -> None:
    from rich.text import Text

    screen.print(Text.assemble((f"{name:<14}", "dim"), readable(value)), soft_wrap=True)


def print_entry(screen: "Console", value: object, *, full: bool) -> None:
    """One entry of a log on the terminal: who speaks, and what it says."""
    from rich.padding import Padding
    from rich.text import Text

    speaker, text = speaker_and_text(value)
    colour = _COLOURS.get(speaker.lower(), "cyan")
    if not full and len(text) > CLIPPED:
        text = f"{text[:CLIPPED]}… ({len(text) - CLIPPED:,} more characters)"
    screen.print(Text(escape(speaker) or "·", style=f"bold {colour}"))
    screen.print(Padding(Text(readable(text)), (0, 0, 0, 2)))


# tail


def run_tail(target: Target, *, as_json: bool, id: str, last: int, follow: bool) -> int:
    """Show the end of a log and perhaps follow it."""
    return target.run(partial(_tail, as_json=as_json, id=id, last=last, follow=follow))


async def _tail(store: Store, *, as_json: bool, id: str, last: int, follow: bool) -> int:
    session = store.session(id)
    if not follow:
        await existing(session)
    end = await session.entries(last=max(last, 1))  # one, to know where to go on from
    entries = [Entry(p, v) for p, v in zip(end.positions, end, strict=True)]
    for entry in entries[len(entries) - last :] if last else []:
        _print_tail(entry, as_json=as_json)
    flush()
    if follow:
        async for entry in session.watch(after=entries[-1].position if entries else START):
            _print_tail(entry, as_json=as_json)
            flush()
    return 0


def _print_tail(entry: Entry, *, as_json: bool) -> None:
    if as_json:
        json_row({"position": entry.position, "value": to_json(entry.value)})
    elif on_terminal():
        print_entry(console(), entry.value, full=False)
    else:
        line(f"{entry.position}\t{dumps(entry.value)}")


# rm


def run_rm(target: Target, *, as_json: bool, ids: tuple[str, ...], yes: bool) -> int:
    """Delete sessions."""
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("rm deletes for good: without a terminal to ask on, give --yes")
        import click

        named = escape(ids[0]) if len(ids) == 1 else plural(len(ids), "session")
        click.confirm(f"Delete {named} for good?", abort=True, err=True)
    return target.run(partial(_rm, as_json=as_json, ids=ids))


async def _rm(store: Store, *, as_json: bool, ids: tuple[str, ...]) -> int:
    code = 0
    for id in dict.fromkeys(ids):
        deleted = await store.delete(id)
        if as_json:
            json_row({"session": id, "deleted": deleted})
        elif deleted:
            line(f"deleted {escape(id)}")
        if not deleted:
            fail(f"there is no session {id!r}")
            code = FAILED
    return code
