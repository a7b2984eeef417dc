"""Where the server is and how to talk to it, from a store URL.

============= ==========================================================================
``https://``  a Worker, or a server that speaks the same protocol: ``https://id:secret@host``
``http://``   the same without TLS, on this machine (elsewhere: ``insecure=true``)
============= ==========================================================================

A path in the URL is what the server puts before ``/v1``.
"""

import os
import ssl
from ipaddress import ip_address

import msgspec

from perdure.errors import InvalidURL
from perdure.protocol.auth import InvalidKeys, Key, Mode
from perdure.uri import URL

KEY_VARIABLE = "PERDURE_HTTP_KEY"
"""Of the environment: ``id:secret``, for URLs that have no key."""

OPTIONS = (
    "auth",
    "timeout",
    "connect_timeout",
    "connections",
    "insecure",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
)
"""Of the URL. The README says what they mean."""

_SWITCH = {"true": True, "false": False}


class Tls(msgspec.Struct, frozen=True):
    """How the server proves itself, and we to it. It always has to."""

    ca_certs: str | None = None
    """File of the authorities to trust instead of the system's."""
    certfile: str | None = None
    keyfile: str | None = None

    def context(self) -> ssl.SSLContext:
        """Reads the files. Raises ``OSError``, of which ``ssl.SSLError`` is one."""
        context = ssl.create_default_context(cafile=self.ca_certs)
        if self.certfile is not None:
            context.load_cert_chain(self.certfile, self.keyfile)
        return context


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to connect. ``repr`` shows no secret."""

    origin: str
    """``https://host:port``, and the path before ``/v1`` if there is one; no secret."""
    key: Key
    tls: Tls | None = None
    timeout: float = 10.0
    """Seconds without a byte from the server while it owes an answer, or without a free
    connection."""
    connect_timeout: float = 5.0
    """Seconds for connecting and TLS together."""
    connections: int = 100
    """Most connections at once, those of waiting not counted."""


def settings_from(url: URL) -> Settings:
    """What the URL and the environment ask for. Raises ``InvalidURL``."""
    options = url.options(OPTIONS)
    host = url.host
    if host is None:
        raise InvalidURL(f"{url.scheme}:// needs a host: {url.scheme}://worker.example.org")
    try:
        ascii_host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise InvalidURL(f"{url.scheme}:// names a host that cannot be one") from None
    insecure = options.get("insecure", "false")
    if insecure not in _SWITCH:
        raise InvalidURL(f"{url.scheme}:// option insecure is 'true' or 'false'")
    if url.scheme == "http":
        for name in options:
            if name.startswith("ssl_"):
                raise InvalidURL(f"http:// option {name} is for https:// only")
        if not _SWITCH[insecure] and not _is_loopback(host):
            raise InvalidURL(
                "http:// sends sessions in the clear: use https://, or say insecure=true if "
                "nobody else can listen"
            )
    elif "insecure" in options:
        raise InvalidURL(
            "https:// has no option insecure: give the authority that signed the server's "
            "certificate as ssl_ca_certs"
        )
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise InvalidURL("https:// option ssl_keyfile needs ssl_certfile")
    tls = Tls(
        options.get("ssl_ca_certs"), options.get("ssl_certfile"), options.get("ssl_keyfile")
    )
    path = url.path.strip("/")
    place = URL(scheme=url.scheme, host=ascii_host, port=url.port, path=path)
    return Settings(
        origin=str(place),
        key=_key(url, options.get("auth", Mode.BEARER.value)),
        tls=tls if url.scheme == "https" else None,
        timeout=_seconds(url, options, "timeout", 10.0),
        connect_timeout=_seconds(url, options, "connect_timeout", 5.0),
        connections=_count(url, options, "connections", 100),
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _key(url: URL, mode: str) -> Key:
    if mode not in (Mode.BEARER.value, Mode.HMAC.value):
        raise InvalidURL(f"{url.scheme}:// option auth is 'bearer' or 'hmac'")
    if url.username is not None or url.password is not None:
        id, secret = url.username or "", url.password or ""
        where = f"the {url.scheme}:// URL"
    else:
        id, _, secret = os.environ.get(KEY_VARIABLE, "").partition(":")
        where = KEY_VARIABLE
        if not id:
            raise InvalidURL(
                f"{url.scheme}:// needs a key: write {url.scheme}://id:secret@{url.host}, or "
                f"set {KEY_VARIABLE}=id:secret"
            )
    try:
        return Key.of(id, secret, Mode(mode))
    except InvalidKeys as error:
        raise InvalidURL(f"the key in {where}: {error}") from None


def _seconds(url: URL, options: dict[str, str], name: str, default: float) -> float:
    try:
        seconds = float(options.get(name, default))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidURL(f"{url.scheme}:// option {name} is a number of seconds above 0")
    return seconds


def _count(url: URL, options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 10_000):
        raise InvalidURL(f"{url.scheme}:// option {name} is a number from 1 to 10000")
    return int(text)
