"""Which table, and how to reach it, from a store URL.

``dynamodb://<table>?region=eu-west-1``. What the URL does not say is taken from where the AWS
tools take it: environment variables, ``~/.aws``, the roles of containers and instances.
Credentials are never in the URL.
"""

import re

import msgspec

from perdure.errors import InvalidURL
from perdure.uri import URL

OPTIONS = (
    "region",
    "endpoint",
    "profile",
    "ca",
    "insecure",
    "timeout",
    "request_timeout",
    "connect_timeout",
    "connections",
)
"""Options of the URL that are read here. The README says what they mean."""

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
_TABLE = re.compile(r"[a-zA-Z0-9_.-]{3,255}", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
ENDPOINT = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[^/?#@\[\]:\s]+)(:[0-9]{1,5})?", re.ASCII)
"""Where DynamoDB's protocol is spoken: a host, no path."""

_SWITCH = {"true": True, "false": False}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a URL can say. Holds no secret."""

    table: str
    region: str | None = None
    """``None``: as the AWS tools find it."""
    endpoint: str | None = None
    """``None``: that of the region, unless the environment or the profile names another."""
    profile: str | None = None
    """Of ``~/.aws/config``."""
    ca: str | None = None
    """File of the authorities to trust instead of those that botocore trusts."""
    insecure: bool = False
    """Whether an endpoint that is neither TLS nor this host is accepted."""
    timeout: float = 15.0
    """Seconds after which no further try of a request begins."""
    request_timeout: float = 5.0
    """Seconds for one try."""
    connect_timeout: float = 3.0
    """Seconds of a try for a place in the pool, connecting and TLS together."""
    connections: int = 100
    """Most connections open at once."""


def settings_from(url: URL) -> Settings:
    """What the URL asks for. Ignores options other than ``OPTIONS``. Raises ``InvalidURL``."""
    options = {name: url.query[name] for name in OPTIONS if name in url.query}
    if url.username is not None or url.password is not None:
        raise InvalidURL(
            f"{url.scheme}:// takes no user name or password: credentials are found as the AWS "
            "tools find them; option profile names a profile"
        )
    if url.port is not None or url.path:
        raise InvalidURL(f"{url.scheme}:// names a table and no more: {url.scheme}://sessions")
    if url.host is None or not _TABLE.fullmatch(url.host):
        raise InvalidURL(
            f"{url.scheme}:// names a table, 3 to 255 letters, digits, '_', '-' and '.': "
            f"{url.scheme}://sessions?region=eu-west-1"
        )
    region = options.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise InvalidURL(f"{url.scheme}:// option region is a region's name, as eu-west-1")
    endpoint = options.get("endpoint")
    if endpoint is not None and not ENDPOINT.fullmatch(endpoint := endpoint.rstrip("/")):
        raise InvalidURL(
            f"{url.scheme}:// option endpoint is a URL without a path, as http://127.0.0.1:8000"
        )
    insecure = options.get("insecure", "false")
    if insecure not in _SWITCH:
        raise InvalidURL(f"{url.scheme}:// option insecure is 'true' or 'false'")
    return Settings(
        table=url.host,
        region=region,
        endpoint=endpoint,
        profile=options.get("profile"),
        ca=options.get("ca"),
        insecure=_SWITCH[insecure],
        timeout=_seconds(url, options, "timeout", 15.0),
        request_timeout=_seconds(url, options, "request_timeout", 5.0),
        connect_timeout=_seconds(url, options, "connect_timeout", 3.0),
        connections=_count(url, options, "connections", 100),
    )


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
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise InvalidURL(f"{url.scheme}:// option {name} is a number above 0")
    return int(text)
