"""Sharded pub/sub: being woken when something is published for a session.

Messages come over a connection of their own to each server concerned, made when somebody
first listens there and closed when nobody does any more. Were it the one that carries the
calls, the server would hold that to its ``client-output-buffer-limit`` of subscribers and cut
it off while a large reply waits in it.

A wake-up is a hint. It is also given when a subscription was interrupted and holds again,
because something may have been published in between.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Protocol, cast

import hiredis

from perdure.errors import PerdureError, StoreClosed, Unavailable

from perdure_redis.connection import PING, Connection, pack
from perdure_redis.discovery import redirection
from perdure_redis.failures import failure
from perdure_redis.handshake import Dialer
from perdure_redis.once import Once
from perdure_redis.settings import Address

LINGER = 10.0
"""Seconds for which a channel that nobody listens to any more stays subscribed: who waits
again and again for one session subscribes once."""

HOPS = 4
"""To how many servers a subscription is sent on before it fails."""

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds between attempts to restore interrupted subscriptions."""


class Directory(Protocol):
    """Who knows which server a bucket is on."""

    async def owner_of(self, bucket: int) -> Address: ...

    def moved(self, bucket: int, address: Address) -> None: ...


class Channel:
    """A name that somebody here listens to, or did a moment ago."""

    def __init__(self, bucket: int, name: bytes) -> None:
        self.bucket = bucket
        self.name = name
        self.listeners: set[Subscription] = set()
        self.ear: Ear | None = None
        """Where it is subscribed, once the server has confirmed it."""
        self.lingering: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        for listener in list(self.listeners):
            listener.wake()


class Subscription:
    """One listener. ``wake`` is called from the event loop and must not raise."""

    def __init__(
        self, channel: Channel, wake: Callable[[], None], end: "Subscriptions"
    ) -> None:
        self.wake = wake
        self._channel = channel
        self._end = end

    async def aclose(self) -> None:
        """Listen no more. Does no I/O. Idempotent."""
        self._end.leave(self._channel, self)


class Ear:
    """The connection on which one server's messages come in."""

    def __init__(self, dialer: Dialer, address: Address, owner: "Subscriptions") -> None:
        self.connection: Connection | None = None
        self.address = address
        self._dialer = dialer
        self._owner = owner
        self.connect = Once(self._connect)

    async def _connect(self) -> Connection:
        if self.connection is None:
            self.connection, _ = await self._dialer.connect(
                self.address, on_push=self._pushed, on_lost=self._lost
            )
        return self.connection

    def _pushed(self, message: list[object]) -> None:
        kind, name = cast("list[bytes]", message)[:2]
        self._owner.heard(self, kind, name)

    def _lost(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            self._owner.interrupted(self)


class Subscriptions:
    """All channels listened to here. Bound to the event loop of its first call."""

    def __init__(self, dialer: Dialer, directory: Directory) -> None:
        """Does no I/O."""
        self._dialer = dialer
        self._directory = directory
        self._channels: dict[bytes, Channel] = {}
        self._ears: dict[Address, Ear] = {}
        self._restoring: asyncio.Task[None] | None = None
        self._closed = False

    async def subscribe(
        self, bucket: int, name: bytes, wake: Callable[[], None]
    ) -> Subscription:
        """Once this returns, what is published on ``name`` calls ``wake``.

        Raises ``Unavailable``: lasting if this user may not subscribe.
        """
        if self._closed:
            raise StoreClosed("the store was closed")
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(bucket, name)
        if channel.lingering is not None:
            channel.lingering.cancel()
            channel.lingering = None
        subscription = Subscription(channel, wake, self)
        channel.listeners.add(subscription)
        try:
            await self._establish(channel)
        except BaseException:
            self.leave(channel, subscription)
            raise
        return subscription

    def leave(self, channel: Channel, subscription: Subscription) -> None:
        """One listener less."""
        if subscription in channel.listeners:
            channel.listeners.remove(subscription)
            if not channel.listeners and not self._closed:
                loop = asyncio.get_running_loop()
                channel.lingering = loop.call_later(LINGER, self._drop, channel)

    def withdraw(self, address: Address) -> None:
        """A server is not to be listened to any more: the subscriptions move elsewhere."""
        ear = self._ears.get(address)
        if ear is not None and ear.connection is not None:
            ear.connection.abort("the server has been replaced")

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        self._closed = True
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait({self._restoring})
        for channel in self._channels.values():
            if channel.lingering is not None:
                channel.lingering.cancel()
            channel.wake()
        for ear in list(self._ears.values()):
            await ear.connect.cancel()
            if (connection := ear.connection) is not None:
                connection.abort("the store was closed")
                await connection.ended()
        self._ears.clear()
        self._channels.clear()

    # What ears report.

    def heard(self, ear: Ear, kind: bytes, name: bytes) -> None:
        """A push arrived."""
        channel = self._channels.get(name)
        if channel is None:
            return
        match kind:
            case b"smessage":
                channel.wake()
            case b"ssubscribe":
                channel.ear = ear
            case b"sunsubscribe" if channel.ear is ear:  # its slot has moved away
                channel.ear = None
                self._restore()
            case _:
                pass

    def interrupted(self, ear: Ear) -> None:
        """An ear's connection is gone."""
        for channel in self._channels.values():
            if channel.ear is ear:
                channel.ear = None
        self._restore()

    # Inside.

    async def _establish(self, channel: Channel) -> None:
        """Have the server that owns the channel confirm it."""
        for _ in range(HOPS):
            if channel.ear is not None:
                return
            address = await self._directory.owner_of(channel.bucket)
            if self._closed:
                raise StoreClosed("the store was closed")
            ear = self._ears.get(address)
            if ear is None:
                ear = self._ears[address] = Ear(self._dialer, address, self)
            connection = await ear.connect()
            # A push confirms it. A refusal would come as the reply to PING, out of step.
            connection.post(pack((b"SSUBSCRIBE", channel.name)))
            reply = await connection.send(PING)
            if isinstance(reply, hiredis.ReplyError):
                connection.abort("it refused a subscription")
                code, *words = str(reply).split(" ")
                if code != "MOVED":
                    raise failure(reply, address)
                self._directory.moved(channel.bucket, redirection(words, address))
        if channel.ear is None:
            raise Unavailable("redis: a subscription was not confirmed")

    def _drop(self, channel: Channel) -> None:
        channel.lingering = None
        del self._channels[channel.name]
        ear = channel.ear
        if ear is None or ear.connection is None:
            return
        if any(other.ear is ear for other in self._channels.values()):
            ear.connection.post(pack((b"SUNSUBSCRIBE", channel.name)))
        else:
            ear.connection.abort("nobody listens")

    def _restore(self) -> None:
        if (self._restoring is None or self._restoring.done()) and not self._closed:
            self._restoring = asyncio.create_task(self._restore_all())

    async def _restore_all(self) -> None:
        pause = FIRST_PAUSE
        while silent := [c for c in self._channels.values() if c.ear is None and c.listeners]:
            # At once: a server that answers need not wait for one that does not.
            if not all(await asyncio.gather(*map(self._listen_again, silent))):
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _listen_again(self, channel: Channel) -> bool:
        try:
            await self._establish(channel)
        except PerdureError:
            return False
        channel.wake()
        return True
