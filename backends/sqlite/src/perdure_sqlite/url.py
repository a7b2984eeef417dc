"""``sqlite:///relative.db`` and ``sqlite:////absolute.db``, as SQLAlchemy writes them."""

from perdure.errors import InvalidURL
from perdure.uri import URL

from perdure_sqlite.backend import SqliteBackend
from perdure_sqlite.file import Synchronous

_SYNCHRONOUS: dict[str, Synchronous] = {"full": "full", "normal": "normal"}
_SWITCH = {"true": True, "false": False}


def open_url(url: URL) -> SqliteBackend:
    """The backend on the file that the URL names. Does no I/O.

    Options: ``synchronous=full`` (the default) or ``normal``; ``setup=false`` never creates
    the file or its tables; ``timeout`` in seconds. Raises ``InvalidURL``.
    """
    options = url.options(("synchronous", "setup", "timeout"))
    if url.host is not None or url.port is not None:
        raise InvalidURL(
            "sqlite:// names a file, not a host: write sqlite:///relative.db or "
            "sqlite:////absolute.db"
        )
    if url.username is not None or url.password is not None:
        raise InvalidURL("sqlite:// takes no user name or password")
    if not url.path or url.path == ":memory:":
        raise InvalidURL(
            "sqlite:// needs the path of a file, as in sqlite:///sessions.db; for sessions "
            "that live in memory only, use memory://"
        )
    synchronous = options.get("synchronous", "full")
    if synchronous not in _SYNCHRONOUS:
        raise InvalidURL("sqlite:// option synchronous is 'full' or 'normal'")
    setup = options.get("setup", "true")
    if setup not in _SWITCH:
        raise InvalidURL("sqlite:// option setup is 'true' or 'false'")
    return SqliteBackend(
        url.path,
        synchronous=_SYNCHRONOUS[synchronous],
        setup=_SWITCH[setup],
        timeout=_seconds(options.get("timeout", "10")),
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidURL("sqlite:// option timeout is a number of seconds, 0 or more")
    return seconds
