"""``postgresql://user:password@host:port/database``, as libpq writes it."""

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from perdure.errors import InvalidURL
from perdure.uri import URL

from perdure_postgres.backend import PostgresBackend
from perdure_postgres.settings import DEFAULT_POOL, DEFAULT_SCHEMA, DEFAULT_TIMEOUT, Settings

_OURS = ("schema", "setup", "pool", "timeout", "prepare", "listen_url")
_SWITCH = {"true": True, "false": False}
_MAX_SCHEMA_BYTES = 63  # NAMEDATALEN - 1: longer ones would be cut


def open_url(url: URL) -> PostgresBackend:
    """The backend on the database that the URL names. Does no I/O.

    Options: ``schema`` (``perdure``); ``setup=false`` never makes the tables; ``pool``, the
    most connections; ``timeout`` in seconds; ``prepare=false`` behind a pooler in transaction
    mode, and ``listen_url``, a direct URL to LISTEN on; and whatever libpq knows (``sslmode``,
    ``host`` for several hosts, ...). Raises ``InvalidURL``.
    """
    return PostgresBackend(settings_of(url))


def settings_of(url: URL) -> Settings:
    """What the URL says. Raises ``InvalidURL``."""
    libpq = {option.keyword.decode() for option in Conninfo.get_defaults()}
    options = url.options((*_OURS, *sorted(libpq)))
    schema = options.get("schema", DEFAULT_SCHEMA)
    if not schema or len(schema.encode()) > _MAX_SCHEMA_BYTES:
        raise InvalidURL(
            f"postgresql:// option schema is a name of 1 to {_MAX_SCHEMA_BYTES} UTF-8 bytes"
        )
    listen_url = options.get("listen_url")
    return Settings(
        conninfo=_conninfo(url, {k: v for k, v in options.items() if k not in _OURS}),
        listen_conninfo=None if listen_url is None else _checked(listen_url),
        schema=schema,
        setup=_switch(options, "setup"),
        prepare=_switch(options, "prepare"),
        pool=_connections(options.get("pool")),
        timeout=_seconds(options.get("timeout")),
    )


def _conninfo(url: URL, options: dict[str, str]) -> str:
    given = {
        "host": url.host,
        "port": None if url.port is None else str(url.port),
        "user": url.username,
        "password": url.password,
        "dbname": url.path or None,
    }
    for name, value in given.items():
        if value is not None:
            if name in options:
                raise InvalidURL(f"postgresql:// URL: {name} is given twice")
            options[name] = value
    return _checked(make_conninfo(**options))


def _checked(conninfo: str) -> str:
    """The same, if libpq can read it."""
    try:
        conninfo_to_dict(conninfo)
    except ProgrammingError:
        pass  # what it says might quote a password, so it is not even chained to our error
    else:
        return conninfo
    raise InvalidURL("postgresql:// URL: libpq cannot read its options")


def _switch(options: dict[str, str], name: str) -> bool:
    value = options.get(name, "true")
    if value not in _SWITCH:
        raise InvalidURL(f"postgresql:// option {name} is 'true' or 'false'")
    return _SWITCH[value]


def _connections(text: str | None) -> int:
    if text is None:
        return DEFAULT_POOL
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 1000):
        raise InvalidURL("postgresql:// option pool is a number of connections, 1 to 1000")
    return int(text)


def _seconds(text: str | None) -> float:
    if text is None:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InvalidURL("postgresql:// option timeout is a number of seconds above 0")
    return seconds
