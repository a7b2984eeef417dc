"""A schema for the kit: its backends, a clock that can be moved, and a look past them."""

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier

from perdure.backend import Backend
from perdure.testing import Harness, Process, TestClock
from perdure.types import SessionKey
from perdure.uri import parse

from perdure_postgres.backend import PostgresBackend
from perdure_postgres.url import settings_of

ITEMS = SQL("""
    SELECT i.key, i.value FROM {schema}.items AS i JOIN {schema}.sessions AS s USING (sid)
    WHERE s.version > 0 AND s.tenant = %s AND s.kind = %s AND s.id = %s
""")

# Staged parts and what waits to be removed, each under a name of its own.
HIDDEN = SQL("""
    SELECT i.sid || ':' || encode(i.key, 'hex'), i.value FROM {schema}.items AS i
    WHERE i.sid IN (
        SELECT sid FROM {schema}.stages WHERE (tenant, kind, id) = (%s, %s, %s)
        UNION ALL
        SELECT sid FROM {schema}.discarded WHERE (tenant, kind, id) = (%s, %s, %s)
    )
""")

# What no sweep would ever find.
LOST = SQL("""
    SELECT count(*) FROM {schema}.items WHERE sid NOT IN (
        SELECT sid FROM {schema}.sessions WHERE version > 0
        UNION ALL SELECT sid FROM {schema}.stages
        UNION ALL SELECT sid FROM {schema}.discarded
    )
""")

CREATE_CLOCK = SQL("CREATE TABLE {schema}.test_clock (now bigint NOT NULL)")
START_CLOCK = SQL("INSERT INTO {schema}.test_clock (now) VALUES ({now})")
SET_CLOCK = SQL("UPDATE {schema}.test_clock SET now = {now}")


def open_by_test_clock(url: str) -> PostgresBackend:
    """A backend that reads the time from a table of its schema."""
    settings = settings_of(parse(url))
    clock = SQL("(SELECT now FROM {schema}.test_clock)")
    text = clock.format(schema=Identifier(settings.schema)).as_string()
    return PostgresBackend(settings, clock=text)


def open_by_server_clock(url: str) -> PostgresBackend:
    return PostgresBackend(settings_of(parse(url)))


class PostgresHarness(Harness):
    """The schema that ``url`` names, and a connection to look into it. Close it at the end."""

    def __init__(self, url: str, clock: TestClock | None = None) -> None:
        self.clock = clock
        self.url = url
        self.settings = settings_of(parse(url))
        self.schema = Identifier(self.settings.schema)
        opener = open_by_server_clock if clock is None else open_by_test_clock
        self.process = Process(f"{opener.__module__}:{opener.__name__}", url)
        self.new = opener
        self.connection = psycopg.connect(self.settings.conninfo, autocommit=True)
        if clock is not None:
            self.make_clock(clock)

    def make_clock(self, clock: TestClock) -> None:
        db = self.connection
        db.execute(SQL("CREATE SCHEMA IF NOT EXISTS {schema}").format(schema=self.schema))
        with db.transaction():
            table = f"{self.schema.as_string()}.test_clock"
            if db.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
                db.execute(CREATE_CLOCK.format(schema=self.schema))
                db.execute(START_CLOCK.format(schema=self.schema, now=clock()))
            db.execute(SET_CLOCK.format(schema=self.schema, now=clock()))

    async def open(self) -> Backend:
        return self.new(self.url)

    async def advance(self, ms: int) -> None:
        await super().advance(ms)
        if self.clock is not None:
            self.connection.execute(SET_CLOCK.format(schema=self.schema, now=self.clock()))

    async def raw_items(self, key: SessionKey) -> dict[bytes, bytes]:
        name = (key.tenant, key.kind, key.id)
        db, schema = self.connection, self.schema
        items = dict(db.execute(ITEMS.format(schema=schema), name).fetchall())
        hidden = db.execute(HIDDEN.format(schema=schema), name * 2).fetchall()
        assert db.execute(LOST.format(schema=schema)).fetchone() == (0,)
        return items | {name.encode(): value for name, value in hidden}

    def close(self) -> None:
        self.connection.close()


def with_options(url: str, **options: str) -> str:
    """``url`` with these options in place of its own of the same names."""
    parsed = parse(url)
    changed = msgspec.structs.replace(parsed, query={**parsed.query, **options})
    return changed.render(hide_secrets=False)
