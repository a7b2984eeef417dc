"""What was sent, as libpq and the event loop leave it to us to know."""

import asyncio
import select
import socket
import struct
import threading
import time

import pytest

from perdure.errors import OutcomeUnknown

from tests.backends.postgres.databases import connected, execute
from tests.backends.postgres.pooler import error, message

LARGE = bytes(3_500_000)
"""More than a network takes at once, but not much more."""

SYNC = message(b"S")


class Stalling(threading.Thread):
    """A server that stops reading in the middle, reads on, and is gone when it has it all.

    It has a thread of its own because the test keeps the event loop busy.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.port = self._listening.getsockname()[1]
        self.notify = threading.Event()
        self.read_on = threading.Event()
        self.drained = threading.Event()
        """All that the network held has been read."""
        self.gone = threading.Event()

    def run(self) -> None:
        client, _ = self._listening.accept()
        with self._listening, client:
            (length,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
            client.recv(length - 4, socket.MSG_WAITALL)
            client.sendall(message(b"R", bytes(4)) + message(b"S", b"server_version\x0018.0\0"))
            client.sendall(message(b"S", b"in_hot_standby\0off\0"))
            client.sendall(message(b"S", b"default_transaction_read_only\0off\0"))
            client.sendall(message(b"Z", b"I"))
            client.recv(1000)  # what line of history it is
            client.sendall(error("0A000", "not supported") + message(b"Z", b"I"))
            self.notify.wait(10)
            client.sendall(message(b"N", b"SNOTICE\0C00000\0Mstill here\0\0"))
            self.read_on.wait(10)
            end = b""
            while not end.endswith(SYNC):
                if not select.select([client], [], [], 0.1)[0]:
                    self.drained.set()
                received = client.recv(1 << 20)
                if not received:
                    break
                end = (end + received)[-len(SYNC) :]
        self.gone.set()


async def test_what_libpq_sends_while_it_reads_counts_as_sent() -> None:
    """The server may have applied it, though nobody has written to the socket but libpq."""
    loop = asyncio.get_running_loop()
    server = Stalling()
    server.start()
    here, there = socket.socketpair()

    def drain() -> None:
        server.read_on.set()
        server.drained.wait(5)

    def lose() -> None:
        here.recv(1)
        server.gone.wait(1)

    def arrange() -> None:
        """In one turn of the loop the network empties, libpq reads, and the server goes."""
        loop.add_reader(here, lose)
        server.notify.set()
        time.sleep(0.05)
        there.send(b"x")
        loop.call_soon(drain)

    url = f"postgresql://me@127.0.0.1:{server.port}/d?sslmode=disable&gssencmode=disable"
    with here, there:
        async with connected(url, pool=1) as database:
            call = asyncio.create_task(execute(database, "SELECT $1::bytea", LARGE))
            await asyncio.sleep(0.2)
            arrange()
            with pytest.raises(OutcomeUnknown):
                await call
        loop.remove_reader(here)
