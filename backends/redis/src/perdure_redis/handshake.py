"""Opening a connection: socket, TLS, login, and what the server says of itself.

Everything is asked in one write and answered in one round trip, whatever is wrong with it.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import cast

import hiredis
import msgspec

from perdure.errors import PerdureError, Unavailable, Unsupported

from perdure_redis.connection import Connection, pack
from perdure_redis.failures import Lost, code_of, failure
from perdure_redis.scripts import Script
from perdure_redis.settings import Address, Login, Settings

OLDEST = (7, 0)
"""The first Redis with sharded pub/sub and script flags. Every Valkey has them."""

KEEPALIVE = 60
"""Seconds of silence after which the kernel asks whether the other side is still there."""

FAREWELL = 1.0
"""Seconds for which a closing TLS connection waits for the other side's farewell."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself."""

    name: str
    """``redis`` or ``valkey``."""
    version: str
    mode: str
    """``standalone``, ``cluster`` or ``sentinel``."""
    primary: bool
    epoch: bytes
    """The line of history it continues. It changes with a restart and with a promotion, and
    then acknowledged commits may be gone.

    It is the process's ``run_id`` and the ``master_replid``: a primary that was demoted and
    promoted again is the same process, on another line. A server that does not tell them (an
    ACL may forbid INFO) gets a random epoch with each connection, which is never wrong.
    """

    def is_still_so(self, replication: bytes) -> bool:
        """Whether its role and history are the same by what INFO says later."""
        facts = _facts(replication)
        history = facts.get("master_replid", "").encode()
        return (facts.get("role") == "master") is self.primary and self.epoch.endswith(history)


