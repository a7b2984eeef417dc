"""How to reach a database, and how long to wait for it."""

import msgspec
from psycopg.conninfo import conninfo_to_dict, make_conninfo

DEFAULT_SCHEMA = "perdure"

DEFAULT_POOL = 8
"""Connections per process. More than a few per core of the server slow it down."""

DEFAULT_TIMEOUT = 10.0

LOCK_PART = 0.25
STATEMENT_PART = 0.9
"""After these parts of the timeout the server gives up, so that it is the server who says that
nothing was applied, rather than our clock that nobody knows."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says. ``repr`` shows no secret."""

    conninfo: str
    """A connection string of libpq, which documents what may be in it: several hosts, TLS, …
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"""
    listen_conninfo: str | None = None
    """Where to LISTEN instead, if a transaction pooler is behind ``conninfo``."""
    schema: str = DEFAULT_SCHEMA
    setup: bool = True
    """Whether to make the tables if they are missing."""
    prepare: bool = True
    """Whether prepared statements and settings of the session may be used. False behind a
    pooler that gives every transaction another connection (PgBouncer's transaction mode)."""
    pool: int = DEFAULT_POOL
    """At most so many connections, one more for LISTEN not counted."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds for which to wait for a connection, and then for the server's answer."""

    @property
    def location(self) -> str:
        """``host:port/database``, for people."""
        return location(self.conninfo)

    @property
    def listens_at(self) -> str | None:
        """The connection string to LISTEN on; ``None``: there is no direct connection."""
        if self.listen_conninfo is not None:
            return self.listen_conninfo
        return self.conninfo if self.prepare else None

    @property
    def lock_timeout(self) -> int:
        """For how many ms one statement may wait for a lock."""
        return max(1, int(self.timeout * LOCK_PART * 1000))

    @property
    def statement_timeout(self) -> int:
        """For how many ms one statement may run."""
        return max(1, int(self.timeout * STATEMENT_PART * 1000))

    def connect_string(self, conninfo: str, *, direct: bool) -> str:
        """``conninfo``, completed by what every connection of ours needs.

        What the user gave stands. ``direct``: no pooler is in between, so the server is told
        our settings as it starts the session. PgBouncer refuses ``options`` by default, which
        is as well: settings of a session would reach those of others.
        """
        given = conninfo_to_dict(conninfo)
        hosts = str(given.get("host") or given.get("hostaddr")).count(",") + 1
        parameters: dict[str, str | int] = {
            "application_name": "perdure",
            # Each in turn. libpq takes 2 for less.
            "connect_timeout": max(2, int(self.timeout / hosts)),
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": max(1000, int(self.timeout * 1000)),
            # Among several hosts, the one that takes commits; of one, none that does not.
            "target_session_attrs": "read-write",
        }
        parameters = {name: value for name, value in parameters.items() if name not in given}
        parameters["client_encoding"] = "UTF8"
        if direct:
            ours = (
                f"-c statement_timeout={self.statement_timeout} "
                f"-c lock_timeout={self.lock_timeout} "
                # The statements are written for it, and are right under stricter levels too,
                # but pay for those with retries.
                r"-c default_transaction_isolation=read\ committed "
                # Plans that are kept must not depend on the values they were first made for,
                # nor on how small the tables then were: docs/decisions/0008.
                "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
            )
            parameters["options"] = f"{ours} {given.get('options', '')}".strip()
        return make_conninfo(conninfo, **parameters)

    def __repr__(self) -> str:
        return f"Settings({self.location!r}, schema={self.schema!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("", self.location), ("schema", self.schema)]


def location(conninfo: str) -> str:
    """``host:port/database`` of a connection string, without its secrets."""
    given = conninfo_to_dict(conninfo)
    hosts = str(given.get("host") or given.get("hostaddr") or "localhost").split(",")
    ports = str(given.get("port") or "5432").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    names = [
        f"{f'[{host}]' if ':' in host else host}:{port}"
        for host, port in zip(hosts, ports, strict=False)
    ]
    database = given.get("dbname") or given.get("user") or ""
    return f"{','.join(names)}/{database}"
