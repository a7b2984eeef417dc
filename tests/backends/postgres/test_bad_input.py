"""Whatever is wrong with a database is said at the first call, in time, and without secrets."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from perdure.errors import PerdureError, Unavailable, Unsupported

from perdure_postgres.settings import Settings
from tests.backends.postgres.databases import administer, connected, execute, query
from tests.backends.postgres.pooler import pooling
from tests.services.postgres import NO_SYNC, Postgres

SECRET = "correct-horse/battery"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of our own, with a role that needs a password and one that is shut out."""
    with Postgres.start(tmp_path_factory.mktemp("postgres"), *NO_SYNC) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'".encode())
            connection.execute("CREATE ROLE nologin NOLOGIN")
            connection.execute("CREATE ROLE banned LOGIN")
            rules = server.directory / "data" / "pg_hba.conf"
            rules.write_text(
                "host all guarded 127.0.0.1/32 scram-sha-256\n"
                "host all banned 127.0.0.1/32 reject\n" + rules.read_text()
            )
            connection.execute("SELECT pg_reload_conf()")
        yield server


async def refusal(url: str, **settings: Any) -> Unavailable:
    """What the first call raises, well within the timeout."""
    began = time.monotonic()
    async with connected(url, **settings) as database:
        with pytest.raises(Unavailable) as raised:
            await query(database, "SELECT 1")
    assert time.monotonic() - began < 5
    assert SECRET not in everything_said(raised.value)
    return raised.value


def everything_said(error: BaseException | None) -> str:
    """What a traceback, or a reporter that looks into it, would show of an error and its
    causes."""
    said = ""
    while error is not None:
        said += f"{error!r} {error} {vars(error)}"
        error = error.__cause__ or error.__context__
    return said


async def test_the_right_password(server: Postgres) -> None:
    url = make_conninfo(server.url, user="guarded", password=SECRET)
    async with connected(url) as database:
        assert await query(database, "SELECT current_user::text") == [("guarded",)]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"user": "guarded", "password": SECRET + "x"}, "password authentication failed"),
        ({"user": "guarded"}, "no password supplied"),
        ({"user": "banned", "password": SECRET}, "pg_hba.conf"),
        ({"user": "nologin", "password": SECRET}, "not permitted to log in"),
        ({"user": "nobody-knows", "password": SECRET}, "does not exist"),
        ({"dbname": "no-such-database", "password": SECRET}, "does not exist"),
        ({"sslmode": "require", "password": SECRET}, "SSL"),
        ({"options": "-c no_such_setting=1"}, "unrecognized configuration parameter"),
    ],
)
async def test_what_stays_wrong_is_said_to_be_lasting(
    server: Postgres, parameters: dict[str, str], said: str
) -> None:
    error = await refusal(make_conninfo(server.url, **parameters))
    assert said in str(error)
    assert error.lasting


async def test_nobody_listens_there(server: Postgres) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = make_conninfo(
            server.url, port=unused.getsockname()[1], user="guarded", password=SECRET
        )
        error = await refusal(url)
    assert "refused" in str(error)
    assert not error.lasting  # it may be starting


async def test_no_such_host(server: Postgres) -> None:
    error = await refusal(make_conninfo(server.url, host="no-such-host.invalid"))
    assert "no-such-host.invalid" in str(error)
    assert error.lasting


async def test_a_host_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://guarded:{SECRET.replace('/', '%2F')}@127.0.0.1:{port}/perdure"
        began = time.monotonic()
        error = await refusal(url, timeout=0.5)
        assert time.monotonic() - began < 3
    assert "0.5 s" in str(error)
    assert not error.lasting


async def test_a_server_that_is_no_postgres() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        await refusal(f"postgresql://perdure@127.0.0.1:{port}/perdure", timeout=2)


async def test_a_server_too_old(server: Postgres) -> None:
    with pooling(server.url, reports={"server_version": "9.6.24"}) as (url, _):
        async with connected(url, prepare=False) as database:
            with pytest.raises(Unsupported, match=r"9\.6.*13"):
                await query(database, "SELECT 1")


async def test_a_database_that_cannot_hold_any_text(server: Postgres) -> None:
    await administer(
        server.url, "CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0"
    )
    async with connected(make_conninfo(server.url, dbname="latin")) as database:
        with pytest.raises(Unsupported, match="LATIN1"):
            await query(database, "SELECT 1")


async def test_a_standby_takes_no_writes(server: Postgres) -> None:
    await administer(server.url, "CREATE DATABASE standby")
    await administer(
        server.url, "ALTER DATABASE standby SET default_transaction_read_only = on"
    )
    url = make_conninfo(server.url, dbname="standby")
    error = await refusal(url)
    assert "read-only" in str(error)
    assert not error.lasting  # a failover may be under way
    async with connected(make_conninfo(url, target_session_attrs="any")) as database:
        assert await query(database, "SELECT 1") == [(1,)]
        with pytest.raises(Unavailable, match="25006"):
            await execute(database, "CREATE TABLE t (a integer)")


async def test_the_host_that_takes_writes_is_found(server: Postgres) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = make_conninfo(
            server.url,
            host="127.0.0.1,127.0.0.1",
            port=f"{unused.getsockname()[1]},{server.port}",
        )
        async with connected(url) as database:
            assert await query(database, "SELECT 1") == [(1,)]


async def test_a_host_that_never_answers_is_passed_over(server: Postgres) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = f"{silent.getsockname()[1]},{server.port}"
        url = make_conninfo(server.url, host="127.0.0.1,127.0.0.1", port=ports)
        async with connected(url, timeout=5) as database:
            assert await query(database, "SELECT 1") == [(1,)]


async def test_everybody_who_waits_is_told(server: Postgres) -> None:
    url = make_conninfo(server.url, dbname="no-such-database")
    async with connected(url) as database:
        errors = await asyncio.gather(
            *(query(database, "SELECT 1") for _ in range(50)), return_exceptions=True
        )
    assert all(isinstance(error, Unavailable) and error.lasting for error in errors)
    assert len({id(error) for error in errors}) == 50


async def test_a_password_shows_nowhere(
    server: Postgres, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    url = make_conninfo(server.url, user="guarded", password=SECRET)
    settings = Settings(conninfo=url, listen_conninfo=url)
    async with connected(url) as database:
        await query(database, "SELECT 1")
        with pytest.raises(PerdureError) as raised:
            await query(database, "SELECT 1/0")
        shown = f"{settings!r} {settings} {database!r} {everything_said(raised.value)}"
    assert SECRET not in shown + caplog.text + "".join(capfd.readouterr())
    assert settings.location == f"127.0.0.1:{server.port}/perdure"


async def test_a_connection_string_names_its_place() -> None:
    for conninfo, place in {
        "postgresql://u:p@db.example/app": "db.example:5432/app",
        "postgresql://u:p@[::1]:6543/app": "[::1]:6543/app",
        "host=a,b port=1,2 dbname=app password=p": "a:1,b:2/app",
        "host=a,b dbname=app": "a:5432,b:5432/app",
        "user=me": "localhost:5432/me",
        "host=/run/postgresql dbname=app": "/run/postgresql:5432/app",
    }.items():
        assert Settings(conninfo=conninfo).location == place
