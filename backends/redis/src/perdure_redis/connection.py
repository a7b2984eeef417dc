"""One connection to one server: a pipeline of requests and their replies, in order.

A driver's connection is lent to one caller at a time; this one is shared. Every request is
written behind those before it and every reply belongs to the oldest request that has none, so
any number of callers wait at once. What is asked within one turn of the event loop goes out as
one write; only what finds nobody else waiting goes at once. A caller that is cancelled leaves
its place in the queue, and the reply is dropped.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import hiredis

from perdure_redis.failures import Lost
from perdure_redis.settings import Address

pack = cast("Callable[[tuple[bytes, ...]], bytes]", hiredis.pack_command)
"""A command as it travels."""

PING = pack((b"PING",))

READ_BUFFER = 256 * 1024
"""Bytes taken from the socket at once, at most."""

WRITE_HIGH_WATER = 1024 * 1024
"""Bytes not yet taken by the kernel at which callers wait before they ask for more."""

FLUSH_AT = 64 * 1024
"""Bytes of requests that are worth a write of their own."""

TICKS = 4
"""How often the watchdog looks within the time that a server may be silent."""

_INCOMPLETE = object()


class Connection(asyncio.BufferedProtocol):
    """The shared pipeline. Used from its event loop only.

    Replies are values: what the server sent (``bytes``, ``int``, ``list`` …), a
    ``hiredis.ReplyError``, or :class:`Lost`. Nothing is raised into a future, so a reply that
    nobody waits for is no warning.
    """

    def __init__(
        self,
        address: Address,
        timeout: float,
        *,
        on_push: Callable[[list[object]], None] | None = None,
        on_lost: Callable[["Connection"], None] | None = None,
    ) -> None:
        """``timeout`` is in seconds: how long the server may owe a reply and send nothing.

        ``on_push`` is given what the server sends unasked, ``on_lost`` the connection once it
        is gone; both must not raise.
        """
        self.address = address
        self.epoch = b""
        """The server's line of history, once it is known."""
        self.lost: Lost | None = None
        """Why it cannot be used any more."""
        self.congested = False
        """Whether the server takes requests more slowly than they come."""
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._on_push = on_push
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._ended = self._loop.create_future()
        # Sending: what is waiting for this turn of the loop to end.
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._batch_replies = 0
        self._written = 0
        self._writable = asyncio.Event()
        self._writable.set()
        # Receiving.
        self._replies: deque[asyncio.Future[object]] = deque()
        self._buffer = bytearray(READ_BUFFER)
        self._view = memoryview(self._buffer)
        reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._feed = cast("Callable[[memoryview, int, int], None]", reader.feed)
        self._gets = cast("Callable[[], object]", reader.gets)
        # The watchdog: one timer that runs while replies are owed.
        self._timer: asyncio.TimerHandle | None = None
        self._received = 0
        self._progress = (0, 0)
        self._silent_ticks = 0

    # What callers do.

    def send(self, command: bytes) -> asyncio.Future[object]:
        """Ask; the future gets the reply. Does not wait: see :meth:`ready`.

        ``command`` is one command, packed.
        """
        reply: asyncio.Future[object] = self._loop.create_future()
        if self.lost is not None:
            reply.set_result(Lost(self.lost.reason, sent=False))
            return reply
        alone = not self._replies  # then there is nobody to travel with
        self._replies.append(reply)
        self._write(command, 1, at_once=alone)
        return reply

    def send_all(self, commands: Sequence[bytes]) -> list[asyncio.Future[object]]:
        """Several at once, with none of anybody else's between them."""
        if self.lost is not None:
            return [self.send(command) for command in commands]
        replies: list[asyncio.Future[object]] = [self._loop.create_future() for _ in commands]
        alone = not self._replies
        self._replies += replies
        self._write(b"".join(commands), len(replies), at_once=alone)
        return replies

    def post(self, command: bytes) -> None:
        """Send a command that is answered by pushes, as the commands of subscribing are."""
        if self.lost is None:
            self._write(command, 0)

    @property
    def unsent_bytes(self) -> int:
        """What the kernel has not taken yet."""
        return self._buffered() + self._batch_bytes

    async def ready(self) -> None:
        """Wait while the connection is congested; no longer than the watchdog suffers it."""
        while self.congested:
            await self._writable.wait()

    def abort(self, reason: str) -> None:
        """Give it up at once; ``reason`` goes into the errors of those who wait."""
        if self.lost is None:
            self._end(reason)
            if self._transport is not None:
                self._transport.abort()

    async def aclose(self) -> None:
        """Wait for the replies that are owed, then close. Idempotent."""
        while self._replies and self.lost is None:
            # Answered last. The futures of callers that were cancelled tell nothing.
            await self.send(PING)
        if self.lost is None:
            self._end("the connection was closed")
            if self._transport is not None:
                self._transport.close()
        await self.ended()

    async def ended(self) -> None:
        """Wait until the socket is closed, after :meth:`abort`."""
        if self._transport is not None:
            await asyncio.shield(self._ended)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        try:
            self._feed(self._view, 0, nbytes)
            while (reply := self._gets()) is not _INCOMPLETE:
                if type(reply) is hiredis.PushNotification:
                    self._pushed(reply)
                elif not (waiting := self._replies.popleft()).done():
                    waiting.set_result(reply)
        except (hiredis.ProtocolError, IndexError):  # IndexError: nothing was asked
            self.abort("it does not speak Redis's protocol")

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.congested = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.congested = False
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the connection was lost" if exc is None else f"the connection broke ({exc})")
        if not self._ended.done():
            self._ended.set_result(None)

    # Inside.

    def _write(self, command: bytes, replies: int, *, at_once: bool = False) -> None:
        self._batch.append(command)
        self._batch_bytes += len(command)
        self._batch_replies += replies
        if at_once or self._batch_bytes >= FLUSH_AT:
            self._flush()
        elif len(self._batch) == 1:
            self._loop.call_soon(self._flush)
        if self._timer is None:
            self._watch()

    def _flush(self) -> None:
        batch = self._batch
        if batch and self._transport is not None:
            self._written += self._batch_bytes
            self._batch = []
            self._batch_bytes = self._batch_replies = 0
            self._transport.write(batch[0] if len(batch) == 1 else b"".join(batch))

    def _buffered(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _pushed(self, message: list[object]) -> None:
        if self._on_push is not None:
            self._on_push(message)

    def _watch(self) -> None:
        self._progress = self._measure()
        self._silent_ticks = 0
        self._timer = self._loop.call_later(self._timeout / TICKS, self._tick)

    def _measure(self) -> tuple[int, int]:
        """Differs from what it was if the server has sent something, or taken something of
        what it is still to take. What the kernel takes at once is no sign of life."""
        buffered = self._buffered()
        return self._received, self._written - buffered if buffered else 0

    def _tick(self) -> None:
        if not self._replies and not self.congested:
            self._timer = None  # nothing is owed
            return
        if self._measure() != self._progress:
            self._watch()
            return
        self._silent_ticks += 1
        if self._silent_ticks >= TICKS:
            self._timer = None
            self.abort(f"it has been silent for {self._timeout:g} s")
        else:
            self._timer = self._loop.call_later(self._timeout / TICKS, self._tick)

    def _end(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = Lost(reason, sent=True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        replies, self._replies = self._replies, deque()
        sent = len(replies) - self._batch_replies
        for position, reply in enumerate(replies):
            if not reply.done():
                reply.set_result(Lost(reason, sent=position < sent))
        self._batch = []
        self._batch_bytes = self._batch_replies = 0
        self.resume_writing()
        if self._on_lost is not None:
            self._on_lost(self)
