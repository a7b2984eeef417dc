"""``perdure show`` and ``tail``: what a session holds."""

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from perdure import (
    START,
    Attachment,
    Cells,
    Document,
    Entry,
    Session,
    Store,
    Stream,
    Versioned,
)
from perdure.types import Head, SessionKey

from perdure_cli.output import (
    console,
    flush,
    json_row,
    line,
    note,
    on_terminal,
    print_facts,
    row,
)
from perdure_cli.sessions import existing, lineage_facts, log_pages
from perdure_cli.target import Target
from perdure_cli.text import ago, escape, moment, readable, size, speaker_and_text
from perdure_cli.transcripts.exchange import head_facts
from perdure_cli.values import dumps, json_line, to_json

if TYPE_CHECKING:
    from rich.console import Console

AnyLog = Session | Stream[Any]

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


class Overview(msgspec.Struct, frozen=True):
    """A session apart from its entries."""

    head: Head
    lineage: dict[str, object] | None
    document: Versioned[Any] | None
    cells: dict[str, Any]
    streams: list[str]
    attachments: list[Attachment]


# show


def run_show(
    target: Target,
    *,
    as_json: bool,
    id: str,
    last: int | None,
    stream: str | None,
    full: bool,
) -> int:
    """Show one session."""
    return target.run(
        partial(_show, as_json=as_json, id=id, last=last, stream=stream, full=full)
    )


async def _show(
    store: Store,
    *,
    as_json: bool,
    id: str,
    last: int | None,
    stream: str | None,
    full: bool,
) -> int:
    session = store.session(id)
    log = session if stream is None else session.stream(stream)
    head = await existing(session)
    lineage = lineage_facts(await session.lineage())
    cells, document = await session.read(Cells(), Document())
    streams, attachments = await session.streams(), await session.attachments.list()
    overview = Overview(head, lineage, document, cells, streams, attachments)
    if as_json:
        await _show_json(session.key, log, overview, last)
    elif on_terminal():
        await _show_terminal(session.key, log, overview, last, full=full)
    else:
        await _show_plain(log, overview, last)
    return 0


async def _show_plain(log: AnyLog, overview: Overview, last: int | None) -> None:
    facts = head_facts(overview.head)
    if overview.lineage is not None:
        facts["lineage"] = overview.lineage
    for name, value in facts.items():
        line(f"head\t{name}\t{value if isinstance(value, str) else json_line(value)}")
    if overview.document is not None:
        line(f"document\t{dumps(overview.document.value)}")
    async for position, value in log_pages(log, last):
        line(f"entry\t{position}\t{dumps(value)}")
    for name, value in overview.cells.items():
        line(f"cell\t{escape(name)}\t{dumps(value)}")
    for name in overview.streams:
        row("stream", name)
    for attachment in overview.attachments:
        media_type = attachment.media_type or "-"
        row("attachment", attachment.digest, str(attachment.size), media_type)


async def _show_json(
    key: SessionKey, log: AnyLog, overview: Overview, last: int | None
) -> None:
    document = overview.document
    facts = {
        "session": key.id,
        "kind": key.kind,
        "tenant": key.tenant,
        "head": head_facts(overview.head),
        "lineage": overview.lineage,
        "document": None if document is None else to_json(document.value),
        "cells": {name: to_json(value) for name, value in overview.cells.items()},
        "streams": overview.streams,
        "attachments": [
            {
                "digest": attachment.digest,
                "size": attachment.size,
                "media_type": attachment.media_type,
                "uploaded_at": moment(attachment.uploaded_at),
            }
            for attachment in overview.attachments
        ],
    }
    # The log may be long: it is the last member, and written as it is read.
    write = sys.stdout.write
    write(json_line(facts)[:-1] + ',"entries":[')
    separator = ""
    async for position, value in log_pages(log, last):
        write(separator + json_line({"position": position, "value": to_json(value)}))
        separator = ","
    write("]}\n")


async def _show_terminal(
    key: SessionKey, log: AnyLog, overview: Overview, last: int | None, *, full: bool
) -> None:
    screen, head = console(), overview.head
    now = time.time_ns() // 1_000_000
    screen.print(escape(key.id), style="bold cyan", soft_wrap=True)
    facts = [
        ("tenant, kind", f"{escape(key.tenant)}, {escape(key.kind)}"),
        ("version", f"{head.version:,}"),
        ("created", moment(head.created_at)),
        ("updated", f"{moment(head.updated_at)} ({ago(head.updated_at, now)})"),
    ]
    if head.expires_at is not None:
        facts.append(("expires", moment(head.expires_at)))
    if head.labels:
        facts.append(("labels", escape(", ".join(head.labels))))
    if head.meta:
        facts.append(("meta", dumps(head.meta)))
    if overview.lineage is not None:
        facts.append(("forked from", escape(str(overview.lineage["session"]))))
    print_facts(facts)
    limit = None if full else CLIPPED
    if overview.document is not None:
        _heading(screen, "document")
        screen.print(readable(_shortened(dumps(overview.document.value), limit)))
    title = f"stream {escape(log.name)}" if isinstance(log, Stream) else "log"
    _heading(screen, title if last is None else f"{title}, last {last}")
    count = 0
    async for _, value in log_pages(log, last):
        count += 1
        print_entry(screen, value, full=full)
    if not count:
        screen.print("(no entries)", style="dim")
    if overview.cells:
        _heading(screen, "cells")
        print_facts(
            (escape(name), _shortened(dumps(value), limit))
            for name, value in overview.cells.items()
        )
    if overview.streams:
        _heading(screen, "streams")
        for name in overview.streams:
            screen.print(escape(name))
    if overview.attachments:
        _heading(screen, "attachments")
        print_facts(
            (attachment.digest, f"{size(attachment.size)} {attachment.media_type or ''}")
            for attachment in overview.attachments
        )


def _heading(screen: "Console", title: str) -> None:
    screen.print()
    screen.rule(title, align="left", style="dim")


def _shortened(text: str, limit: int | None) -> str:
    """``text``, or its beginning and how much more there is."""
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def print_entry(screen: "Console", value: object, *, full: bool) -> None:
    """One entry of a log on the terminal: who speaks, and what it says."""
    from rich.padding import Padding
    from rich.text import Text

    speaker, text = speaker_and_text(value)
    colour = _COLOURS.get(speaker.lower(), "cyan")
    text = _shortened(text, None if full else CLIPPED)
    screen.print(Text(escape(speaker) or "·", style=f"bold {colour}"))
    screen.print(Padding(Text(readable(text)), (0, 0, 0, 2), expand=False))


# tail


def run_tail(
    target: Target, *, as_json: bool, id: str, last: int, stream: str | None, follow: bool
) -> int:
    """Show the end of a log and perhaps follow it."""
    return target.run(
        partial(_tail, as_json=as_json, id=id, last=last, stream=stream, follow=follow)
    )


async def _tail(
    store: Store, *, as_json: bool, id: str, last: int, stream: str | None, follow: bool
) -> int:
    session = store.session(id)
    log = session if stream is None else session.stream(stream)
    if not follow:
        await existing(session)
    elif await session.head() is None:
        note(f"perdure: there is no session {id!r} yet; waiting for it")
    end = await log.entries(last=max(last, 1))  # one, to know where to go on from
    entries = [Entry(p, v) for p, v in zip(end.positions, end, strict=True)]
    for entry in entries[len(entries) - last :] if last else []:
        _print_tail(entry, as_json=as_json)
    flush()
    if follow:
        async for entry in log.watch(after=entries[-1].position if entries else START):
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