class Dialer:
    """Opens connections as ``settings`` say. Construction does no I/O."""

    def __init__(self, settings: Settings, scripts: Sequence[Script]) -> None:
        self._settings = settings
        self._scripts = scripts
        self._tls: ssl.SSLContext | None = None

    async def connect(
        self,
        address: Address,
        *,
        on_lost: Callable[[Connection], None] | None = None,
        on_push: Callable[[list[object]], None] | None = None,
    ) -> tuple[Connection, Server]:
        """A connection to a server, logged in, its database selected, the scripts loaded.

        Takes ``connect_timeout`` at most. Raises ``Unavailable``, lasting where waiting does
        not help, and ``Unsupported`` for a server that is too old.
        """
        settings = self._settings
        commands = [_hello(settings.login, settings.client_name)]
        commands.append(pack((b"SELECT", str(settings.database).encode())))
        commands += [pack((b"INFO", b"server")), pack((b"INFO", b"replication"))]
        commands += [pack((b"SCRIPT", b"LOAD", script.source)) for script in self._scripts]
        connection, replies = await self._dial(address, commands, on_lost, on_push)
        try:
            server = self._introduction(address, replies)
            if connection.lost is not None:  # it has answered, and gone
                raise failure(connection.lost, address)
        except PerdureError:
            connection.abort("it was refused")
            raise
        connection.epoch = server.epoch
        return connection, server

    async def connect_sentinel(
        self,
        address: Address,
        *,
        on_lost: Callable[[Connection], None] | None = None,
        on_push: Callable[[list[object]], None] | None = None,
    ) -> Connection:
        """A connection to a Sentinel, logged in. Raises ``Unavailable``."""
        hello = _hello(self._settings.sentinel_login, self._settings.client_name)
        connection, (greeting,) = await self._dial(address, [hello], on_lost, on_push)
        try:
            if _text(self._greeting(address, greeting), b"mode") != "sentinel":
                raise Unavailable(f"redis {address} is not a Sentinel", lasting=True)
        except PerdureError:
            connection.abort("it was refused")
            raise
        return connection

    async def _dial(
        self,
        address: Address,
        commands: list[bytes],
        on_lost: Callable[[Connection], None] | None,
        on_push: Callable[[list[object]], None] | None,
    ) -> tuple[Connection, list[object]]:
        seconds = self._settings.connect_timeout
        try:
            async with asyncio.timeout(seconds):
                connection = await self._socket(address, on_lost, on_push)
                try:
                    replies = connection.send_all(commands)
                    return connection, [await reply for reply in replies]
                except asyncio.CancelledError:
                    connection.abort("it took too long")
                    raise
        except TimeoutError:
            raise Unavailable(
                f"redis {address}: no answer within {seconds:g} s{self._other_protocol()}"
            ) from None
        except OSError as error:
            raise _unreachable(error, address) from None
        except UnicodeError as error:  # it cannot be looked up, as `a..b`
            raise Unavailable(
                f"redis {address}: no such host ({error})", lasting=True
            ) from None

    async def _socket(
        self,
        address: Address,
        on_lost: Callable[[Connection], None] | None,
        on_push: Callable[[list[object]], None] | None,
    ) -> Connection:
        loop = asyncio.get_running_loop()
        timeout = self._settings.timeout

        def protocol() -> Connection:
            return Connection(address, timeout, on_push=on_push, on_lost=on_lost)

        if not address.port:
            return (await loop.create_unix_connection(protocol, address.host))[1]
        context = self._context()
        transport, connection = await loop.create_connection(
            protocol,
            address.host,
            address.port,
            ssl=context,
            ssl_shutdown_timeout=FAREWELL if context else None,
        )
        _keep_alive(cast("socket.socket", transport.get_extra_info("socket")))
        return connection

    def _context(self) -> ssl.SSLContext | None:
        tls = self._settings.tls
        if tls is not None and self._tls is None:
            try:
                self._tls = tls.context()
            except OSError as error:
                files = (name for name in (tls.ca_certs, tls.certfile, tls.keyfile) if name)
                raise Unavailable(
                    f"redis: {error.strerror or error}: {', '.join(files)}", lasting=True
                ) from None
        return self._tls

    def _greeting(self, address: Address, hello: object) -> dict[bytes, object]:
        """The answer to HELLO, unless it is a refusal."""
        if isinstance(hello, Lost):
            raise Unavailable(f"redis {address}: {hello.reason}{self._other_protocol()}")
        if isinstance(hello, hiredis.ReplyError):
            if code_of(str(hello)) == "ERR" and "unknown command" in str(hello).lower():
                raise _too_old(address, "older than 6.0")
            raise failure(hello, address)
        if not isinstance(hello, dict):
            raise Unavailable(f"redis {address} does not answer like a Redis", lasting=True)
        return cast("dict[bytes, object]", hello)

    def _introduction(self, address: Address, replies: list[object]) -> Server:
        hello, selected, process, replication, *loaded = replies
        greeting = self._greeting(address, hello)
        version = _text(greeting, b"version")
        mode = _text(greeting, b"mode")
        if mode == "sentinel":
            raise Unavailable(
                f"redis {address} is a Sentinel: write redis+sentinel://host:port/service",
                lasting=True,
            )
        if _release(version) < OLDEST:
            raise _too_old(address, version)
        number = self._settings.database
        if (
            number
            and isinstance(selected, hiredis.ReplyError)
            and code_of(str(selected)) == "ERR"
        ):
            raise Unavailable(
                f"redis {address} has no database {number} ({selected})", lasting=True
            )
        if number and isinstance(selected, hiredis.ReplyError):
            raise failure(selected, address)
        for reply in (process, replication, *loaded):
            # What is forbidden or does not exist here can be done without: the epoch is made
            # up, and a script that is not loaded travels with its first call.
            dispensable = isinstance(reply, hiredis.ReplyError) and (
                code_of(str(reply)) in {"NOPERM", "ERR"}
            )
            if isinstance(reply, Lost | hiredis.ReplyError) and not dispensable:
                raise failure(reply, address)
        facts = _facts(process) | _facts(replication)
        history = (facts.get("run_id", "") + facts.get("master_replid", "")).encode()
        return Server(
            name=_text(greeting, b"server"),
            version=facts.get("valkey_version") or version,
            mode=mode,
            primary=_text(greeting, b"role") == "master",
            epoch=history or os.urandom(16),
        )

    def _other_protocol(self) -> str:
        if self._settings.tls is None:
            return "; does it want TLS (rediss://)?"
        return "; does it speak TLS? Without, it is redis://"


def _hello(login: Login | None, client_name: str) -> bytes:
    command = [b"HELLO", b"3"]
    if login is not None:
        command += [b"AUTH", login.username.encode(), login.password.encode()]
    return pack((*command, b"SETNAME", client_name.encode()))


def _text(facts: dict[bytes, object], name: bytes) -> str:
    value = facts.get(name)
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _facts(reply: object) -> dict[str, str]:
    """The lines of INFO; none if it was forbidden."""
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _too_old(address: Address, version: str) -> Unsupported:
    return Unsupported(
        f"redis {address} is version {version}; perdure needs Redis 7.0 or Valkey 8.0, or newer"
    )


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE // 6)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _unreachable(error: OSError, address: Address) -> Unavailable:
    match error:
        case ssl.SSLCertVerificationError():
            what = f"its certificate was not accepted: {error.verify_message}"
            return Unavailable(f"redis {address}: {what}", lasting=True)
        case ssl.SSLError():
            what = f"TLS failed ({error.reason}); does it speak TLS? Without, it is redis://"
            return Unavailable(f"redis {address}: {what}", lasting=True)
        case ConnectionRefusedError():
            return Unavailable(f"redis {address} refused the connection; is a server running?")
        case socket.gaierror():
            lasting = error.errno == socket.EAI_NONAME
            return Unavailable(f"redis {address}: no such host ({error})", lasting=lasting)
        case _:
            lasting = isinstance(error, FileNotFoundError | PermissionError)
            what = error.strerror or str(error) or "the connection was lost"
            return Unavailable(f"redis {address}: {what}", lasting=lasting)
