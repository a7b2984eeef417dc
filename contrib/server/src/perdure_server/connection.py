"""HTTP connections that nobody can hold open, or feed, for ever.

uvicorn bounds neither the size of a request's head nor the time that it takes to come, nor
what is sent after the answer has been given. Bodies are bounded by
:mod:`perdure_server.bodies`, the time between two requests by uvicorn.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from perdure.protocol.limits import MAX_BODY_BYTES

MAX_HEAD_BYTES = 64 << 10

SECONDS = 30.0
"""From the connection, or its first byte, to the end of a head; and from an answer to the end
of a request that was answered before it had come."""


class Connection(HttpToolsProtocol):
    """uvicorn's, with these limits."""

    _reading_head = True
    _reading_body = False
    _idle_bytes = 0
    """Bytes that came since the timer was set."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._clear_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading_head = True

    def on_headers_complete(self) -> None:
        self._reading_head, self._reading_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._reading_body:
            self._set_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # it is a WebSocket now
            self._clear_timer()
            return
        answered = self._reading_body and self.cycle.response_complete
        if not self._reading_head and not answered:
            self._clear_timer()
            return
        if self._timer is None:
            self._set_timer()
        self._idle_bytes += len(data)
        if self._idle_bytes > (MAX_BODY_BYTES if answered else MAX_HEAD_BYTES):
            self.transport.abort()

    def _set_timer(self) -> None:
        self._clear_timer()
        self._idle_bytes = 0
        self._timer = self.loop.call_later(SECONDS, self.transport.abort)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
