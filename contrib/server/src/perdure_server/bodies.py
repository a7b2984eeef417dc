"""Reading the body of a request, no longer and for no longer than is allowed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from perdure.errors import TooLarge
from perdure.protocol.limits import MAX_BODY_BYTES
from perdure.protocol.refusals import Code, Refused

from perdure_server.asgi import Receive, Scope, header_of
from perdure_server.load import Load

SECONDS = 60.0
"""A body must have come by then."""


class Disconnected(Exception):
    """The client has gone: there is nobody to answer."""


@asynccontextmanager
async def body_of(
    scope: Scope, receive: Receive, load: Load, *, proven: bool
) -> AsyncGenerator[bytes]:
    """The body, counted as held by ``load`` in the meantime.

    ``proven``: whether it is known already that who sends it has a key.

    Raises ``TooLarge`` and ``Refused``, as early as the size is known; :class:`Disconnected`.
    """
    declared = header_of(scope, b"content-length") or "0"
    if not declared.isdigit() or int(declared[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    held = 0
    try:
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    part: bytes = message.get("body", b"")
                    if held + len(part) > MAX_BODY_BYTES:
                        raise _too_large()
                    load.hold(len(part), proven=proven)
                    held += len(part)
                    parts.append(part)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(Code.INVALID, f"the body took longer than {SECONDS:g} s") from None
        yield parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        load.release(held)


def _too_large() -> TooLarge:
    return TooLarge(f"the body is longer than {MAX_BODY_BYTES} bytes")
