"""Where the servers are and how to talk to them, from a store URL.

Names follow redis-py's, where it has them, so that a URL in use needs little change.

======================= ====================================================================
``redis://``            a server, or any node of a cluster: what it is, it says itself
``rediss://``           the same over TLS
``valkey://``           as ``redis://``; ``valkeys://`` as ``rediss://``
``redis+sentinel://``   a Sentinel: ``redis+sentinel://host:26379/mymaster/0``
``rediss+sentinel://``  the same, Sentinels and servers both over TLS
``redis+unix://``       a socket: ``redis+unix:///run/redis.sock?db=0``
======================= ====================================================================
"""

import ssl
from typing import NamedTuple

import msgspec

from perdure.errors import InvalidURL
from perdure.uri import URL

OPTIONS = (
    "db",
    "hosts",
    "timeout",
    "connect_timeout",
    "client_name",
    "sentinel_username",
    "sentinel_password",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
"""Options of the URL that are read here. The README says what they mean."""

SERVER_PORT = 6379
SENTINEL_PORT = 26379

_TLS_OPTIONS = tuple(name for name in OPTIONS if name.startswith("ssl_"))
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_SWITCH = {"true": True, "false": False}


class Address(NamedTuple):
    """Where one server listens. Port 0: ``host`` is the path of a unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Login(msgspec.Struct, frozen=True):
    """A user and a password. ``repr`` shows neither."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(***)"


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How a server proves itself, and we to it."""

    ca_certs: str | None = None
    """File of the authorities to trust instead of the system's."""
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Reads the files. Raises ``OSError``, of which ``ssl.SSLError`` is one."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        context.check_hostname = self.verify and self.check_hostname
        if not self.verify:
            context.verify_mode = ssl.CERT_NONE
        if self.certfile is not None:
            context.load_cert_chain(self.certfile, self.keyfile)
        return context


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to connect. ``repr`` shows no secret."""

    addresses: tuple[Address, ...]
    """Tried in this order: servers, nodes of a cluster, or Sentinels."""
    login: Login | None = None
    database: int = 0
    service: str | None = None
    """Under this name Sentinels know the primary. ``None``: there are none."""
    sentinel_login: Login | None = None
    tls: Tls | None = None
    timeout: float = 5.0
    """Seconds without a byte from a server that owes a reply: it is given up."""
    connect_timeout: float = 5.0
    """Seconds for connecting, TLS and login together."""
    client_name: str = "perdure"


def settings_from(url: URL) -> Settings:
    """What the URL asks for. Ignores options other than ``OPTIONS``. Raises ``InvalidURL``."""
    options = {name: url.query[name] for name in OPTIONS if name in url.query}
    secure = url.scheme.startswith(("rediss", "valkeys"))
    service: str | None = None
    if url.scheme.endswith("+sentinel"):
        service, _, database = url.path.partition("/")
        if not service:
            raise InvalidURL(
                f"{url.scheme}:// needs the name of the service that the Sentinels watch: "
                f"{url.scheme}://host:26379/mymaster"
            )
        addresses = _addresses(url, options, SENTINEL_PORT)
    elif url.scheme.endswith("+unix"):
        if url.host is not None or url.port is not None or not url.path or "hosts" in options:
            raise InvalidURL(
                f"{url.scheme}:// names a socket, not a host: {url.scheme}:///run/redis.sock"
            )
        database = ""
        addresses = (Address("/" + url.path.lstrip("/"), 0),)
    else:
        database = url.path
        addresses = _addresses(url, options, SERVER_PORT)
    _refuse(url, options, () if secure else _TLS_OPTIONS, "is for TLS (rediss://) only")
    _refuse(url, options, () if service else _SENTINEL_OPTIONS, "is for Sentinels only")
    return Settings(
        addresses=addresses,
        login=_login(url.username, url.password),
        database=_database(url, database, options.get("db")),
        service=service,
        sentinel_login=_login(
            options.get("sentinel_username"), options.get("sentinel_password")
        ),
        tls=_tls(url, options) if secure else None,
        timeout=_seconds(url, options, "timeout"),
        connect_timeout=_seconds(url, options, "connect_timeout"),
        client_name=_client_name(url, options.get("client_name", "perdure")),
    )


def _refuse(url: URL, options: dict[str, str], names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if name in options:
            raise InvalidURL(f"{url.scheme}:// option {name} {reason}")


def _addresses(url: URL, options: dict[str, str], port: int) -> tuple[Address, ...]:
    named = Address(url.host or "localhost", url.port or port)
    others = options["hosts"].split(",") if "hosts" in options else ()
    return (named, *(_address(url, text, port) for text in others))


def _address(url: URL, text: str, port: int) -> Address:
    host, colon, digits = text.strip().rpartition(":")
    if not colon or text.endswith("]"):
        host, digits = text.strip(), str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        raise InvalidURL(f"{url.scheme}:// option hosts is host:port,host:port,…")
    return Address(host, int(digits))


def _login(username: str | None, password: str | None) -> Login | None:
    if username is None and password is None:
        return None
    return Login(username or "default", password or "")


def _database(url: URL, path: str, option: str | None) -> int:
    if path and option is not None:
        raise InvalidURL(f"{url.scheme}:// names the database twice, in the path and as db")
    text = path or option or "0"
    if not (text.isascii() and text.isdigit()):
        raise InvalidURL(f"{url.scheme}://: the database is a number, as in redis://host/0")
    return int(text)


def _tls(url: URL, options: dict[str, str]) -> Tls:
    # Celery's documentation has CERT_NONE, redis-py's none; both have True.
    requirement = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if requirement not in ("required", "none"):
        raise InvalidURL(f"{url.scheme}:// option ssl_cert_reqs is 'required' or 'none'")
    check = options.get("ssl_check_hostname", "true").lower()
    if check not in _SWITCH:
        raise InvalidURL(f"{url.scheme}:// option ssl_check_hostname is 'true' or 'false'")
    certfile = options.get("ssl_certfile")
    if certfile is None and "ssl_keyfile" in options:
        raise InvalidURL(f"{url.scheme}:// option ssl_keyfile needs ssl_certfile")
    return Tls(
        ca_certs=options.get("ssl_ca_certs"),
        certfile=certfile,
        keyfile=options.get("ssl_keyfile"),
        verify=requirement == "required",
        check_hostname=_SWITCH[check],
    )


def _seconds(url: URL, options: dict[str, str], name: str) -> float:
    try:
        seconds = float(options.get(name, "5"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidURL(f"{url.scheme}:// option {name} is a number of seconds above 0")
    return seconds


def _client_name(url: URL, name: str) -> str:
    if not name or not all("!" <= character <= "~" for character in name):
        raise InvalidURL(f"{url.scheme}:// option client_name is printable ASCII, no spaces")
    return name
