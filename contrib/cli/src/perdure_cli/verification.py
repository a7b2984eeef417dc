"""``perdure verify``: read everything, and tell of all that is not as it was written."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import msgspec

from perdure import AttachmentNotFound, Document, Session, Store, Stream
from perdure.encryption.verification import Verified, verify_session
from perdure.errors import Corrupt, FormatTooNew
from perdure.types import SessionKey
from perdure.workers import for_each

from perdure_cli.errors import FAILED
from perdure_cli.output import fail, json_row, note, on_terminal, progress, row
from perdure_cli.sessions import existing, log_pages
from perdure_cli.target import DEADLINE, Target
from perdure_cli.text import plural, size
from perdure_cli.walk import walk

AT_ONCE = 4
"""Sessions read at the same time."""


class Tally(msgspec.Struct):
    """What has been found so far."""

    sessions: int = 0
    damaged: int = 0
    items: int = 0
    bytes: int = 0


def run_verify(target: Target, *, as_json: bool, ids: tuple[str, ...]) -> int:
    """Verify sessions; 1 if anything is wrong."""
    return target.run(partial(_verify, target=target, as_json=as_json, ids=ids))


async def _verify(store: Store, *, target: Target, as_json: bool, ids: tuple[str, ...]) -> int:
    for id in ids:
        await existing(store.session(id))
    tally = Tally()
    in_a_pipe = not (as_json or on_terminal())
    with progress("verifying", None, "sessions", lambda: size(tally.bytes)) as advance:

        async def verify(key: SessionKey) -> None:
            verified = await verify_all(store, key)
            advance(1)
            if verified is None:
                return
            tally.sessions += 1
            tally.items += verified.items
            tally.bytes += verified.size
            tally.damaged += bool(verified.problems)
            if as_json:
                _as_json(verified)
            elif in_a_pipe:
                _as_row(verified)
            for problem in verified.problems:
                fail(f"{key.id!r} ({key.tenant}, {key.kind}): {problem}")

        async with aclosing(_keys(store, target, ids)) as keys:
            await for_each(keys, verify, at_once=AT_ONCE)
    damaged = f"{plural(tally.damaged, 'session')} damaged" if tally.damaged else "all is well"
    note(
        f"{plural(tally.sessions, 'session')}, {plural(tally.items, 'item')}, "
        f"{size(tally.bytes)} read: {damaged}"
    )
    return FAILED if tally.damaged else 0


async def _keys(
    store: Store, target: Target, ids: tuple[str, ...]
) -> AsyncGenerator[SessionKey, None]:
    if ids:
        for id in dict.fromkeys(ids):
            yield store.key(id)
        return
    async for key in walk(store, target):
        yield key


async def verify_all(store: Store, key: SessionKey) -> Verified | None:
    """Read a session row by row, and then the way that its users do, which joins what is in
    several rows and compares digests. ``None`` if there is none."""
    verified = await verify_session(store.backend, key, deadline=DEADLINE)
    if verified is None:
        return None
    session = store.tenant(key.tenant).kind(key.kind).session(key.id)
    problems = list(verified.problems)
    for read in (_lineage, _document, _streams, _attachments):
        found = await read(session)
        problems += [text for text in found if not any(text in known for known in problems)]
    return msgspec.structs.replace(verified, problems=tuple(problems))


async def _problem(work: Awaitable[object]) -> list[str]:
    """What is wrong with what is read, if anything is."""
    try:
        await work
    except (Corrupt, FormatTooNew) as error:
        return [str(error)]
    return []


async def _lineage(session: Session) -> list[str]:
    return await _problem(session.lineage())


async def _document(session: Session) -> list[str]:
    return await _problem(session.read(Document()))


async def _streams(session: Session) -> list[str]:
    async def consume(log: Callable[[], AsyncGenerator[object, None]]) -> None:
        async with aclosing(log()) as pages:
            async for _ in pages:
                pass

    problems: list[str] = []
    logs: list[Session | Stream[Any]] = [session]
    try:
        logs += [session.stream(name) for name in await session.streams()]
    except (Corrupt, FormatTooNew) as error:
        problems.append(str(error))
    for log in logs:
        problems += await _problem(consume(partial(log_pages, log)))
    return problems


async def _attachments(session: Session) -> list[str]:
    async def consume(digest: str) -> None:
        # What is deleted meanwhile need not be whole.
        with suppress(AttachmentNotFound):
            async with aclosing(session.attachments.open(digest)) as pieces:
                async for _ in pieces:
                    pass

    try:
        attachments = await session.attachments.list()
    except (Corrupt, FormatTooNew) as error:
        return [str(error)]
    problems: list[str] = []
    for attachment in attachments:
        problems += await _problem(consume(attachment.digest))
    return problems


def _as_json(verified: Verified) -> None:
    key = verified.key
    json_row(
        {
            "session": key.id,
            "tenant": key.tenant,
            "kind": key.kind,
            "items": verified.items,
            "bytes": verified.size,
            "problems": list(verified.problems),
        }
    )


def _as_row(verified: Verified) -> None:
    key, problems = verified.key, verified.problems
    row(
        key.id,
        key.tenant,
        key.kind,
        "damaged" if problems else "well",
        str(verified.items),
        str(verified.size),
        str(len(problems)),
    )
