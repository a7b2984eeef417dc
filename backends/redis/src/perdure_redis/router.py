"""Which server a session's bucket is on, and calls of scripts there.

``Router.call`` is the hot path: a connection looked up, a command packed, a future awaited.
Whatever else can happen (no connection yet, a forgotten script, a slot that has moved) is
found out from the reply or from the lack of a connection, and dealt with beside it.
"""

import asyncio
import binascii
import random
from collections.abc import Callable, Sequence
from typing import cast

import hiredis
import msgspec

from perdure.errors import PerdureError, StoreClosed, Unavailable

from perdure_redis.connection import Connection, pack
from perdure_redis.discovery import foremost, redirection, slot_owners
from perdure_redis.failures import Lost, code_of, failure
from perdure_redis.handshake import Dialer, Server
from perdure_redis.keys import BUCKETS
from perdure_redis.once import Once
from perdure_redis.scripts import Script
from perdure_redis.sentinel import Watch, find_primary
from perdure_redis.settings import Address, Settings
from perdure_redis.subscriptions import Subscription, Subscriptions

SLOTS = 16384

SLOT_OF_BUCKET = tuple(binascii.crc_hqx(b"%d" % bucket, 0) % SLOTS for bucket in range(BUCKETS))
"""The cluster's slot of the hash tag ``{bucket}``: CRC16 (XMODEM) of it.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

HOPS = 8
"""How many redirections and reloads one call goes through before it is left to the retry."""

LOOK_AGAIN = 2.0
"""Seconds after which a server is asked what it is now. Failing over and back takes longer."""

INFO_REPLICATION = pack((b"INFO", b"replication"))
ASKING, MULTI, EXEC = pack((b"ASKING",)), pack((b"MULTI",)), pack((b"EXEC",))


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What a script returned, and the epoch of the server that ran it."""

    value: object
    epoch: bytes


