"""Waiting for a session to change: one WebSocket, one message."""

import asyncio

from perdure.backend import Backend
from perdure.errors import PerdureError
from perdure.protocol.answers import encode_head
from perdure.protocol.refusals import Code, code_of
from perdure.protocol.requests import Position
from perdure.types import Head, SessionKey

from perdure_server.asgi import Receive, Send
from perdure_server.defects import defect

NORMAL = 1000
FAILED = 1011
TRY_AGAIN_LATER = 1013
"""Codes of https://www.iana.org/assignments/websocket/websocket.xhtml"""


async def wait(
    backend: Backend,
    key: SessionKey,
    after: Position | None,
    milliseconds: int,
    receive: Receive,
    send: Send,
) -> None:
    """Send the head once it differs from ``after``, or after the time, and close.

    The handshake is done. Ends early, and silently, if the client goes.
    """
    head = after.head() if after is not None else None
    waiting = asyncio.ensure_future(backend.wait(key, after=head, timeout=milliseconds / 1000))
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done() and not leaving.done():
            await _tell(waiting, send)
    finally:
        for task in (waiting, leaving):
            task.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)


async def _tell(waiting: asyncio.Future[Head | None], send: Send) -> None:
    try:
        head = waiting.result()
    except PerdureError as error:
        overloaded = code_of(error) is Code.OVERLOADED
        code = TRY_AGAIN_LATER if overloaded else FAILED
    except Exception as error:  # noqa: BLE001 - a defect must not show, nor stop the server
        defect(error)
        code = FAILED
    else:
        await send({"type": "websocket.send", "bytes": encode_head(head)})
        code = NORMAL
    await send({"type": "websocket.close", "code": code})


async def _left(receive: Receive) -> None:
    """Return once the client has gone. What it sends has no meaning."""
    while (await receive())["type"] != "websocket.disconnect":
        pass
