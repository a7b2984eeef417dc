"""Under Sentinel: who is the primary, and being told when it is another.

https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import asyncio
import random
from collections.abc import Callable
from typing import cast

import hiredis

from perdure.errors import PerdureError, Unavailable

from perdure_redis.connection import Connection, pack
from perdure_redis.discovery import foremost
from perdure_redis.failures import Lost, failure
from perdure_redis.handshake import Dialer
from perdure_redis.settings import Address, Settings

LONGEST_PAUSE = 2.0
"""Seconds, at most, until another Sentinel is listened to in place of one that is gone."""

SUBSCRIBE = pack((b"SUBSCRIBE", b"+switch-master"))


async def find_primary(dialer: Dialer, settings: Settings) -> Address:
    """The primary of the service, from the first Sentinel that answers.

    Raises ``Unavailable``.
    """
    refusals: list[PerdureError] = []
    for sentinel in settings.addresses:
        try:
            connection = await dialer.connect_sentinel(sentinel)
            try:
                return await _ask(connection, settings)
            finally:
                connection.abort("it was asked")
        except PerdureError as error:
            refusals.append(error)
    raise foremost(refusals)


async def _ask(connection: Connection, settings: Settings) -> Address:
    service = settings.service or ""
    reply = await connection.send(
        pack((b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.encode()))
    )
    if isinstance(reply, Lost | hiredis.ReplyError):
        raise failure(reply, connection.address)
    if not isinstance(reply, list):
        raise Unavailable(
            f"redis {connection.address}: this Sentinel watches no service {service!r}",
            lasting=True,
        )
    host, port = cast("list[bytes]", reply)
    return Address(host.decode(), int(port))


class Watch:
    """Listens to a Sentinel, whichever answers, for another primary.

    Sentinel cuts the clients of the old one off only many seconds after it has promoted the
    new one, if the old one is alive (``SENTINEL FAILOVER``, a partition that heals). All that
    it acknowledges in between is lost.
    """

    def __init__(
        self, dialer: Dialer, settings: Settings, found: Callable[[Address], None]
    ) -> None:
        """``found`` is told of the primary; often it is still the same. Does no I/O."""
        self._dialer = dialer
        self._settings = settings
        self._found = found
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen from now on. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            for sentinel in random.sample(
                self._settings.addresses, len(self._settings.addresses)
            ):
                try:
                    await self._listen(sentinel)
                except PerdureError:
                    continue  # another one may do
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE))

    async def _listen(self, sentinel: Address) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()
        connection = await self._dialer.connect_sentinel(
            sentinel, on_push=self._pushed, on_lost=lambda _: lost.set()
        )
        try:
            connection.post(SUBSCRIBE)  # before asking, so that nothing falls between
            self._found(await _ask(connection, self._settings))
            await lost.wait()
        finally:
            connection.abort("nobody listens")

    def _pushed(self, message: list[object]) -> None:
        if message[0] == b"message":
            service, _, _, host, port = cast("bytes", message[2]).decode().split(" ")
            if service == self._settings.service:
                self._found(Address(host, int(port)))