class Node:
    """One server, and the connection to it while there is one."""

    def __init__(
        self, address: Address, dialer: Dialer, on_lost: Callable[["Node"], None]
    ) -> None:
        self.address = address
        self.server: Server | None = None
        """What it said of itself when last connected to."""
        self.connection: Connection | None = None
        self._dialer = dialer
        self._on_lost = on_lost
        self._dial = Once(self._connect)
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Node {self.address}>"

    @property
    def in_use(self) -> bool:
        """Whether there is a connection, or will be in a moment."""
        return self.connection is not None or self._dial.under_way

    async def connect(self) -> Connection:
        """The connection, made if there is none. Raises ``Unavailable``, ``Unsupported``."""
        if self._closed:
            raise StoreClosed("the store was closed")
        return self.connection or await self._dial()

    async def aclose(self) -> None:
        """Give up connecting, or wait for the replies that are owed and close, for good."""
        self._closed = True
        await self._dial.cancel()
        if self.connection is not None:
            await self.connection.aclose()

    async def _connect(self) -> Connection:
        connection, self.server = await self._dialer.connect(self.address, on_lost=self._lost)
        self.connection = connection
        self._look_again(connection, self.server)
        return connection

    def _look_again(self, connection: Connection, server: Server) -> None:
        """Ask now and then whether it is what it was: a primary may be demoted and promoted
        again, lose commits by that, and keep its clients all the while."""

        def told(reply: asyncio.Future[object]) -> None:
            match reply.result():
                case bytes(facts) if connection.lost is None:
                    if server.is_still_so(facts):
                        self._look_again(connection, server)
                    else:
                        connection.abort("it has been demoted or promoted")
                case _:
                    pass  # it is lost, or does not tell

        def ask() -> None:
            connection.send(INFO_REPLICATION).add_done_callback(told)

        self._looking = asyncio.get_running_loop().call_later(LOOK_AGAIN, ask)

    def _lost(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            if self._looking is not None:
                self._looking.cancel()
            self._on_lost(self)


class Router:
    """One pipelined connection per server, and the way from buckets to them.

    Bound to the event loop of its first call. Raises ``Unavailable`` where nothing was
    applied, ``OutcomeUnknown`` where a write may have been.
    """

    def __init__(self, settings: Settings, scripts: Sequence[Script]) -> None:
        """Does no I/O. ``scripts`` are loaded whenever a server is connected to."""
        self.clustered = False
        """Whether the servers are a cluster; known once connected."""
        self._settings = settings
        self._dialer = Dialer(settings, scripts)
        self._nodes: dict[Address, Node] = {}
        self._owners: list[Node | None] = [None] * BUCKETS
        self._routes: list[Connection | None] = [None] * BUCKETS
        self._discover = Once(self._find)
        self._subscriptions = Subscriptions(Dialer(settings, ()), self)
        self._watch = Watch(self._dialer, settings, self._primary_is)
        self._found = False
        self._closed = False

    async def open(self) -> None:
        """Find the servers and connect to those that own a bucket. Idempotent."""
        for bucket in range(BUCKETS):
            if self._routes[bucket] is None:
                await self._connected(bucket)

    async def call(self, bucket: int, script: Script, key: bytes, *args: bytes) -> Reply:
        """Run a script on the bucket's server, with one key: ``EVALSHA sha 1 key args…``.

        The value is as RESP3 has it: ``bytes``, ``int``, ``None``, ``list`` …
        """
        connection = self._routes[bucket]
        if connection is None or connection.congested:
            connection = await self._connected(bucket)
        value = await connection.send(pack((b"EVALSHA", script.sha, b"1", key, *args)))
        if type(value) is hiredis.ReplyError or type(value) is Lost:
            again = (pack((b"EVALSHA", script.sha, b"1", key, *args)),)
            whole = (pack((b"EVAL", script.source, b"1", key, *args)),)
            return await self._insist(bucket, again, whole, connection, value, script.writes)
        return Reply(value, connection.epoch)

    async def transact(self, bucket: int, *commands: tuple[bytes, ...]) -> Reply:
        """Commands that read, on the bucket's server, all at one moment: MULTI … EXEC.

        The value is the list of their replies. Sent at once, answered in one round trip.
        """
        connection = self._routes[bucket]
        if connection is None or connection.congested:
            connection = await self._connected(bucket)
        packed = (MULTI, *map(pack, commands), EXEC)
        value = await _exchange(connection, packed)
        if isinstance(value, hiredis.ReplyError | Lost):
            return await self._insist(bucket, packed, packed, connection, value, False)
        return Reply(value, connection.epoch)

    async def execute(self, node: Node, *args: bytes) -> object:
        """Any other command, on that node: INFO, CONFIG GET … Error replies are raised."""
        connection = await node.connect()
        await connection.ready()
        value = await connection.send(pack(args))
        if isinstance(value, hiredis.ReplyError | Lost):
            raise failure(value, node.address)
        return value

    def nodes(self) -> tuple[Node, ...]:
        """The servers that own buckets, in the order of the first; none before :meth:`open`."""
        return tuple(dict.fromkeys(node for node in self._owners if node is not None))

    async def subscribe(
        self, bucket: int, channel: bytes, wake: Callable[[], None]
    ) -> Subscription:
        """Have ``wake`` called whenever something is published on a sharded channel.

        Returns once the server has confirmed it. ``wake`` is also called when the
        subscription holds again after an interruption. Raises ``Unavailable``: lasting if
        this user may not subscribe.
        """
        return await self._subscriptions.subscribe(bucket, channel, wake)

    async def aclose(self) -> None:
        """Wait for the replies that are owed, at most ``timeout``, and close. Idempotent."""
        self._closed = True
        self._routes = [None] * BUCKETS
        await self._subscriptions.aclose()
        await self._watch.aclose()
        await self._discover.cancel()
        for node in list(self._nodes.values()):
            await node.aclose()

    # What subscriptions ask.

    async def owner_of(self, bucket: int) -> Address:
        """Where a bucket is. Raises ``Unavailable``."""
        return (await self._owner(bucket)).address

    def moved(self, bucket: int, address: Address) -> None:
        """A server has said where a bucket is now."""
        self._give(bucket, self._node(address))

    # Beside the hot path.

    async def _owner(self, bucket: int) -> Node:
        if self._owners[bucket] is None:
            await self._discover()
        owner = self._owners[bucket]
        if owner is None:
            raise Unavailable("redis: the cluster does not serve all slots at the moment")
        return owner

    async def _connected(self, bucket: int) -> Connection:
        if self._closed:
            raise StoreClosed("the store was closed")
        connection = self._routes[bucket]
        if connection is None:
            owner = await self._owner(bucket)
            try:
                connection = await owner.connect()
            except PerdureError:
                self._forget(owner)
                raise
            if self._owners[bucket] is owner and connection.lost is None:
                self._routes[bucket] = connection
        await connection.ready()
        return connection

    async def _insist(
        self,
        bucket: int,
        commands: tuple[bytes, ...],
        whole: tuple[bytes, ...],
        connection: Connection,
        value: hiredis.ReplyError | Lost,
        writes: bool,
    ) -> Reply:
        """Go where the servers send a call, as long as they say that nothing was run.

        ``whole`` are the commands for a server that has forgotten the script.
        """
        asking = False
        for _ in range(HOPS):
            if isinstance(value, Lost):
                break
            code, *words = str(value).split(" ")
            if code == "NOSCRIPT":
                commands = whole
            elif code == "MOVED":
                asking = False
                self.moved(bucket, redirection(words, connection.address))
                connection = await self._connected(bucket)
            elif code == "ASK":
                asking = True
                connection = await self._node(redirection(words, connection.address)).connect()
                await connection.ready()
            else:
                break
            reply = await _exchange(connection, (ASKING, *commands) if asking else commands)
            if not isinstance(reply, hiredis.ReplyError | Lost):
                return Reply(reply, connection.epoch)
            value = reply
        code = code_of(str(value))
        if code == "READONLY":
            connection.abort("it has become a replica")
        elif code == "CLUSTERDOWN":  # perhaps only to this node, cut off from the others
            self._give(bucket, None)
        raise failure(value, connection.address, writes=writes)

    async def _find(self) -> None:
        """Find out who owns which bucket, from whoever answers first."""
        refusals: list[PerdureError] = []
        for address in await self._candidates():
            node = self._node(address)
            try:
                connection = await node.connect()
                assert node.server is not None
                if node.server.mode == "cluster":
                    self._assign(await self._slots(connection))
                    self.clustered = True
                    return
            except PerdureError as error:
                refusals.append(error)
                continue
            if node.server.primary:
                self._assign({range(SLOTS): node})
                if self._settings.service is not None:
                    self._watch.start()
                return
            await connection.aclose()
            refusals.append(
                Unavailable(
                    f"redis {address} is a read-only replica; name its primary",
                    lasting=not self._found and self._settings.service is None,
                )
            )
        raise foremost(refusals)

    async def _candidates(self) -> list[Address]:
        if self._settings.service is not None:
            return [await find_primary(self._dialer, self._settings)]
        # Whoever is connected is alive and knows more than whoever was named once. Not always
        # the same one: it may be cut off from the others.
        connected = [node.address for node in self._nodes.values() if node.connection]
        random.shuffle(connected)
        return list(dict.fromkeys((*connected, *self._settings.addresses, *self._nodes)))

    def _primary_is(self, address: Address) -> None:
        """Sentinel says so. What others have not answered yet is sent again to this one."""
        for node in list(self._nodes.values()):
            if node.address != address:
                self._subscriptions.withdraw(node.address)
                if node.connection is not None:
                    node.connection.abort("Sentinel has made another the primary")

    async def _slots(self, connection: Connection) -> dict[range, Node]:
        reply = await connection.send(pack((b"CLUSTER", b"SLOTS")))
        if isinstance(reply, hiredis.ReplyError | Lost):
            raise failure(reply, connection.address)
        owners = slot_owners(reply, connection.address)
        return {slots: self._node(address) for slots, address in owners.items()}

    def _assign(self, ranges: dict[range, Node]) -> None:
        self._found = True
        for bucket, slot in enumerate(SLOT_OF_BUCKET):
            owner = next((node for slots, node in ranges.items() if slot in slots), None)
            if owner is not self._owners[bucket]:
                self._give(bucket, owner)
        known = {*self._owners, *(self._nodes.get(a) for a in self._settings.addresses)}
        for node in list(self._nodes.values()):
            if node not in known and not node.in_use:
                del self._nodes[node.address]

    def _give(self, bucket: int, owner: Node | None) -> None:
        self._owners[bucket] = owner
        self._routes[bucket] = None

    def _forget(self, node: Node) -> None:
        """What it owned has to be found out anew."""
        for bucket, owner in enumerate(self._owners):
            if owner is node:
                self._give(bucket, None)

    def _node(self, address: Address) -> Node:
        if self._closed:
            raise StoreClosed("the store was closed")
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self._dialer, self._forget)
        return node


async def _exchange(connection: Connection, commands: tuple[bytes, ...]) -> object:
    """The last command's reply, or the first error reply, be it within that of EXEC."""
    replies = connection.send_all(commands)
    await replies[-1]
    answers = [reply.result() for reply in replies]
    last = answers[-1]
    nested = cast("list[object]", last) if isinstance(last, list) else ()
    errors = (one for one in (*answers, *nested) if isinstance(one, hiredis.ReplyError))
    return next(errors, answers[-1])
