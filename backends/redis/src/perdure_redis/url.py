"""``redis://host:port/db`` and its relatives, of which :mod:`perdure_redis.settings` tells."""

from perdure.errors import InvalidURL
from perdure.uri import URL

from perdure_redis.backend import RedisBackend
from perdure_redis.settings import OPTIONS, settings_from

_SWITCH = {"true": True, "false": False}
_EVICTION = {"refuse": False, "allow": True}


def open_url(url: URL) -> RedisBackend:
    """The backend on the servers that the URL names. Does no I/O.

    Options besides those of the connection: ``prefix`` of all keys; ``setup=false`` never
    begins to use one; ``eviction=allow`` accepts a server that may drop keys. Raises
    ``InvalidURL``.
    """
    options = url.options((*OPTIONS, "prefix", "setup", "eviction"))
    setup, eviction = options.get("setup", "true"), options.get("eviction", "refuse")
    if setup not in _SWITCH:
        raise InvalidURL(f"{url.scheme}:// option setup is 'true' or 'false'")
    if eviction not in _EVICTION:
        raise InvalidURL(f"{url.scheme}:// option eviction is 'refuse' or 'allow'")
    return RedisBackend(
        settings_from(url),
        prefix=options.get("prefix", "perdure"),
        setup=_SWITCH[setup],
        allow_eviction=_EVICTION[eviction],
    )
