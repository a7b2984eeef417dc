"""What a request asks for, done by the backend that is served."""

from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from perdure.backend import Backend, Capabilities
from perdure.protocol import answers, requests
from perdure.protocol.auth import Key
from perdure.protocol.messages import Malformed
from perdure.protocol.paths import Operation, Route
from perdure.protocol.refusals import Code, Refused
from perdure.types import Page

from perdure_server import __version__
from perdure_server.clock import now_ms
from perdure_server.limits import MAX_PAGE, MAX_SWEEP, bounded, check_commit, check_parts

SOFTWARE = f"perdure-server {__version__}"


def check_allowed(key: Key, route: Route) -> None:
    """Raise ``Refused`` if the key is not for what it is used for."""
    anyone = route.operation in (Operation.HELLO, Operation.TENANTS)
    if not anyone and not key.allows(route.tenant):
        raise Refused(Code.FORBIDDEN, "this key is not for that tenant, or not for all of them")


async def perform(
    backend: Backend, limits: Capabilities, key: Key, route: Route, body: bytes
) -> bytes:
    """Do it, and encode the answer. Raises ``PerdureError``."""
    match route.operation:
        case Operation.READ:
            reads = bounded(requests.decode_read(body), limits)
            return answers.encode_snapshot(await backend.read(route.key, *reads))
        case Operation.COMMIT:
            commit = requests.decode_commit(body)
            check_commit(commit, limits)
            if commit.returning:
                returning = bounded(commit.returning, limits)
                commit = msgspec.structs.replace(commit, returning=returning)
            return answers.encode_committed(await backend.commit(route.key, commit))
        case Operation.STAGE:
            stage = requests.decode_stage(body)
            check_parts(stage.puts, limits)
            await backend.stage(route.key, stage.incarnation, stage.stage, stage.puts)
            return answers.encode_staged()
        case Operation.DELETE:
            asked = requests.decode_delete(body)
            return answers.encode_deleted(
                await backend.delete(
                    route.key, id=asked.id, expect=asked.expect, incarnation=asked.incarnation
                )
            )
        case Operation.SWEEP:
            limit = min(requests.decode_sweep(body), MAX_SWEEP)
            return answers.encode_count(await backend.sweep(limit=limit))
        case Operation.HELLO:
            return answers.encode_hello(
                software=SOFTWARE,
                now=now_ms(),
                capabilities=limits,
                description=await backend.describe(),
            )
        case Operation.WAIT:
            raise Refused(Code.INVALID, "wait is a WebSocket")
        case Operation.LIST | Operation.KINDS | Operation.TENANTS:
            return await _listing(backend, key, route, body)


async def _listing(backend: Backend, key: Key, route: Route, body: bytes) -> bytes:
    if route.operation is Operation.LIST:
        query = requests.decode_list(body)
        query = msgspec.structs.replace(query, limit=min(query.limit, MAX_PAGE))
        tenant, kind = route.scope
        with _reading(query.cursor):
            return answers.encode_page(await backend.list(tenant, kind, query))
    asked = requests.decode_names(body)
    limit = min(asked.limit, MAX_PAGE)
    with _reading(asked.cursor):
        if route.operation is Operation.KINDS:
            (tenant,) = route.scope
            page = await backend.kinds(tenant, cursor=asked.cursor, limit=limit)
        elif key.tenants is None:
            page = await backend.tenants(cursor=asked.cursor, limit=limit)
        else:
            page = await _own_tenants(backend, key.tenants, asked.cursor, limit)
    return answers.encode_names(page)


@contextmanager
def _reading(cursor: str | None) -> Generator[None]:
    """What a cursor that the backend did not make does to it is undefined: it may raise
    anything of this."""
    try:
        yield
    except (ValueError, LookupError, TypeError, msgspec.MsgspecError):
        if cursor is None:
            raise
        raise Malformed("the cursor is not one of this list") from None


async def _own_tenants(
    backend: Backend, tenants: frozenset[str], cursor: str | None, limit: int
) -> Page[str]:
    """Those of a key's tenants that have, or lately had, a session."""
    behind = (cursor or "").encode()
    rest = sorted((t for t in tenants if t.encode() > behind), key=str.encode)[: limit + 1]
    there = [t for t in rest[:limit] if (await backend.kinds(t, limit=1)).items]
    return Page(tuple(there), rest[limit - 1] if len(rest) > limit else None)
